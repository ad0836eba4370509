//go:build !cgo

package launch

// libc says that no C library is in the process.
const libc = false
