package container

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"skiff/keeper"
)

// streams are both ends of a process's stdio until it runs.
type streams struct {
	child        Stdio // closed after the launch
	in, out, err *os.File
	master       *os.File // the pty's master, which in and out are then too
	openStdin    bool
}

// newStreams makes a pty, or a pipe for each stream that is wanted. size is height and width.
func (m *Manager) newStreams(tty, stdin, stdout, stderr bool, size [2]uint) (*streams, error) {
	s := &streams{openStdin: stdin}
	if tty {
		t, err := m.cfg.Runtime.Terminal(size[0], size[1])
		if err != nil {
			return nil, fmt.Errorf("make a terminal: %w", err)
		}
		s.master, s.in, s.out = t.Master, t.Master, t.Master
		s.child = Stdio{In: t.Slave, Out: t.Slave, Err: t.Slave, DevPTS: t.DevPTS}
		return s, nil
	}
	var err error
	if stdin {
		// Our end doesn't block: a client who leaves must get its goroutine back although the container reads nothing.
		if s.child.In, s.in, err = pipe(); err == nil {
			s.in, err = nonblock(s.in)
		}
	}
	if stdout && err == nil {
		s.out, s.child.Out, err = pipe()
	}
	if stderr && err == nil {
		s.err, s.child.Err, err = pipe()
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make the streams: %w", err)
	}
	return s, nil
}

// keep gives the files that the engine needs as long as the process runs; the others are left to close.
func (s *streams) keep() (stdin, master *os.File) {
	if master = s.master; master != nil {
		s.in, s.out, s.master = nil, nil, nil
		if s.openStdin {
			stdin = master
		}
		return stdin, master
	}
	stdin, s.in = s.in, nil
	return stdin, nil
}

func (s *streams) close() {
	seen := map[*os.File]bool{nil: true}
	for _, f := range []*os.File{s.child.In, s.child.Out, s.child.Err, s.child.DevPTS, s.in, s.out, s.err, s.master} {
		if !seen[f] {
			seen[f] = true
			f.Close()
		}
	}
}

// pipe makes a pipe whose ends block, as programs expect it.
func pipe() (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe"), nil
}

// nonblock makes a file that blocks one that Go's poller looks after. It consumes f.
func nonblock(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "pipe"), nil
}

// tap is a client's side of a process's streams. Its output comes from the keeper, framed, over a socket; its input goes
// to the process directly.
type tap struct {
	stdout, stderr bool
	r, w           *os.File      // nil without output; w is the keeper's end, until it was handed over
	ready          chan struct{} // closed when live is set, or the tap was given up
	live           *live         // nil: given up
}

func newTap(stdout, stderr bool) (*tap, error) {
	t := &tap{stdout: stdout, stderr: stderr, ready: make(chan struct{})}
	if !stdout && !stderr {
		return t, nil
	}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	t.r, t.w = os.NewFile(uintptr(p[0]), "output"), os.NewFile(uintptr(p[1]), "output")
	return t, nil
}

// subscriber is what the keeper gets; false if no output is wanted.
func (t *tap) subscriber() (keeper.Subscriber, bool) {
	return keeper.Subscriber{W: t.w, Stdout: t.stdout, Stderr: t.stderr}, t.w != nil
}

// started hands the tap to the running process. Its end for the keeper is with the keeper.
func (t *tap) started(l *live) {
	t.live = l
	t.closeW()
	close(t.ready)
}

// giveUp ends a tap that will never get a process.
func (t *tap) giveUp() {
	t.closeW()
	close(t.ready)
}

func (t *tap) closeW() {
	closeFile(t.w)
	t.w = nil
}

// splitExec takes a process id of the keeper apart.
func splitExec(id string) (container, exec string, ok bool) { return strings.Cut(id, "/") }

// execProcessID is the keeper's id of an exec.
func execProcessID(container, exec string) string { return container + "/" + exec }
