package keeper

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OutputPipe makes the pipe for a process's stdout or stderr: r for LaunchRequest, w for the process. w is open for reading too, so
// that the process gets no SIGPIPE should keeper and engine die together; it is in blocking mode, as programs expect.
func OutputPipe() (r, w *os.File, err error) {
	p, err := pipe()
	if err != nil {
		return nil, nil, err
	}
	if both, err := unix.Open("/proc/self/fd/"+strconv.Itoa(p[1]), unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		closeFD(p[1]) // without /proc the plain end has to do
		p[1] = both
	}
	return ours(p[0], "output"), os.NewFile(uintptr(p[1]), "process's output"), nil
}

// InputPipe makes the pipe for a process's stdin: r for the process, in blocking mode, w for LaunchRequest.
func InputPipe() (r, w *os.File, err error) {
	p, err := pipe()
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(p[0]), "process's input"), ours(p[1], "input"), nil
}

func pipe() (p [2]int, err error) {
	if err = unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		err = fmt.Errorf("make a pipe: %w", err)
	}
	return p, err
}

// ours is an end for Go's poller.
func ours(fd int, name string) *os.File {
	_ = unix.SetNonblock(fd, true) // without it reads merely block a thread
	return os.NewFile(uintptr(fd), name)
}
