// Package layer keeps blobs by digest, the unpacked layers of images, and the read-write snapshots of containers.
//
// # On disk
//
// The root is an OCI image layout (image-spec, "OCI Image Layout"), and beside it what was made of it:
//
//	oci-layout, index.json     the layout's marker; its index belongs to package image
//	blobs/sha256/HEX           blobs as they were transferred: manifests, configurations, compressed layers
//	layer/lock                 held (flock) by the one process that has the store open
//	layer/diff/HEX/fs          an unpacked layer by diff id, as overlayfs wants it
//	layer/diff/HEX/meta.json   its size and what must be known to stack it
//	layer/chain/HEX            a chain id's layers, bottom first (JSON)
//	layer/rw/N                 a container's changes (fs), overlayfs's work, and the link "chain"
//	layer/snapshot/ID          a link to the container's folder in rw
//	layer/tmp, layer/trash     not finished, not needed any more; emptied at Open
//
// # Laws
//
//   - What is in blobs, diff and chain is whole: it was written to tmp, verified, synced, renamed. A process that is
//     killed, or a power cut, at any moment leaves nothing else there.
//   - Unpacked layers don't depend on the layers below, so images share them in any combination
//     (docs/decisions/0010-layers-by-diff-id.md).
//   - What goes away is renamed to trash first, and deleted in the background.
//   - Collect deletes what neither the caller's list, nor a snapshot, nor a Hold needs.
package layer
