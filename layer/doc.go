// Package layer stores blobs by digest (an OCI image layout), layers unpacked from them, and the snapshots that
// containers write to.
package layer
