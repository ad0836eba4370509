// Package unpack writes a layer's tar (OCI image specification, "Image Layer Filesystem Changeset") into an empty
// folder, in the form in which overlayfs wants a lower layer: a whiteout becomes a character device 0/0, an opaque
// marker becomes the attribute trusted.overlay.opaque.
//
// The tar is not trusted. Every path is resolved by the kernel inside the folder (openat2 with RESOLVE_IN_ROOT), so that
// neither "..", nor an absolute name, nor a chain of symbolic links reaches anything outside it; hard links are made
// between two such resolved places only. Sizes, numbers of entries and lengths of paths are bounded. After an error the
// folder holds a part of the layer: the caller throws it away.
//
// The folder must belong to the caller alone while Unpack runs: nothing else may change it.
package unpack
