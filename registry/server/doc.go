// Package server is a registry: an http.Handler that serves and takes images by the OCI distribution protocol 1.1 from a
// folder on disk.
//
// Laws:
//   - A blob or manifest is visible only whole and with the digest it is named by; what was acknowledged is synced.
//   - Names are checked before they become paths; nothing outside the folder is read or written.
//   - An upload that was never finished leaves only a file in the uploads folder, removed when the server starts again.
//
// Layout of the folder: blobs/sha256/HEX, repos/NAME/_manifests/HEX (media type), repos/NAME/_tags/TAG (digest),
// repos/NAME/_blobs/HEX (what the repository may serve), uploads/ID.
package server
