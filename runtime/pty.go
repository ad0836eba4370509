package runtime

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// NewPTY makes a terminal in a devpts of its own that is not attached anywhere: as ContainerInput.DevPTS it becomes the
// container's /dev/pts, where the slave is /dev/pts/0. Width and height are in characters, 0 leaves the kernel's default. The slave belongs to
// root and group 5 (tty). The caller closes all three.
func NewPTY(width, height uint) (master, slave, devpts *os.File, err error) {
	fd, err := mountDevPTS()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make a devpts: %w", err)
	}
	devpts = os.NewFile(uintptr(fd), "devpts")
	defer func() {
		if err != nil {
			_ = devpts.Close()
		}
	}()
	if master, slave, err = openPTY(fd, width, height); err != nil {
		return nil, nil, nil, err
	}
	return master, slave, devpts, nil
}

// PTYIn makes a terminal in the devpts that a running container has on /dev/pts, so that its processes find the terminal by its
// name. pid is a process of the container, in our pid namespace.
func PTYIn(pid int, width, height uint) (master, slave *os.File, err error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, gone(pid, err)
	}
	defer func() { _ = unix.Close(root) }()
	fd, err := openIn(root, "dev/pts", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, nil, fmt.Errorf("open the container's /dev/pts: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.DEVPTS_SUPER_MAGIC {
		return nil, nil, errs.New(errs.Invalid, "the container has no devpts on /dev/pts")
	}
	return openPTY(fd, width, height)
}

// openPTY makes a terminal in a devpts. Its ptmx is the kernel's own node: nobody can put another file there.
func openPTY(devpts int, width, height uint) (master, slave *os.File, err error) {
	m, err := openIn(devpts, "ptmx", unix.O_RDWR|unix.O_NOCTTY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	if err != nil {
		return nil, nil, fmt.Errorf("open ptmx of a devpts: %w", err)
	}
	master = os.NewFile(uintptr(m), "/dev/ptmx")
	defer func() {
		if err != nil {
			_ = master.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	if width != 0 && height != 0 {
		if err := unix.IoctlSetWinsize(m, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)}); err != nil {
			return nil, nil, fmt.Errorf("set the terminal's size: %w", err)
		}
	}
	n, err := unix.IoctlGetInt(m, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, fmt.Errorf("number of the terminal: %w", err)
	}
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, nil, fmt.Errorf("open the terminal's slave: %w", errno)
	}
	return master, os.NewFile(s, fmt.Sprintf("/dev/pts/%d", n)), nil
}

// mountDevPTS makes a new instance with the options that all container runtimes use.
func mountDevPTS() (int, error) {
	fs, err := unix.Fsopen("devpts", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(fs) }()
	for _, o := range [][2]string{{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("option %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
}
