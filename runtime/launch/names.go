package launch

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// signature is a system call that programs may make: its name and how its arguments are shown, a letter each:
// d decimal, f descriptor, x hexadecimal, o octal, n namespaces, and the tables of flags m (mount), v (move_mount),
// t (open_tree), p (open), a (AT_*), u (umount), A (struct mount_attr).
type signature struct{ name, args string }

// calls is the closed list of the system calls that programs may make.
var calls = map[uint32]signature{
	unix.SYS_BIND: {"bind", "fxd"}, unix.SYS_CAPSET: {"capset", "xx"}, unix.SYS_CHDIR: {"chdir", "x"},
	unix.SYS_CHROOT: {"chroot", "x"}, unix.SYS_CLOSE: {"close", "f"}, unix.SYS_CLOSE_RANGE: {"close_range", "ddx"},
	unix.SYS_DUP3: {"dup3", "ffp"}, unix.SYS_FCHDIR: {"fchdir", "f"}, unix.SYS_FCHMODAT: {"fchmodat", "fxo"},
	unix.SYS_FCHOWN: {"fchown", "fdd"}, unix.SYS_FCHOWNAT: {"fchownat", "fxdda"},
	unix.SYS_FSCONFIG: {"fsconfig", "fdxxd"}, unix.SYS_FSMOUNT: {"fsmount", "fxx"}, unix.SYS_FSOPEN: {"fsopen", "xx"},
	unix.SYS_IOCTL: {"ioctl", "fxx"}, unix.SYS_IOPRIO_SET: {"ioprio_set", "ddx"}, unix.SYS_KEYCTL: {"keyctl", "dxxxx"},
	unix.SYS_MKDIRAT: {"mkdirat", "fxo"}, unix.SYS_MKNODAT: {"mknodat", "fxox"}, unix.SYS_MOUNT: {"mount", "xxxmx"},
	unix.SYS_MOUNT_SETATTR: {"mount_setattr", "fxaAd"}, unix.SYS_MOVE_MOUNT: {"move_mount", "fxfxv"},
	unix.SYS_OPEN_TREE: {"open_tree", "fxt"}, unix.SYS_OPENAT: {"openat", "fxpo"}, unix.SYS_OPENAT2: {"openat2", "fxxd"},
	unix.SYS_PERSONALITY: {"personality", "x"}, unix.SYS_PIVOT_ROOT: {"pivot_root", "xx"},
	unix.SYS_PRCTL: {"prctl", "ddxxx"}, unix.SYS_PRLIMIT64: {"prlimit64", "ddxx"}, unix.SYS_READ: {"read", "fxd"},
	unix.SYS_SCHED_SETATTR: {"sched_setattr", "dxd"}, unix.SYS_SCHED_SETAFFINITY: {"sched_setaffinity", "ddx"},
	unix.SYS_SECCOMP:       {"seccomp", "dxx"},
	unix.SYS_SETDOMAINNAME: {"setdomainname", "xd"}, unix.SYS_SETGROUPS: {"setgroups", "dx"},
	unix.SYS_SETHOSTNAME: {"sethostname", "xd"}, unix.SYS_SETNS: {"setns", "fn"}, unix.SYS_SETRESGID: {"setresgid", "ddd"},
	unix.SYS_SETRESUID: {"setresuid", "ddd"}, unix.SYS_SETSID: {"setsid", ""}, unix.SYS_SYMLINKAT: {"symlinkat", "xfx"},
	unix.SYS_UMASK: {"umask", "o"}, unix.SYS_UMOUNT2: {"umount2", "xu"}, unix.SYS_UNLINKAT: {"unlinkat", "fxa"},
	unix.SYS_UNSHARE: {"unshare", "n"}, unix.SYS_WRITE: {"write", "fxd"},
}

// bit names one flag.
type bit struct {
	mask uint64
	name string
}

var (
	nsFlags = []bit{
		{unix.CLONE_NEWUSER, "user"},
		{unix.CLONE_NEWNS, "mnt"},
		{unix.CLONE_NEWPID, "pid"},
		{unix.CLONE_NEWNET, "net"},
		{unix.CLONE_NEWIPC, "ipc"},
		{unix.CLONE_NEWUTS, "uts"},
		{unix.CLONE_NEWCGROUP, "cgroup"},
		{unix.CLONE_NEWTIME, "time"},
	}
	mountFlags = []bit{
		{unix.MS_RDONLY, "ro"},
		{unix.MS_NOSUID, "nosuid"},
		{unix.MS_NODEV, "nodev"},
		{unix.MS_NOEXEC, "noexec"},
		{unix.MS_SYNCHRONOUS, "sync"},
		{unix.MS_REMOUNT, "remount"},
		{unix.MS_MANDLOCK, "mand"},
		{unix.MS_DIRSYNC, "dirsync"},
		{unix.MS_NOSYMFOLLOW, "nosymfollow"},
		{unix.MS_NOATIME, "noatime"},
		{unix.MS_NODIRATIME, "nodiratime"},
		{unix.MS_BIND, "bind"},
		{unix.MS_REC, "rec"},
		{unix.MS_UNBINDABLE, "unbindable"},
		{unix.MS_PRIVATE, "private"},
		{unix.MS_SLAVE, "slave"},
		{unix.MS_SHARED, "shared"},
		{unix.MS_RELATIME, "relatime"},
		{unix.MS_STRICTATIME, "strictatime"},
		{unix.MS_LAZYTIME, "lazytime"},
	}
	moveFlags = []bit{{unix.MOVE_MOUNT_F_EMPTY_PATH, "from-fd"}, {unix.MOVE_MOUNT_T_EMPTY_PATH, "to-fd"}, {unix.MOVE_MOUNT_T_SYMLINKS, "follow"}}
	treeFlags = []bit{{unix.OPEN_TREE_CLONE, "clone"}, {unix.AT_RECURSIVE, "rec"}, {unix.AT_EMPTY_PATH, "fd"}, {unix.OPEN_TREE_CLOEXEC, "cloexec"}}
	openFlags = []bit{{unix.O_CLOEXEC, "cloexec"}, {unix.O_PATH, "path"}, {unix.O_DIRECTORY, "folder"}, {unix.O_NOFOLLOW, "nofollow"}, {unix.O_CREAT, "create"}, {unix.O_RDWR, "rdwr"}, {unix.O_WRONLY, "wronly"}, {unix.O_NOCTTY, "noctty"}, {unix.O_EXCL, "excl"}}
	atFlags   = []bit{{unix.AT_EMPTY_PATH, "fd"}, {unix.AT_RECURSIVE, "rec"}, {unix.AT_SYMLINK_NOFOLLOW, "nofollow"}}
	attrFlags = []bit{
		{unix.MOUNT_ATTR_RDONLY, "ro"},
		{unix.MOUNT_ATTR_NOSUID, "nosuid"},
		{unix.MOUNT_ATTR_NODEV, "nodev"},
		{unix.MOUNT_ATTR_NOEXEC, "noexec"},
		{unix.MOUNT_ATTR__ATIME, "atime"},
		{unix.MOUNT_ATTR_NOATIME, "noatime"},
		{unix.MOUNT_ATTR_STRICTATIME, "strictatime"},
		{unix.MOUNT_ATTR_NODIRATIME, "nodiratime"},
		{unix.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"},
		{unix.MOUNT_ATTR_IDMAP, "idmap"},
	}
	umountFlags = []bit{{unix.MNT_DETACH, "detach"}, {unix.MNT_FORCE, "force"}}
)

// flagNames shows flags by name, the unknown rest in hexadecimal.
func flagNames(v uint64, table []bit) string {
	var names []string
	for _, b := range table {
		if b.mask != 0 && v&b.mask == b.mask {
			names = append(names, b.name)
			v &^= b.mask
		}
	}
	if v != 0 || len(names) == 0 {
		names = append(names, fmt.Sprintf("%#x", v))
	}
	return strings.Join(names, "|")
}

// showAttr shows a struct mount_attr: what is set, cleared, and the propagation.
func showAttr(data []byte) string {
	var parts []string
	for i, what := range []string{"set ", "clear ", ""} {
		table := attrFlags
		if what == "" {
			table = mountFlags
		}
		if v := binary.NativeEndian.Uint64(data[8*i:]); v != 0 {
			parts = append(parts, what+flagNames(v, table))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// showImm shows an immediate as the letter says.
func showImm(letter byte, v uint64) string {
	switch letter {
	case 'd', 'f':
		if letter == 'f' && int32(v) == unix.AT_FDCWD {
			return "cwd"
		}
		return fmt.Sprint(int64(v))
	case 'o':
		return fmt.Sprintf("%#o", v)
	case 'n':
		return flagNames(v, nsFlags)
	case 'm':
		return flagNames(v, mountFlags)
	case 'v':
		return flagNames(v, moveFlags)
	case 't':
		return flagNames(v, treeFlags)
	case 'p':
		return flagNames(v, openFlags)
	case 'a':
		return flagNames(v, atFlags)
	case 'u':
		return flagNames(v, umountFlags)
	}
	if v == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", v)
}
