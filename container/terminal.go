package container

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"skiff/runtime"
)

const pathOnly = unix.O_PATH | unix.O_CLOEXEC

// Terminal implements Runtime.
func (n *Native) Terminal(height, width uint) (*Terminal, error) {
	master, slave, devpts, err := runtime.NewPTY(width, height)
	if err != nil {
		return nil, err
	}
	return &Terminal{Master: master, Slave: slave, DevPTS: devpts}, nil
}

// ExecTerminal implements Runtime. The pty is one of the container's own devpts, so that programs find its name there. What is
// at that place is the container's to decide, so it is made sure that it is a devpts; if not, a detached one serves.
func (n *Native) ExecTerminal(pid int, height, width uint) (*Terminal, error) {
	t, err := containerPTY(pid)
	if err != nil {
		return n.Terminal(height, width)
	}
	if err := setSize(t.Master, height, width); err != nil {
		t.Master.Close()
		t.Slave.Close()
		return nil, err
	}
	return t, nil
}

func containerPTY(pid int) (*Terminal, error) {
	root, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	// The folder first, without opening what could be a device with a mind of its own.
	dir, err := unix.Openat2(root, "dev/pts", &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil {
		return nil, err
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC {
		return nil, errNoTerminal
	}
	master, err := unix.Openat2(dir, "ptmx", &unix.OpenHow{
		Flags:   unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(master), "/dev/pts/ptmx")
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		f.Close()
		return nil, fmt.Errorf("open the terminal's slave: %w", errno)
	}
	return &Terminal{Master: f, Slave: os.NewFile(slave, "/dev/pts/N")}, nil
}

// setSize sets a terminal's size; 0 leaves the kernel's default.
func setSize(master *os.File, height, width uint) error {
	if height == 0 || width == 0 {
		return nil
	}
	return resize(master, height, width)
}
