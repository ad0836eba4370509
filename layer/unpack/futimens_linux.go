package unpack

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// futimens sets access and modification time of an open file: utimensat(2) with a null path, for which x/sys has no form.
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
