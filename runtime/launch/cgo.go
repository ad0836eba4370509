//go:build cgo

package launch

// libc says that a C library may be in the process: it registers memory of its own with the kernel for each thread (rseq(2)), which a
// child must have.
const libc = true
