// Command skiff is the client: see package cli.
package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"skiff/cli"
)

// start is the program's entry point for the linker, in assembly.
//
//lint:ignore U1000 the linker's -E names it
func start()

func main() {
	warm()
	os.Exit(cli.Main(os.Args[1:]))
}

// warmBytes is how much of the heap a short command uses.
const warmBytes = 128 << 10

// warm takes the heap's next pages in one system call. One by one, each costs a page fault, which is dear in a virtual machine
// (docs/decisions/0021).
func warm() {
	p := new([8 << 10]byte) // a span of its own, where the heap goes on
	at := uintptr(unsafe.Pointer(p)) &^ uintptr(os.Getpagesize()-1)
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, at, warmBytes, unix.MADV_POPULATE_WRITE) // before Linux 5.14 there is none
}
