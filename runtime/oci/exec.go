package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
	"skiff/runtime"
	"skiff/runtime/launch"
)

// ExecOptions are the flags of exec.
type ExecOptions struct {
	ProcessFile   string // JSON of the whole process; the other fields are for a process like the container's first
	Args          []string
	Env           []string
	Cwd           string
	User          string // UID[:GID]
	Groups        []uint
	Caps          []string
	Terminal      bool
	NoNewPrivs    bool
	AppArmor      string
	ProcessLabel  string
	Stdio         runtime.Stdio
	ConsoleSocket string
	Console       func(master *os.File) error
	PIDFile       string
	Preserve      int
}

// Exec starts a further process in a running (or created) container. The caller waits for it.
func (r *Runtime) Exec(id string, opt ExecOptions) (*launch.Process, error) {
	c, err := r.Load(id)
	if err != nil {
		return nil, err
	}
	if c.Status() == specs.StateStopped {
		return nil, errs.New(errs.Conflict, "cannot exec in a stopped container")
	}
	proc, err := c.process(&opt)
	if err != nil {
		return nil, err
	}
	fd, err := c.pidfd()
	if err != nil {
		return nil, err
	}
	var files closers
	defer files.close()
	files = append(files, fd)
	in := runtime.ExecInput{Process: proc, Seccomp: c.Spec.Linux.Seccomp, PID: c.PID, PIDFD: fd, Stdio: opt.Stdio}
	if in.Cgroup, err = c.cgroup(); err != nil {
		return nil, err
	}
	if in.Preserved, err = files.preserved(opt.Preserve); err != nil {
		return nil, err
	}
	if proc.Terminal {
		if in.Stdio, err = files.execTerminal(c, &opt, proc.ConsoleSize); err != nil {
			return nil, err
		}
	}
	a, err := runtime.Exec(in)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	p, err := a.Program.Start(a.Files, launch.Options{Memory: &r.memory})
	if err != nil {
		return nil, err
	}
	return p, writePID(opt.PIDFile, p.PID)
}

// execTerminal makes a pty in the container's own devpts, so that the process finds its terminal by name there; in one of its own if
// the container has none.
func (f *closers) execTerminal(c *Container, opt *ExecOptions, size *specs.Box) (runtime.Stdio, error) {
	if opt.ConsoleSocket == "" && opt.Console == nil {
		return runtime.Stdio{}, errs.New(errs.Invalid, "cannot allocate tty if runc will detach without setting console socket")
	}
	var w, h uint
	if size != nil {
		w, h = size.Width, size.Height
	}
	master, slave, err := runtime.PTYIn(c.PID, w, h)
	if err != nil {
		var devpts *os.File
		if master, slave, devpts, err = runtime.NewPTY(w, h); err != nil {
			return runtime.Stdio{}, err
		}
		*f = append(*f, devpts)
	}
	*f = append(*f, slave)
	o := CreateOptions{ConsoleSocket: opt.ConsoleSocket, Console: opt.Console}
	return runtime.Stdio{In: slave, Out: slave, Err: slave}, o.handOver(master)
}

// process is what is to be executed.
func (c *Container) process(o *ExecOptions) (*specs.Process, error) {
	if o.ProcessFile != "" {
		b, err := os.ReadFile(o.ProcessFile)
		if err != nil {
			return nil, fmt.Errorf("read the process: %w", err)
		}
		p := &specs.Process{}
		if err := json.Unmarshal(b, p); err != nil {
			return nil, errs.New(errs.Invalid, "process file %s: %w", o.ProcessFile, err)
		}
		return p, nil
	}
	if c.Spec.Process == nil {
		return nil, errs.New(errs.Invalid, "the container's specification has no process")
	}
	p := *c.Spec.Process
	p.Args, p.Terminal = o.Args, o.Terminal
	p.Env = append(slices.Clone(p.Env), o.Env...)
	if o.Cwd != "" {
		p.Cwd = o.Cwd
	}
	if o.NoNewPrivs {
		p.NoNewPrivileges = true
	}
	if o.AppArmor != "" {
		p.ApparmorProfile = o.AppArmor
	}
	if o.ProcessLabel != "" {
		p.SelinuxLabel = o.ProcessLabel
	}
	if err := o.user(&p); err != nil {
		return nil, err
	}
	o.caps(&p)
	return &p, nil
}

func (o *ExecOptions) user(p *specs.Process) error {
	if o.User != "" {
		uid, gid, both := strings.Cut(o.User, ":")
		n, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return errs.New(errs.Invalid, "parsing %s as int for uid failed: %w", uid, err)
		}
		p.User.UID = uint32(n)
		if both {
			if n, err = strconv.ParseUint(gid, 10, 32); err != nil {
				return errs.New(errs.Invalid, "parsing %s as int for gid failed: %w", gid, err)
			}
			p.User.GID = uint32(n)
		}
	}
	for _, g := range o.Groups {
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
	}
	return nil
}

// caps adds capabilities to all sets but the ambient one (as runc since 1.1 has it: ambient only if inheritable already is).
func (o *ExecOptions) caps(p *specs.Process) {
	if len(o.Caps) == 0 {
		return
	}
	sets := specs.LinuxCapabilities{}
	if p.Capabilities != nil {
		sets = *p.Capabilities
	}
	for _, s := range []*[]string{&sets.Bounding, &sets.Effective, &sets.Permitted} {
		*s = append(slices.Clone(*s), o.Caps...)
	}
	p.Capabilities = &sets
}
