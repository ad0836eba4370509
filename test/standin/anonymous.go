package main

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// runAnonymous runs a binary that is in memory only (memfd_create(2)), so that no file of it is left anywhere.
func runAnonymous(bin []byte, argv ...string) ([]byte, error) {
	fd, err := unix.MemfdCreate(argv[0], unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), argv[0])
	defer f.Close()
	if _, err := f.Write(bin); err != nil {
		return nil, err
	}
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", fd))
	cmd.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	cmd.Args = argv
	return cmd.Output()
}
