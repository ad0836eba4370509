package runtime

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
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
	var m int
	m, err = retry(func() (int, error) { return unix.Openat(fd, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open ptmx of a new devpts: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(m)
		}
	}()
	if err = unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		err = fmt.Errorf("open the terminal's slave: %w", errno)
		return nil, nil, nil, err
	}
	if width != 0 && height != 0 {
		if err = unix.IoctlSetWinsize(m, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)}); err != nil {
			_ = unix.Close(int(s))
			return nil, nil, nil, fmt.Errorf("set the terminal's size: %w", err)
		}
	}
	return os.NewFile(uintptr(m), "/dev/ptmx"), os.NewFile(s, "/dev/pts/0"), devpts, nil
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
