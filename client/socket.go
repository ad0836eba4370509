package client

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a connection to a daemon on this machine, with blocking reads and writes: setting up and waking through Go's network
// poller costs a short command 0.8 ms (docs/decisions/0021). Close ends the reads and writes that are under way.
type socket struct{ *os.File }

// dialUnix connects to a Unix socket.
func dialUnix(ctx context.Context, path string) (*socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, dialError(path, "socket", err)
	}
	if err := connectUnix(ctx, fd, path); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return nil, dialError(path, "fcntl", err)
	}
	return &socket{os.NewFile(uintptr(fd), path)}, nil
}

// connectUnix connects. A daemon that accepts nothing for the moment (EAGAIN, unix(7)) is waited for until ctx ends.
func connectUnix(ctx context.Context, fd int, path string) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return dialError(path, "connect", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func dialError(path, call string, err error) error {
	return &net.OpError{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"}, Err: os.NewSyscallError(call, err)}
}

// CloseWrite ends our direction.
func (s *socket) CloseWrite() error { return s.shutdown(unix.SHUT_WR) }

// Close ends both directions, also for those who wait in Read or Write.
func (s *socket) Close() error {
	_ = s.shutdown(unix.SHUT_RDWR)
	return s.File.Close()
}

func (s *socket) shutdown(how int) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), how) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return &fs.PathError{Op: "shutdown", Path: s.Name(), Err: err}
	}
	return nil
}

// quiet reports whether there is nothing to read, not even the end.
func (s *socket) quiet() bool {
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		n, perr := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		quiet = perr == nil && n == 0
	})
	return err == nil && quiet
}
