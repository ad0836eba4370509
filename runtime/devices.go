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

// defaultDevices are those that every container has (OCI runtime specification, "Default Devices").
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// devLinks are the symbolic links of /dev.
var devLinks = [][2]string{
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
	{"/proc/kcore", "/dev/core"},
	{"pts/ptmx", "/dev/ptmx"},
}

// ownDev says whether /dev is the container's own: with a bind mount there it is somebody else's.
func (c *compiler) ownDev() bool {
	return !slices.Contains(c.binds, "/dev")
}

func (c *compiler) devices() error {
	if !c.ownDev() {
		return nil
	}
	list := slices.Clone(defaultDevices)
	for _, d := range c.linux.Devices {
		if i := slices.IndexFunc(list, func(e specs.LinuxDevice) bool { return e.Path == d.Path }); i >= 0 {
			list[i] = d
		} else {
			list = append(list, d)
		}
	}
	for i := range list {
		if err := c.device(&list[i]); err != nil {
			return err
		}
	}
	for _, l := range devLinks {
		dir, name, done := c.place(l[1])
		if l[1] == "/dev/ptmx" && name != l[1] {
			c.Do("remove the old /dev/ptmx", unix.SYS_UNLINKAT, dir, c.Str(name), empty()).OK(unix.ENOENT, unix.EROFS)
		}
		c.Do("link "+l[1], unix.SYS_SYMLINKAT, c.Str(l[0]), dir, c.Str(name)).OK(unix.EEXIST, unix.EROFS)
		done()
	}
	c.console()
	return nil
}

var deviceTypes = map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

func (c *compiler) device(d *specs.LinuxDevice) error {
	kind, ok := deviceTypes[d.Type]
	if !ok {
		return errs.New(errs.Invalid, "device %s has the unknown type %q", d.Path, d.Type)
	}
	at := path.Clean("/" + d.Path)
	if at == "/dev/ptmx" { // a link into the container's own devpts
		return nil
	}
	if c.opt.BindDevices && kind != unix.S_IFIFO {
		s := c.slot("host's "+d.Path, func(o *opener) (*os.File, error) { return o.tree(d.Path, false) })
		c.attach(s, c.targetByHand(at, true), "device "+at)
		return nil
	}
	dir, name, done := c.place(at)
	defer done()
	mode := os.FileMode(0o666)
	if d.FileMode != nil {
		mode = d.FileMode.Perm()
	}
	if d.Major < 0 || d.Minor < 0 {
		return errs.New(errs.Invalid, "device %s has the numbers %d:%d", d.Path, d.Major, d.Minor)
	}
	dev := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	owned := d.UID != nil && *d.UID != 0 || d.GID != nil && *d.GID != 0
	op := c.Do(fmt.Sprintf("make the device %s %s %d:%d", at, d.Type, d.Major, d.Minor), unix.SYS_MKNODAT, dir, c.Str(name), launch.Int(kind|uint32(mode)), launch.Int(dev))
	if owned {
		op.Else(1, unix.EEXIST)
		c.Do("owner of "+at, unix.SYS_FCHOWNAT, dir, c.Str(name), launch.Int(id(d.UID)), launch.Int(id(d.GID)), launch.Int(unix.AT_SYMLINK_NOFOLLOW))
	} else {
		op.OK(unix.EEXIST)
	}
	return nil
}

// place is where a file is to be made: by its path in a folder that only we know so far, else by descriptor.
func (c *compiler) place(at string) (dir launch.Arg, name string, done func()) {
	if slices.Contains(c.tmpfs, path.Dir(at)) {
		return cwd(), at, func() {}
	}
	dir = c.folderByHand(path.Dir(at))
	return dir, path.Base(at), func() { c.Close(dir) }
}

func id(p *uint32) uint32 {
	if p == nil {
		return 0
	}
	return *p
}

// console makes the terminal's slave also /dev/console.
func (c *compiler) console() {
	if !c.proc.Terminal || !c.opt.Stdio[0] {
		return
	}
	t := c.targetByHand("/dev/console", true)
	if c.opt.DevPTS && slices.Contains(c.mounts, "/dev/pts") {
		// A bind of the path, since the terminal's own mount is in no namespace.
		_, s := c.Open("open the terminal", unix.SYS_OPEN_TREE, cwd(), c.Str("/dev/pts/0"), launch.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
		c.attach(s, t, "the terminal on /dev/console")
		return
	}
	s := c.slot("terminal", func(o *opener) (*os.File, error) { return o.treeOf(o.stdio[0]) })
	c.attach(s, t, "the terminal on /dev/console")
}

// prepareNull opens the host's /dev/null for masking, where the container's own can't be trusted: one mount for each masked path.
func (c *compiler) prepareNull() {
	if slices.ContainsFunc(c.spec.Mounts, func(m specs.Mount) bool { return m.Type == "tmpfs" && path.Clean(m.Destination) == "/dev" }) {
		return
	}
	for range c.linux.MaskedPaths {
		_, r := c.Open("open /dev/null to mask with", unix.SYS_OPEN_TREE, cwd(), c.Str("/dev/null"), launch.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
		c.nulls = append(c.nulls, r)
	}
}

// protect hides and protects paths and makes the root read-only.
func (c *compiler) protect() error {
	c.makeCwd()
	for i, p := range c.linux.MaskedPaths {
		if !path.IsAbs(p) {
			return errs.New(errs.Invalid, "masked path %q is not absolute", p)
		}
		c.mask(i, p)
	}
	for _, p := range c.linux.ReadonlyPaths {
		if !path.IsAbs(p) {
			return errs.New(errs.Invalid, "read-only path %q is not absolute", p)
		}
		c.readonly(p)
	}
	if c.spec.Root.Readonly {
		c.makeReadonly("/", 0)
	}
	if s := c.linux.RootfsPropagation; c.ownMounts() && (strings.HasSuffix(s, "shared") || strings.HasSuffix(s, "unbindable")) {
		c.Do("propagation of the root", unix.SYS_MOUNT, c.Str(""), c.Str("/"), empty(), launch.Int(spreadOptions[s]), empty())
	}
	return nil
}

// mask hides a file behind /dev/null, a folder behind an empty one. What is not there needs no hiding. Which of them it is must be
// known: a bind mount that fails costs a wait for the kernel's grace period (0.2 to 2 ms on the reference machine).
func (c *compiler) mask(i int, p string) {
	op, fd := c.Open("look at "+p, unix.SYS_OPENAT, cwd(), c.Str(p), launch.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), empty())
	op.Else(3, unix.ENOENT).Else(2, unix.ENOTDIR)
	c.Close(fd)
	c.Do("mask the folder "+p, unix.SYS_MOUNT, c.Str("tmpfs"), c.Str(p), c.Str("tmpfs"), launch.Int(unix.MS_RDONLY), c.Str("size=0k,nr_inodes=1")).Then(1)
	if len(c.nulls) > 0 {
		c.Do("mask the file "+p, unix.SYS_MOVE_MOUNT, c.nulls[i], c.Str(""), cwd(), c.Str(p), launch.Int(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)).OK(unix.ENOTDIR)
	} else {
		c.Do("mask the file "+p, unix.SYS_MOUNT, c.Str("/dev/null"), c.Str(p), empty(), launch.Int(unix.MS_BIND), empty()).OK(unix.ENOTDIR)
	}
}

func (c *compiler) readonly(p string) {
	c.Do("protect "+p, unix.SYS_MOUNT, c.Str(p), c.Str(p), empty(), launch.Int(unix.MS_BIND|unix.MS_REC), empty()).Else(1, unix.ENOENT, unix.ENOTDIR)
	c.makeReadonly(p, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)
}

// makeReadonly makes one mount read-only. keep are flags that it has, since an older kernel's remount drops what isn't named.
func (c *compiler) makeReadonly(p string, keep uintptr) {
	if c.opt.NoSetattr {
		c.Do("make read-only "+p, unix.SYS_MOUNT, c.Str(""), c.Str(p), empty(), launch.Int(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|keep), empty())
		return
	}
	c.Do("make read-only "+p, unix.SYS_MOUNT_SETATTR, cwd(), c.Str(p), empty(), c.Words(unix.MOUNT_ATTR_RDONLY, 0, 0, 0), launch.Int(32))
}

// makeCwd makes the working directory if it is missing.
func (c *compiler) makeCwd() {
	dir := path.Clean("/" + c.proc.Cwd)
	if dir == "/" {
		return
	}
	how, size := c.how(unix.O_PATH|unix.O_CLOEXEC, unix.RESOLVE_NO_MAGICLINKS)
	op, fd := c.Open("look for the working directory", unix.SYS_OPENAT2, cwd(), c.Str(dir), how, size)
	op.Else(1, unix.ENOENT)
	c.Close(fd)
	found := len(c.Ops) - 1
	c.Close(c.targetByHand(dir, false))
	c.Ops[found].Then(len(c.Ops) - 1 - found)
}
