package runtime

import (
	"os"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
	"skiff/runtime/launch"
	"skiff/runtime/seccomp"
)

// CompileOptions are what a program depends on besides the specification. The zero value makes a program without cgroups
// whose streams are /dev/null.
type CompileOptions struct {
	NetNS    bool           // a network namespace is handed over; it overrides the specification's
	CgroupV2 bool           // there is a cgroup v2 folder to be born in
	Cgroups  []cgroup.Mount // the container's cgroup folders: v1 ones are entered by the child, all make its own view
	Stdio    [3]bool        // which streams are given
	Null     [3]bool        // which given streams are /dev/null: their owner is not changed
	Base     bool           // a mount namespace to start from is given (see NewBase)
	DevPTS   bool           // a detached devpts with the terminal's slave is given
	Keep     int            // descriptors 3 to 3+Keep-1 are handed on to the process

	// Targets are mount destinations below no other mount that were looked up in the root file system.
	Targets map[string]Target
	// Files are the sources of bind mounts that are no folders.
	Files map[string]bool

	// BindDevices makes device files bind mounts of the host's (in a user namespace mknod is forbidden).
	BindDevices bool
	Caps        uint64 // capabilities that we have ourselves, a bit each; 0: all
	AppArmor    bool   // the kernel has AppArmor
	SELinux     bool   // the kernel has SELinux
	NoTimeNS    bool   // the kernel has no time namespaces
	NoSetattr   bool   // the kernel has no mount_setattr(2), which is of Linux 5.12

	// KeepOrder makes bind mounts appear in /proc/self/mountinfo in the specification's order. (Newer kernels sort by age,
	// and their sources were opened beforehand.)
	KeepOrder bool

	Filters *seccomp.Cache // remembers assembled filters, may be nil

	// BeforePivot is a pause when the namespaces and mounts are made, but the old root is still there (hooks).
	BeforePivot bool
	// NoKeyring leaves the process in our session keyring.
	NoKeyring bool
	// Gate makes the child wait for a byte before execve; later errors are written to another file.
	Gate bool
}

// Target is a mount destination in the root file system as it is.
type Target struct {
	Path   string // without symlinks
	Exists bool
}

// Compile turns a specification into a launch program, purely: the same input gives the same program, and nothing of the
// host is looked at. The program's Slots say which files it wants; Container opens them. Errors are Invalid (the
// specification contradicts itself) or NotImplemented.
func Compile(spec *specs.Spec, opt CompileOptions) (*launch.Program, error) {
	c, err := compile(spec, opt)
	if err != nil {
		return nil, err
	}
	return c.Finish()
}

// compiler holds a program while it is made.
type compiler struct {
	*launch.Builder
	spec   *specs.Spec
	linux  *specs.Linux // never nil
	proc   *specs.Process
	opt    CompileOptions
	wants  []want // how each slot is opened
	ns     namespaces
	stdio  [3]launch.Arg
	mounts []string // destinations so far, in order
	binds  []string // those of them whose content somebody else may be changing
	tmpfs  []string // those of them that are new and empty
	made   map[string]bool
	label  launch.Arg // open file for the security label
	root   launch.Arg
	old    launch.Arg // the host's root, while hooks need it
	nulls  []launch.Arg
}

// want opens the file of a slot.
type want func(*opener) (*os.File, error)

// slot adds a slot with the way to open it.
func (c *compiler) slot(name string, w want) launch.Arg {
	c.wants = append(c.wants, w)
	return c.Slot(name)
}

func compile(spec *specs.Spec, opt CompileOptions) (*compiler, error) {
	if spec.Process == nil || spec.Root == nil {
		return nil, errs.New(errs.Invalid, "the specification has no process or no root")
	}
	c := &compiler{Builder: launch.NewBuilder(), spec: spec, linux: spec.Linux, proc: spec.Process, opt: opt, made: map[string]bool{}}
	if c.linux == nil {
		c.linux = &specs.Linux{}
	}
	if err := c.refuse(); err != nil {
		return nil, err
	}
	c.Keep += opt.Keep
	c.streams()
	for _, step := range []func() error{
		c.namespaces, c.rootFS, c.mountAll, c.devices, c.pausePivot, c.protect, c.process,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// refuse names what this runtime can't do.
func (c *compiler) refuse() error {
	switch {
	case c.linux.IntelRdt != nil:
		return errs.New(errs.NotImplemented, "linux.intelRdt is not supported")
	case len(c.linux.NetDevices) > 0:
		return errs.New(errs.NotImplemented, "linux.netDevices is not supported")
	case c.linux.MemoryPolicy != nil:
		return errs.New(errs.NotImplemented, "linux.memoryPolicy is not supported")
	case c.proc.ExecCPUAffinity != nil:
		return errs.New(errs.NotImplemented, "process.execCPUAffinity is not supported")
	case c.proc.SelinuxLabel != "" && !c.opt.SELinux:
		return errs.New(errs.Invalid, "selinux label %q: this kernel has no SELinux", c.proc.SelinuxLabel)
	case c.proc.Cwd != "" && !path.IsAbs(c.proc.Cwd):
		return errs.New(errs.Invalid, "working directory %q is not absolute", c.proc.Cwd)
	}
	return nil
}

// streams puts the process's own descriptors in place, before anything else can take their numbers.
func (c *compiler) streams() {
	names := [3]string{"standard input", "standard output", "standard error"}
	var null *launch.Arg
	for i := range names {
		var s launch.Arg
		switch {
		case c.opt.Stdio[i]:
			s = c.slot(names[i], func(o *opener) (*os.File, error) { return o.stdio[i], nil })
		case null != nil:
			s = *null
		default:
			s = c.slot("/dev/null", func(o *opener) (*os.File, error) { return o.open("/dev/null", unix.O_RDWR) })
			null = &s
		}
		c.stdio[i] = s
		c.Do(names[i], unix.SYS_DUP3, s, launch.Int(i), launch.Int(0))
	}
	for i := range c.opt.Keep {
		s := c.slot("preserved descriptor", func(o *opener) (*os.File, error) { return o.preserved[i], nil })
		c.Do("preserved descriptor", unix.SYS_DUP3, s, launch.Int(3+i), launch.Int(0))
	}
}

// cwd is the argument for the current directory.
func cwd() launch.Arg { return launch.Int(unix.AT_FDCWD) }

// empty is the argument for no pointer, flag or number.
func empty() launch.Arg { return launch.Int(0) }

// how is struct open_how of openat2(2).
func (c *compiler) how(flags, resolve uint64) (ptr, size launch.Arg) {
	return c.Words(flags, 0, resolve), launch.Int(24)
}

// under says whether p is dir or below it. Both are clean.
func under(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}
