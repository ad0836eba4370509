package oci

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime"
	"skiff/runtime/cgroup"
	"skiff/runtime/launch"
)

// CreateOptions are the flags of create.
type CreateOptions struct {
	Bundle        string        // folder with config.json
	Stdio         runtime.Stdio // the process's streams, unless it has a terminal
	ConsoleSocket string        // unix socket that the terminal's master is sent to
	Console       func(master *os.File) error
	PIDFile       string
	Preserve      int  // descriptors from 3 on that are handed on
	NoPivot       bool // the root file system is put on an empty one instead of exchanging the roots
	NoKeyring     bool
}

// Create makes a container whose process waits at the gate. Nothing is left if it fails. The process is returned for
// callers that stay; it outlives those that don't.
func (r *Runtime) Create(id string, opt CreateOptions) (*Container, *launch.Process, error) {
	bundle, err := filepath.Abs(opt.Bundle)
	if err != nil {
		return nil, nil, fmt.Errorf("bundle %s: %w", opt.Bundle, err)
	}
	spec, err := LoadBundle(bundle)
	if err != nil {
		return nil, nil, err
	}
	if err := opt.checkTerminal(spec); err != nil {
		return nil, nil, err
	}
	c, err := r.make(id, bundle, spec)
	if err != nil {
		return nil, nil, err
	}
	defer c.release()
	p, err := c.launch(&opt)
	if err == nil {
		err = c.created(p, &opt)
		if err != nil {
			_ = unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0)
			_, _ = p.Wait() // the first error counts
			_ = p.PIDFD.Close()
		}
	}
	if err != nil {
		c.undo()
		return nil, nil, err
	}
	return c, p, nil
}

func (o *CreateOptions) checkTerminal(spec *specs.Spec) error {
	sink := o.ConsoleSocket != "" || o.Console != nil
	switch {
	case spec.Process.Terminal && !sink:
		return errs.New(errs.Invalid, "cannot allocate tty if runc will detach without setting console socket")
	case !spec.Process.Terminal && o.ConsoleSocket != "":
		return errs.New(errs.Invalid, "cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// undo removes what a failed create has made, poststop hooks included.
func (c *Container) undo() {
	if err := c.remove(); err != nil {
		slog.Warn("undo a failed create", "container", c.ID, "error", err)
	}
}

// launch starts the process up to the gate.
func (c *Container) launch(opt *CreateOptions) (*launch.Process, error) {
	in := runtime.ContainerInput{Spec: c.Spec, Stdio: opt.Stdio, NoKeyring: opt.NoKeyring, KeepOrder: true}
	var files closers
	defer files.close()
	gate, err := files.gate(c)
	if err != nil {
		return nil, err
	}
	in.Gate = gate
	if in.Cgroup, err = c.makeCgroup(); err != nil {
		return nil, err
	}
	if in.Preserved, err = files.preserved(opt.Preserve); err != nil {
		return nil, err
	}
	if opt.NoPivot {
		if in.Base, err = runtime.NewBase(); err != nil {
			return nil, err
		}
		files = append(files, in.Base)
	}
	if c.Spec.Process.Terminal {
		if err := files.terminal(&in, c.Spec, opt); err != nil {
			return nil, err
		}
	}
	pause, far, err := files.pause(c.Spec.Hooks)
	if err != nil {
		return nil, err
	}
	in.BeforePivot = pause
	a, err := runtime.Container(in)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	if err := c.keepProgram(a.Program); err != nil {
		return nil, err
	}
	return c.start(a, far)
}

// start runs the program, and the hooks beside it.
func (c *Container) start(a *runtime.Assembly, far *runtime.Pause) (*launch.Process, error) {
	opt := launch.Options{Memory: &c.rt.memory}
	hooks := make(chan error, 1)
	hooks <- nil
	if far != nil {
		<-hooks
		opt.Cloned = func(pid int) error {
			go func() { hooks <- c.hooksBeforePivot(pid, far) }()
			return nil
		}
	}
	p, err := a.Program.Start(a.Files, opt)
	if err != nil && far != nil {
		_ = far.Tell.Close() // a child that died before its pause
	}
	if herr := <-hooks; herr != nil {
		if err == nil {
			_ = p.PIDFD.Close()
		}
		return nil, herr
	}
	return p, err
}

// hooksBeforePivot waits until the child pauses and runs the hooks of create. When one fails the child is killed.
func (c *Container) hooksBeforePivot(pid int, far *runtime.Pause) error {
	var b [1]byte
	if n, err := far.Tell.Read(b[:]); n == 0 || err != nil {
		return nil // the child is dead, and Start says why
	}
	err := c.createHooks(pid)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL) // our child, not yet reaped: the pid is its own
		return err
	}
	if _, err := far.Wait.Write(b[:]); err != nil {
		return fmt.Errorf("let the new process go on: %w", err)
	}
	return nil
}

func (c *Container) createHooks(pid int) error {
	h := c.Spec.Hooks
	c.PID = pid
	_, c.StartTime, _ = processStat(pid)
	if err := c.save(); err != nil { // for hooks that ask for the state
		return err
	}
	s := c.State()
	s.Status = specs.StateCreating
	//lint:ignore SA1019 deprecated, still to be run
	if err := runHooks("prestart", h.Prestart, s, nil, 0); err != nil {
		return err
	}
	if err := runHooks("createRuntime", h.CreateRuntime, s, nil, 0); err != nil {
		return err
	}
	if len(h.CreateContainer) == 0 {
		return nil
	}
	fd, err := c.pidfd()
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	flags, err := runtime.Foreign(pid)
	if err != nil {
		return err
	}
	return runHooks("createContainer", h.CreateContainer, s, fd, flags)
}

// created records a process that waits at the gate.
func (c *Container) created(p *launch.Process, opt *CreateOptions) error {
	c.PID = p.PID
	var err error
	if _, c.StartTime, err = processStat(p.PID); err != nil {
		return fmt.Errorf("the new process is gone: %w", err)
	}
	if err := c.save(); err != nil {
		return err
	}
	return writePID(opt.PIDFile, p.PID)
}

// writePID writes a pid file in one step.
func writePID(name string, pid int) error {
	if name == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name))
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o666); err != nil {
		return fmt.Errorf("write the pid file: %w", err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("write the pid file: %w", err)
	}
	return nil
}

// makeCgroup makes the control group that the specification names, below the root of each hierarchy if it is no absolute path.
func (c *Container) makeCgroup() (*cgroup.Cgroup, error) {
	host, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	if host.Version() == 0 {
		return nil, nil
	}
	at := c.Spec.Linux.CgroupsPath
	if strings.Contains(at, ":") {
		return nil, errs.New(errs.NotImplemented, "cgroupsPath %q is one of systemd, which is not supported", at)
	}
	if at == "" {
		at = "/" + c.ID
	}
	at = filepath.Clean("/" + at)
	res := specs.LinuxResources{}
	if c.Spec.Linux.Resources != nil {
		res = *c.Spec.Linux.Resources
	}
	res.Devices = append(slices.Clone(res.Devices), defaultDevices()...)
	g, warnings, err := host.Create(at, &res)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		slog.Warn(w, "container", c.ID)
	}
	c.Cgroup = at
	return g, c.save()
}

// defaultDevices are the rules for what every container has, whatever its own rules say: the default devices, terminals, and making
// any node (which gives no access).
func defaultDevices() []specs.LinuxDeviceCgroup {
	any64 := func(n int64) *int64 { return &n }
	rule := func(kind, access string, major, minor int64) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access, Major: any64(major), Minor: any64(minor)}
	}
	return []specs.LinuxDeviceCgroup{
		rule("c", "m", -1, -1), rule("b", "m", -1, -1),
		rule("c", "rwm", 1, 3), rule("c", "rwm", 1, 5), rule("c", "rwm", 1, 7), rule("c", "rwm", 1, 8), rule("c", "rwm", 1, 9),
		rule("c", "rwm", 5, 0), rule("c", "rwm", 5, 1), rule("c", "rwm", 5, 2), rule("c", "rwm", 136, -1),
	}
}

// closers are files that are closed together.
type closers []*os.File

func (f *closers) close() {
	for _, x := range *f {
		_ = x.Close() // nothing was written through it
	}
}

// gate makes the container's fifos. Both are opened for reading and writing: the child must not see an end of file.
func (f *closers) gate(c *Container) (*runtime.Gate, error) {
	var ends [2]*os.File
	for i, name := range []string{"gate", "errors"} {
		file := c.file(name)
		if err := unix.Mkfifo(file, 0o600); err != nil {
			return nil, fmt.Errorf("make the fifo %s: %w", file, err)
		}
		fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open the fifo %s: %w", file, err)
		}
		ends[i] = os.NewFile(uintptr(fd), file)
		*f = append(*f, ends[i])
	}
	return &runtime.Gate{Wait: ends[0], Errors: ends[1]}, nil
}

func (f *closers) preserved(n int) ([]*os.File, error) {
	var out []*os.File
	for fd := 3; fd < 3+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, errs.New(errs.Invalid, "please check that preserved-fd %d (of %d) is present: %w", fd-3, n, err)
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3+n)
		if err != nil {
			return nil, fmt.Errorf("duplicate preserved descriptor %d: %w", fd, err)
		}
		x := os.NewFile(uintptr(dup), "preserved")
		*f = append(*f, x)
		out = append(out, x)
	}
	return out, nil
}

// terminal makes the pty and hands its master over.
func (f *closers) terminal(in *runtime.ContainerInput, spec *specs.Spec, opt *CreateOptions) error {
	var w, h uint
	if s := spec.Process.ConsoleSize; s != nil {
		w, h = s.Width, s.Height
	}
	master, slave, devpts, err := runtime.NewPTY(w, h)
	if err != nil {
		return err
	}
	*f = append(*f, slave, devpts)
	in.Stdio = runtime.Stdio{In: slave, Out: slave, Err: slave}
	in.DevPTS = devpts
	return opt.handOver(master)
}

// handOver gives the terminal's master away.
func (o *CreateOptions) handOver(master *os.File) error {
	if o.Console != nil {
		return o.Console(master)
	}
	defer func() { _ = master.Close() }() // the other side has its own
	return sendConsole(o.ConsoleSocket, master)
}

// pause makes the pipes for hooks that run before the roots are exchanged: the child's ends and ours.
func (f *closers) pause(h *specs.Hooks) (near, far *runtime.Pause, err error) {
	//lint:ignore SA1019 deprecated, still to be run
	if h == nil || len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) == 0 {
		return nil, nil, nil
	}
	tr, tw, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	wr, ww, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, tr.Close(), tw.Close())
	}
	*f = append(*f, tr, tw, wr, ww)
	return &runtime.Pause{Tell: tw, Wait: wr}, &runtime.Pause{Tell: tr, Wait: ww}, nil
}
