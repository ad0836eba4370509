package runtime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Container makes the launch of a container's first process: it looks at the root file system and the kernel, compiles
// the specification and opens what the program needs. The caller closes the Assembly. in's files stay the caller's.
//
// If the process's environment has no HOME it is set from the container's own /etc/passwd, as runc does. The
// specification itself is not changed.
func Container(in ContainerInput) (*Assembly, error) {
	spec := *in.Spec
	o := &opener{
		spec: &spec, root: in.Root, netNS: in.NetNS, base: in.Base, cgroup: in.Cgroup, devPTS: in.DevPTS, preserved: in.Preserved,
		stdio: [3]*os.File{in.Stdio.In, in.Stdio.Out, in.Stdio.Err}, beforePivot: in.BeforePivot, gate: in.Gate,
	}
	opt := hostOptions(&spec)
	opt.Keep, opt.Filters = len(in.Preserved), in.Filters
	opt.NetNS, opt.Base, opt.DevPTS = in.NetNS != nil, in.Base != nil, in.DevPTS != nil
	opt.KeepOrder = in.KeepOrder
	opt.BeforePivot, opt.Gate, opt.NoKeyring = in.BeforePivot != nil, in.Gate != nil, in.NoKeyring
	opt.Stdio, opt.Null = streamOptions(o.stdio)
	a, err := assemble(o, &opt)
	if err != nil {
		o.close()
		return nil, err
	}
	return a, nil
}

func assemble(o *opener, opt *CompileOptions) (*Assembly, error) {
	var err error
	if opt.Files, err = o.openBinds(); err != nil {
		return nil, err
	}
	if o.spec.Root != nil && o.spec.Process != nil {
		root, err := o.rootMount()
		if err != nil {
			return nil, err
		}
		if opt.Targets, err = lookUpTargets(root, o.spec.Mounts); err != nil {
			return nil, err
		}
		o.spec.Process = withHome(o.spec.Process, int(root.Fd()))
	}
	if err := o.lookAtCgroup(opt); err != nil {
		return nil, err
	}
	c, err := compile(o.spec, *opt)
	if err != nil {
		return nil, err
	}
	return c.assembly(o)
}

// assembly finishes a program and opens its slots.
func (c *compiler) assembly(o *opener) (*Assembly, error) {
	p, err := c.Finish()
	if err != nil {
		return nil, err
	}
	files, err := o.fill(c.wants, p.Slots)
	if err != nil {
		return nil, err
	}
	return &Assembly{Program: p, Files: files, owned: o.owned}, nil
}

// Close closes the files that were opened for the program, not those that were handed in. A started process has its own copies.
func (a *Assembly) Close() {
	for _, f := range a.owned {
		_ = f.Close() // nothing was written through it
	}
	a.owned = nil
}

// lookAtCgroup takes over where the container's cgroup has folders.
func (o *opener) lookAtCgroup(opt *CompileOptions) error {
	if o.cgroup == nil {
		return nil
	}
	opt.Cgroups = o.cgroup.Paths()
	opt.CgroupV2 = slices.ContainsFunc(opt.Cgroups, isV2)
	return nil
}

// hostOptions is what the machine and our own rights add to a specification.
func hostOptions(spec *specs.Spec) CompileOptions {
	opt := CompileOptions{AppArmor: exists("/sys/kernel/security/apparmor/profiles"), SELinux: exists("/sys/fs/selinux/enforce")}
	opt.NoTimeNS = !exists("/proc/self/ns/time")
	opt.NoSetattr = errors.Is(unix.MountSetattr(-1, "", 0, &unix.MountAttr{}), unix.ENOSYS)
	own := ownCaps()
	userNS := spec.Linux != nil && slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	opt.BindDevices = userNS || own&(1<<unix.CAP_MKNOD) == 0
	if !userNS { // in a new user namespace a process has all
		opt.Caps = own
	}
	return opt
}

func exists(name string) bool { return unix.Access(name, unix.F_OK) == nil }

// ownCaps are our own permitted capabilities, a bit each.
func ownCaps() uint64 {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return 0 // then all are tried
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
}

// streamOptions says which streams are there and which of them are /dev/null.
func streamOptions(files [3]*os.File) (given, null [3]bool) {
	for i, f := range files {
		if f == nil {
			continue
		}
		given[i] = true
		var st unix.Stat_t
		null[i] = unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
	}
	return given, null
}

// lookUpTargets finds where the mount destinations are in the root file system. A destination below another one is not
// looked up: what is there is known only when that is mounted.
func lookUpTargets(root *os.File, mounts []specs.Mount) (map[string]Target, error) {
	out := make(map[string]Target, len(mounts))
	var above []string
	for i := range mounts {
		dest := path.Clean("/" + mounts[i].Destination)
		if !slices.ContainsFunc(above, func(a string) bool { return under(dest, a) }) {
			t, err := lookUp(int(root.Fd()), dest)
			if err != nil {
				return nil, fmt.Errorf("mount %s: look at the root file system: %w", dest, err)
			}
			out[dest] = t
		}
		above = append(above, dest)
	}
	return out, nil
}

// withHome adds HOME if the environment lacks it. root is an open folder.
func withHome(p *specs.Process, root int) *specs.Process {
	if slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		return p
	}
	q := *p
	q.Env = append(slices.Clone(p.Env), "HOME="+homeOf(root, p.User.UID))
	return &q
}
