package runtime

import (
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/launch"
)

// nsFlag are the flags of the namespace types, in the order in which they are joined: user first, since the others
// may need its rights, mnt last, since what comes before wants the host's /proc.
var nsFlag = []struct {
	kind specs.LinuxNamespaceType
	flag uint64
}{
	{specs.UserNamespace, unix.CLONE_NEWUSER},
	{specs.IPCNamespace, unix.CLONE_NEWIPC},
	{specs.UTSNamespace, unix.CLONE_NEWUTS},
	{specs.NetworkNamespace, unix.CLONE_NEWNET},
	{specs.PIDNamespace, unix.CLONE_NEWPID},
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP},
	{specs.TimeNamespace, unix.CLONE_NEWTIME},
	{specs.MountNamespace, unix.CLONE_NEWNS},
}

// namespaces are those of the specification: new ones, and paths of those to join.
type namespaces struct {
	fresh uint64
	join  map[specs.LinuxNamespaceType]string
}

// own says whether the container has its own namespace of this kind (a new one or a joined one).
func (n namespaces) own(kind specs.LinuxNamespaceType, flag uint64) bool {
	_, joined := n.join[kind]
	return joined || n.fresh&flag != 0
}

func readNamespaces(list []specs.LinuxNamespace) (namespaces, error) {
	n := namespaces{join: map[specs.LinuxNamespaceType]string{}}
	for _, s := range list {
		i := slices.IndexFunc(nsFlag, func(f struct {
			kind specs.LinuxNamespaceType
			flag uint64
		},
		) bool {
			return f.kind == s.Type
		})
		switch {
		case i < 0:
			return n, errs.New(errs.Invalid, "unknown namespace type %q", s.Type)
		case n.own(s.Type, nsFlag[i].flag):
			return n, errs.New(errs.Invalid, "namespace %s is there twice", s.Type)
		case s.Path != "":
			n.join[s.Type] = s.Path
		default:
			n.fresh |= nsFlag[i].flag
		}
	}
	return n, nil
}

// namespaces emits all that happens before the file system is touched: cgroups, joining, sysctls, names.
func (c *compiler) namespaces() error {
	n, err := readNamespaces(c.linux.Namespaces)
	if err != nil {
		return err
	}
	c.ns = n
	if err := c.userMaps(); err != nil {
		return err
	}
	c.cgroups()
	c.oomScore(c.proc.OOMScoreAdj)
	c.openLabel()
	c.joinAll()
	if err := c.timeOffsets(); err != nil {
		return err
	}
	if err := c.names(); err != nil {
		return err
	}
	if err := c.sysctls(); err != nil {
		return err
	}
	if p, ok := c.ns.join[specs.MountNamespace]; ok {
		c.join(specs.MountNamespace, p, unix.CLONE_NEWNS)
	}
	return nil
}

// cgroups puts the child into its cgroups. In v2 it is born; the v1 files are "tasks", not "cgroup.procs": a thread that
// moves itself alone needs no lock of the whole machine (150 µs on the reference machine).
func (c *compiler) cgroups() {
	if c.opt.CgroupV2 {
		c.Cgroup = int(c.slot("cgroup v2", func(o *opener) (*os.File, error) { return o.cgroupDir() }).Value)
	}
	for _, m := range c.opt.Cgroups {
		if m.V2 {
			continue
		}
		s := c.slot("cgroup "+m.Name, func(o *opener) (*os.File, error) { return o.open(m.Host+"/tasks", unix.O_WRONLY) })
		c.Do("enter cgroup "+m.Host, unix.SYS_WRITE, s, c.Str("0"), launch.Int(1))
	}
}

// fromBase says whether the mount namespace starts from the given base. Hooks want the host's mounts, and a user namespace
// has no right to join the base.
func (c *compiler) fromBase() bool {
	return c.opt.Base && !c.opt.BeforePivot && c.ns.fresh&unix.CLONE_NEWNS != 0 && !c.ns.own(specs.UserNamespace, unix.CLONE_NEWUSER)
}

// joinAll joins the namespaces given by path and makes the new ones. Nearly all are made by clone: the pid namespace to
// join must be the child's from birth, a new cgroup namespace must be made after the child is in its cgroups, and a time
// namespace can't be made by clone before its offsets are known.
func (c *compiler) joinAll() {
	fresh := c.ns.fresh
	if c.opt.NetNS {
		fresh &^= unix.CLONE_NEWNET
	}
	c.Clone = fresh &^ (unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME)
	if c.fromBase() {
		c.Clone &^= unix.CLONE_NEWNS
	}
	for _, f := range nsFlag {
		p, joined := c.ns.join[f.kind]
		switch {
		case f.kind == specs.NetworkNamespace && c.opt.NetNS:
			s := c.slot("network namespace", func(o *opener) (*os.File, error) { return o.netNS, nil })
			c.Do("join the network namespace", unix.SYS_SETNS, s, launch.Int(unix.CLONE_NEWNET))
		case !joined || f.kind == specs.MountNamespace:
		case f.kind == specs.PIDNamespace:
			c.JoinPID = int(c.slot("pid namespace "+p, func(o *opener) (*os.File, error) { return o.namespace(p, unix.CLONE_NEWPID) }).Value)
		default:
			c.join(f.kind, p, f.flag)
		}
	}
	if c.ns.own(specs.UserNamespace, unix.CLONE_NEWUSER) {
		c.Do("become root of the user namespace", unix.SYS_SETRESGID, empty(), empty(), empty())
		c.Do("become root of the user namespace", unix.SYS_SETRESUID, empty(), empty(), empty())
	}
	if fresh&unix.CLONE_NEWCGROUP != 0 {
		c.Do("new cgroup namespace", unix.SYS_UNSHARE, launch.Int(unix.CLONE_NEWCGROUP))
	}
}

func (c *compiler) join(kind specs.LinuxNamespaceType, p string, flag uint64) {
	s := c.slot(string(kind)+" namespace "+p, func(o *opener) (*os.File, error) { return o.namespace(p, flag) })
	c.Do(fmt.Sprintf("join the %s namespace %s", kind, p), unix.SYS_SETNS, s, launch.Int(flag))
}

func (c *compiler) userMaps() error {
	if c.ns.fresh&unix.CLONE_NEWUSER == 0 {
		if _, joined := c.ns.join[specs.UserNamespace]; !joined && len(c.linux.UIDMappings)+len(c.linux.GIDMappings) > 0 {
			return errs.New(errs.Invalid, "user mappings without a user namespace")
		}
		return nil
	}
	if len(c.linux.UIDMappings) == 0 || len(c.linux.GIDMappings) == 0 {
		return errs.New(errs.Invalid, "a new user namespace needs uid and gid mappings")
	}
	c.Setgroups = true
	c.UIDs, c.GIDs = idMaps(c.linux.UIDMappings), idMaps(c.linux.GIDMappings)
	return nil
}

func idMaps(list []specs.LinuxIDMapping) []launch.IDMap {
	out := make([]launch.IDMap, len(list))
	for i, m := range list {
		out[i] = launch.IDMap{Inside: m.ContainerID, Outside: m.HostID, Count: m.Size}
	}
	return out
}

// timeOffsets makes a time namespace with its clocks. Offsets can only be written before somebody is inside.
func (c *compiler) timeOffsets() error {
	if c.ns.fresh&unix.CLONE_NEWTIME == 0 {
		if len(c.linux.TimeOffsets) > 0 {
			return errs.New(errs.Invalid, "time offsets without a new time namespace")
		}
		return nil
	}
	if c.opt.NoTimeNS {
		return errs.New(errs.Invalid, "this kernel has no time namespaces")
	}
	c.Do("new time namespace", unix.SYS_UNSHARE, launch.Int(unix.CLONE_NEWTIME))
	var s strings.Builder
	for _, clock := range []string{"boottime", "monotonic"} {
		if o, ok := c.linux.TimeOffsets[clock]; ok {
			fmt.Fprintf(&s, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
	}
	if s.Len() > 0 {
		c.write("/proc/self/timens_offsets", s.String(), "set the clocks of the time namespace")
	}
	_, fd := c.Open("open the time namespace", unix.SYS_OPENAT, cwd(), c.Str("/proc/self/ns/time_for_children"), launch.Int(unix.O_RDONLY|unix.O_CLOEXEC), empty())
	c.Do("enter the time namespace", unix.SYS_SETNS, fd, launch.Int(unix.CLONE_NEWTIME))
	c.Close(fd)
	return nil
}

// write writes a file by path, in one call, as files of /proc want it.
func (c *compiler) write(file, text, name string, fine ...unix.Errno) {
	skip := 0
	if len(fine) > 0 {
		skip = 2
	}
	op, fd := c.Open(name, unix.SYS_OPENAT, cwd(), c.Str(file), launch.Int(unix.O_WRONLY|unix.O_CLOEXEC), empty())
	op.Else(skip, fine...)
	c.Do(name, unix.SYS_WRITE, fd, c.Bytes([]byte(text)), launch.Int(len(text))).OK(fine...)
	c.Close(fd)
}

// oomScore sets the OOM score adjustment. Lowering it needs CAP_SYS_RESOURCE; without it stays as it is.
func (c *compiler) oomScore(score *int) {
	if score != nil {
		c.write("/proc/self/oom_score_adj", fmt.Sprint(*score), fmt.Sprintf("set oom_score_adj to %d", *score), unix.EACCES, unix.EPERM)
	}
}

func (c *compiler) names() error {
	for _, n := range []struct {
		what, value string
		nr          uintptr
	}{{"host name", c.spec.Hostname, unix.SYS_SETHOSTNAME}, {"domain name", c.spec.Domainname, unix.SYS_SETDOMAINNAME}} {
		if n.value == "" {
			continue
		}
		if !c.ns.own(specs.UTSNamespace, unix.CLONE_NEWUTS) {
			return errs.New(errs.Invalid, "a %s needs a uts namespace", n.what)
		}
		c.Do("set the "+n.what+" "+n.value, n.nr, c.Str(n.value), launch.Int(len(n.value)))
	}
	return nil
}

// sysctls are written through the host's /proc, by a process that is in the container's namespaces already: the kernel looks
// at the namespaces of who opens the file. Only those that belong to a namespace of the container are let through.
func (c *compiler) sysctls() error {
	for _, key := range sortedKeys(c.linux.Sysctl) {
		if err := c.allowedSysctl(key); err != nil {
			return err
		}
		file := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		if strings.Contains(key, "/") { // the other notation, for names with dots in them
			file = "/proc/sys/" + strings.NewReplacer("/", ".", ".", "/").Replace(key)
		}
		c.write(file, c.linux.Sysctl[key], "set sysctl "+key)
	}
	return nil
}

// ipcSysctls belong to the ipc namespace (linux ipc/ipc_sysctl.c), beside fs.mqueue.*.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
	"kernel.shm_rmid_forced", "kernel.auto_msgmni", "kernel.msg_next_id", "kernel.sem_next_id", "kernel.shm_next_id",
}

func (c *compiler) allowedSysctl(key string) error {
	dotted := strings.ReplaceAll(key, "/", ".")
	ok := false
	switch {
	case strings.Contains(key, ".."):
	case slices.Contains(ipcSysctls, dotted) || strings.HasPrefix(dotted, "fs.mqueue."):
		ok = c.ns.own(specs.IPCNamespace, unix.CLONE_NEWIPC)
	case strings.HasPrefix(dotted, "net."):
		ok = c.opt.NetNS || c.ns.own(specs.NetworkNamespace, unix.CLONE_NEWNET)
	case dotted == "kernel.domainname" || dotted == "kernel.hostname":
		ok = c.ns.own(specs.UTSNamespace, unix.CLONE_NEWUTS)
	}
	if !ok {
		return errs.New(errs.Invalid, "sysctl %q is not in a separate kernel namespace", key)
	}
	return nil
}
