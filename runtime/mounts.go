package runtime

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/launch"
)

// The order of things is what makes mounting safe: the container's root becomes the process's root first, and only then
// are paths of the image looked up. A symlink of the image leads nowhere else then, and needs no checks. What the container
// sees of the host are detached mounts that were opened beforehand.
//
// Two ways remain through which a path could leave the root: magic links (/proc/self/fd/N) to descriptors of ours, and
// content that another container may change while we look. So below bind mounts each step is taken with
// openat2(RESOLVE_NO_MAGICLINKS) and by descriptor.

// rootFS makes the container's root the process's.
func (c *compiler) rootFS() error {
	c.root = c.slot("root file system", func(o *opener) (*os.File, error) { return o.rootMount() })
	c.prepareNull()
	if c.fromBase() {
		s := c.slot("empty mount namespace", func(o *opener) (*os.File, error) { return o.base, nil })
		c.Do("enter the empty mount namespace", unix.SYS_SETNS, s, launch.Int(unix.CLONE_NEWNS))
		c.Do("make a copy of it", unix.SYS_UNSHARE, launch.Int(unix.CLONE_NEWNS))
	}
	spread, ok := spreadOptions[c.linux.RootfsPropagation]
	if c.linux.RootfsPropagation == "" {
		spread = unix.MS_SLAVE | unix.MS_REC
	} else if !ok {
		return errs.New(errs.Invalid, "unknown rootfsPropagation %q", c.linux.RootfsPropagation)
	}
	if c.ownMounts() && !c.fromBase() {
		c.Do("keep mounts from the host", unix.SYS_MOUNT, c.Str(""), c.Str("/"), empty(), launch.Int(unix.MS_REC|unix.MS_PRIVATE), empty())
	}
	if !c.ownMounts() {
		spread = unix.MS_PRIVATE | unix.MS_REC // what is mounted inside must appear nowhere else on the host
	}
	if spread&(unix.MS_SLAVE|unix.MS_PRIVATE) != 0 {
		c.spread(c.root, spread, "the root file system")
	}
	at := "/"
	if c.opt.BeforePivot || !c.ownMounts() {
		if at = c.spec.Root.Path; !path.IsAbs(at) {
			return errs.New(errs.Invalid, "a container with hooks or without a mount namespace needs a root file system with a path, not %q", at)
		}
	}
	if c.latePivot() {
		_, c.old = c.Open("keep the host's root", unix.SYS_OPENAT, cwd(), c.Str("/"), launch.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), empty())
	}
	c.Do("attach the root file system at "+at, unix.SYS_MOVE_MOUNT, c.root, c.Str(""), cwd(), c.Str(at), launch.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	c.Do("enter the root file system", unix.SYS_FCHDIR, c.root)
	switch {
	case !c.ownMounts(): // everything stays below the root's path, where whoever removes the container detaches it
		c.Do("make it the root", unix.SYS_CHROOT, c.Str("."))
	case c.fromBase(): // it lies on an empty folder now: there is nothing to exchange and to detach
		c.Do("make it the root", unix.SYS_CHROOT, c.Str("."))
	case c.latePivot():
		c.Do("make it the root for now", unix.SYS_CHROOT, c.Str("."))
	default:
		c.pivot()
	}
	return nil
}

// ownMounts says whether the container has a mount namespace of its own.
func (c *compiler) ownMounts() bool { return c.ns.own(specs.MountNamespace, unix.CLONE_NEWNS) }

// latePivot says whether the old root must stay until the mounts are made. Hooks want to find the root file system where it is
// on the host, with all mounts. In a user namespace the kernel lets proc and sysfs be mounted only as long as the
// namespace has a full one to see.
func (c *compiler) latePivot() bool {
	return c.ownMounts() && (c.opt.BeforePivot || c.ns.own(specs.UserNamespace, unix.CLONE_NEWUSER))
}

// pivot exchanges the roots, from inside the new one. The old one is stacked on it and then detached, so no folder is needed for it.
func (c *compiler) pivot() {
	c.Do("exchange the roots", unix.SYS_PIVOT_ROOT, c.Str("."), c.Str("."))
	c.Do("detach the host's root", unix.SYS_UMOUNT2, c.Str("."), launch.Int(unix.MNT_DETACH))
	c.Do("go to the root", unix.SYS_CHDIR, c.Str("/"))
}

// pausePivot lets hooks run, and does what rootFS has put off.
func (c *compiler) pausePivot() error {
	if !c.ownMounts() {
		if c.opt.BeforePivot {
			c.pause("hooks before the root is exchanged", func(o *opener) *Pause { return o.beforePivot })
		}
		return nil
	}
	if !c.latePivot() {
		return nil
	}
	c.Do("go back to the host's root", unix.SYS_FCHDIR, c.old)
	c.Do("make it the root again", unix.SYS_CHROOT, c.Str("."))
	if c.opt.BeforePivot {
		c.pause("hooks before the root is exchanged", func(o *opener) *Pause { return o.beforePivot })
	}
	c.Do("enter the root file system", unix.SYS_FCHDIR, c.root)
	c.pivot()
	c.Close(c.old)
	return nil
}

// spread sets the propagation of a detached mount, one type after the other. A kernel without mount_setattr(2) can't: there the mount
// keeps what it has.
func (c *compiler) spread(m launch.Arg, flags uintptr, what string) {
	if c.opt.NoSetattr {
		return
	}
	at := uintptr(unix.AT_EMPTY_PATH)
	if flags&unix.MS_REC != 0 {
		at |= unix.AT_RECURSIVE
	}
	c.Do("propagation of "+what, unix.SYS_MOUNT_SETATTR, m, c.Str(""), launch.Int(at), c.Words(0, 0, uint64(flags&^unix.MS_REC), 0), launch.Int(32))
}

// setattr sets and clears MOUNT_ATTR_* of a detached mount, if there is something to change.
func (c *compiler) setattr(m launch.Arg, at uintptr, set, clr uint64, what string) {
	if set|clr != 0 {
		c.Do(what, unix.SYS_MOUNT_SETATTR, m, c.Str(""), launch.Int(unix.AT_EMPTY_PATH|at), c.Words(set, clr, 0, 0), launch.Int(32))
	}
}

func (c *compiler) mountAll() error {
	for i := range c.spec.Mounts {
		m := c.spec.Mounts[i]
		if err := c.mountOne(i, &m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Destination, err)
		}
	}
	return nil
}

func (c *compiler) mountOne(i int, m *specs.Mount) error {
	o, err := parseOptions(m)
	if err != nil {
		return err
	}
	dest := path.Clean("/" + m.Destination)
	if dest == "/" && m.Type != "bind" && !o.bind {
		return errs.New(errs.Invalid, "a file system can't be mounted on the root")
	}
	if t, ok := c.opt.Targets[dest]; ok && t.Path != dest && (m.Type == "proc" || m.Type == "sysfs") {
		return errs.New(errs.Invalid, "%q must be mounted on ordinary directory, but the image has a symlink to %s there", m.Type, t.Path)
	}
	if err := c.refuseProc(dest, m, &o); err != nil {
		return err
	}
	switch {
	case m.Type == "cgroup" || m.Type == "cgroup2":
		err = c.mountCgroups(dest, m, &o)
	case m.Type == "devpts" && c.opt.DevPTS:
		t := c.target(dest, false)
		s := c.slot("devpts", func(o *opener) (*os.File, error) { return o.devPTS, nil })
		c.attach(s, t, "devpts on "+dest)
		c.own(dest, false)
	case o.bind:
		err = c.bind(i, dest, m, &o)
	default:
		c.mountFS(dest, m, &o)
	}
	return err
}

// procTargets are the files below /proc that may be covered, as Docker and its tools do (lxcfs).
var procTargets = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg",
	"/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// refuseProc keeps a faked /proc away: with it a container could pretend to be confined.
func (c *compiler) refuseProc(dest string, m *specs.Mount, o *mountOptions) error {
	at := dest
	if t, ok := c.opt.Targets[dest]; ok {
		at = t.Path
	}
	switch {
	case !under(at, "/proc") || slices.Contains(procTargets, at):
		return nil
	case at == "/proc" && (m.Type == "proc" || o.bind && strings.TrimSuffix(m.Source, "/") == "/proc"):
		return nil
	}
	return errs.New(errs.Invalid, "%q cannot be mounted because it is inside /proc", dest)
}

// mountFS mounts a new file system.
func (c *compiler) mountFS(dest string, m *specs.Mount, o *mountOptions) {
	t := c.target(dest, false)
	data := o.text()
	if c.linux.MountLabel != "" && c.opt.SELinux && m.Type != "proc" && m.Type != "sysfs" && m.Type != "mqueue" {
		data = strings.TrimPrefix(fmt.Sprintf("%s,context=%q", data, c.linux.MountLabel), ",")
	}
	where := c.Str(dest)
	if t.Kind == launch.Reg {
		c.Do("go to "+dest, unix.SYS_FCHDIR, t)
		where = c.Str(".")
	} else if t.Kind == launch.Str {
		where = t
	}
	flags := o.flags
	c.Do(fmt.Sprintf("mount %s on %s", m.Type, dest), unix.SYS_MOUNT, c.Str(m.Source), where, c.Str(m.Type), launch.Int(flags), c.dataArg(data))
	c.afterMount(dest, o, m.Type)
	if t.Kind == launch.Reg {
		c.Close(t)
		c.Do("go to the root", unix.SYS_CHDIR, c.Str("/"))
	}
	c.own(dest, m.Type == "tmpfs")
}

func (c *compiler) dataArg(s string) launch.Arg {
	if s == "" {
		return empty()
	}
	return c.Str(s)
}

// afterMount sets what mount(2) of a new file system can't: recursive attributes and propagation.
func (c *compiler) afterMount(dest string, o *mountOptions, kind string) {
	if o.attrSet|o.attrClr != 0 {
		c.Do("recursive attributes of "+dest, unix.SYS_MOUNT_SETATTR, cwd(), c.Str(dest), launch.Int(unix.AT_RECURSIVE), c.Words(o.attrSet, o.attrClr, 0, 0), launch.Int(32))
	}
	for _, s := range o.spread {
		c.Do("propagation of "+kind+" on "+dest, unix.SYS_MOUNT, c.Str(""), c.Str(dest), empty(), launch.Int(s), empty())
	}
}

// bind attaches a part of the host that was opened as a detached mount.
func (c *compiler) bind(i int, dest string, m *specs.Mount, o *mountOptions) error {
	if m.Source == "" {
		return errs.New(errs.Invalid, "a bind mount needs a source")
	}
	s := c.slot(m.Source, func(op *opener) (*os.File, error) { return op.bind(i) })
	if set, clr := o.attrs(); !c.opt.NoSetattr {
		c.setattr(s, 0, set, clr, "attributes of "+dest)
	}
	c.setattr(s, unix.AT_RECURSIVE, o.attrSet, o.attrClr, "recursive attributes of "+dest)
	t := c.target(dest, c.opt.Files[m.Source])
	c.attach(s, t, m.Source+" on "+dest)
	if c.opt.NoSetattr && o.given && o.flags&bindFlags != 0 {
		c.Do("attributes of "+dest, unix.SYS_MOUNT, c.Str(""), c.Str(dest), empty(), launch.Int(unix.MS_REMOUNT|unix.MS_BIND|o.flags&bindFlags), empty())
	}
	if c.opt.KeepOrder && t.Kind == launch.Str {
		// A copy made now is younger than the mounts before it.
		_, again := c.Open("copy the mount on "+dest, unix.SYS_OPEN_TREE, cwd(), t, launch.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
		c.Do("detach the old one", unix.SYS_UMOUNT2, t, launch.Int(unix.MNT_DETACH))
		c.attach(again, t, "the copy on "+dest)
		s = again
	}
	spread := o.spread
	if len(spread) == 0 {
		spread = []uintptr{unix.MS_PRIVATE | unix.MS_REC}
	}
	for _, f := range spread {
		c.spread(s, f, dest)
	}
	c.own(dest, false)
	c.binds = append(c.binds, dest)
	return nil
}

// attach moves a detached mount to a target, which is closed.
func (c *compiler) attach(s, t launch.Arg, what string) {
	if t.Kind == launch.Reg {
		c.Do("mount "+what, unix.SYS_MOVE_MOUNT, s, c.Str(""), t, c.Str(""), launch.Int(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
		c.Close(t)
		return
	}
	c.Do("mount "+what, unix.SYS_MOVE_MOUNT, s, c.Str(""), cwd(), t, launch.Int(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS))
}

// own remembers a mount. What is below an older one is hidden now.
func (c *compiler) own(dest string, tmpfs bool) {
	hidden := func(p string) bool { return under(p, dest) }
	c.binds = slices.DeleteFunc(c.binds, hidden)
	c.tmpfs = slices.DeleteFunc(c.tmpfs, hidden)
	for p := range c.made {
		if hidden(p) && p != dest {
			delete(c.made, p)
		}
	}
	c.mounts = append(c.mounts, dest)
	if tmpfs {
		c.tmpfs = append(c.tmpfs, dest)
	}
}

// target makes sure that a mount has something to be mounted on. It gives a path, or a descriptor where paths can't be trusted.
func (c *compiler) target(dest string, file bool) launch.Arg {
	if slices.ContainsFunc(c.binds, func(b string) bool { return b != dest && under(dest, b) }) {
		return c.targetByHand(dest, file)
	}
	at := dest
	if t, ok := c.opt.Targets[dest]; ok {
		if at = t.Path; t.Exists {
			return c.Str(at)
		}
	}
	c.mkdirs(path.Dir(at))
	c.makeTarget(cwd(), at, file)
	return c.Str(at)
}

// mkdirs makes a folder and those above it, if they are not there or known to be.
func (c *compiler) mkdirs(dir string) {
	if dir == "/" || c.made[dir] || slices.Contains(c.mounts, dir) {
		return
	}
	c.mkdirs(path.Dir(dir))
	c.makeTarget(cwd(), dir, false)
}

func (c *compiler) makeTarget(at launch.Arg, name string, file bool) {
	if c.made[name] || slices.Contains(c.mounts, name) {
		return
	}
	if file {
		c.Do("make the file "+name, unix.SYS_MKNODAT, at, c.Str(name), launch.Int(unix.S_IFREG|0o755), empty()).OK(unix.EEXIST, unix.EROFS)
	} else {
		c.Do("make the folder "+name, unix.SYS_MKDIRAT, at, c.Str(name), launch.Int(0o755)).OK(unix.EEXIST, unix.EROFS)
	}
	c.made[name] = true
}

// targetByHand goes to a target step by step, following no magic link, and gives a descriptor of it.
func (c *compiler) targetByHand(dest string, file bool) launch.Arg {
	above, name := path.Split(dest)
	fd := c.folderByHand(path.Clean(above))
	if file {
		c.Do("make the file "+dest, unix.SYS_MKNODAT, fd, c.Str(name), launch.Int(unix.S_IFREG|0o755), empty()).OK(unix.EEXIST, unix.EROFS)
	} else {
		c.Do("make the folder "+dest, unix.SYS_MKDIRAT, fd, c.Str(name), launch.Int(0o755)).OK(unix.EEXIST, unix.EROFS)
	}
	c.Close(fd)
	return c.openByHand(dest)
}

// folderByHand is targetByHand for a folder and those above it.
func (c *compiler) folderByHand(dir string) launch.Arg {
	at := c.openByHand("/")
	done := ""
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if name == "" {
			break
		}
		done += "/" + name
		c.Do("make the folder "+done, unix.SYS_MKDIRAT, at, c.Str(name), launch.Int(0o755)).OK(unix.EEXIST, unix.EROFS)
		c.Close(at)
		at = c.openByHand(done)
	}
	return at
}

func (c *compiler) openByHand(name string) launch.Arg {
	how, size := c.how(unix.O_PATH|unix.O_CLOEXEC, unix.RESOLVE_NO_MAGICLINKS)
	_, fd := c.Open("open "+name, unix.SYS_OPENAT2, cwd(), c.Str(name), how, size)
	return fd
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
