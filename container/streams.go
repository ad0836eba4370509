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

// terminalStreams are those of a process on a pty, of which t holds both ends. Our end must not block: a client who leaves
// must get its goroutine back although the process reads nothing.
func terminalStreams(t *Terminal, openStdin bool) (*streams, error) {
	s := &streams{openStdin: openStdin, child: Stdio{In: t.Slave, Out: t.Slave, Err: t.Slave, DevPTS: t.DevPTS}}
	master, err := nonblock(t.Master)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make the streams: %w", err)
	}
	s.master, s.in, s.out = master, master, master
	return s, nil
}

// pipeStreams makes a pipe for each stream that is wanted.
func pipeStreams(stdin, stdout, stderr bool) (*streams, error) {
	s := &streams{openStdin: stdin}
	var err error
	if stdin {
		s.child.In, s.in, err = keeper.InputPipe()
	}
	if stdout && err == nil {
		s.out, s.child.Out, err = keeper.OutputPipe()
	}
	if stderr && err == nil {
		s.err, s.child.Err, err = keeper.OutputPipe()
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

// closeChild closes what is the process's alone, so that its streams end with it.
func (s *streams) closeChild() {
	seen := map[*os.File]bool{nil: true}
	for _, f := range []*os.File{s.child.In, s.child.Out, s.child.Err, s.child.DevPTS} {
		if !seen[f] {
			seen[f] = true
			f.Close()
		}
	}
	s.child = Stdio{}
}

func (s *streams) close() {
	s.closeChild()
	seen := map[*os.File]bool{nil: true}
	for _, f := range []*os.File{s.in, s.out, s.err, s.master} {
		if !seen[f] {
			seen[f] = true
			f.Close()
		}
	}
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
	return os.NewFile(uintptr(fd), f.Name()), nil
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
