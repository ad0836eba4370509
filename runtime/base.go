package runtime

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// NewBase makes a mount namespace that holds nothing but an empty read-only folder. A container that is launched with it
// (ContainerInput.Base) starts from a copy of that, and its root file system is mounted on top, as the real root is on the initial
// ramdisk of a booting machine. Without it the container starts from a copy of the host's mounts, which must be taken apart
// again: on the reference machine that costs half a millisecond and more, and grows with the number of mounts.
//
// Nothing of the host is in it, so there is nothing that a container could escape to. One base serves any number of containers; it
// lasts until it is closed. It takes some milliseconds to make.
func NewBase() (*os.File, error) {
	var f *os.File
	var err error
	onOtherThread(func() { f, err = makeBase() })
	if err != nil {
		return nil, fmt.Errorf("make an empty mount namespace: %w", err)
	}
	return f, nil
}

// onOtherThread runs do on a thread that ends afterwards, so that it may change the thread's namespaces. It is never the
// main thread, which Go can't end, and whose namespaces are those that /proc/self shows.
func onOtherThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked below: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			onOtherThread(do) // another one, since we hold this one
			runtime.UnlockOSThread()
			return
		}
		do()
	}()
	<-done
}

func makeBase() (f *os.File, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("unshare: %w", err)
	}
	const name = "/proc/thread-self/ns/mnt"
	ns, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(ns)
		}
	}()
	root, err := emptyMount()
	if err != nil {
		return nil, fmt.Errorf("make a tmpfs: %w", err)
	}
	defer func() { _ = unix.Close(root) }()
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"make all mounts private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"attach the tmpfs", func() error { return unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH) }},
		{"enter the tmpfs", func() error { return unix.Fchdir(root) }},
		{"exchange the roots", func() error { return unix.PivotRoot(".", ".") }},
		{"detach the host's root", func() error { return unix.Unmount(".", unix.MNT_DETACH) }},
	} {
		if err = step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return os.NewFile(uintptr(ns), "empty mount namespace"), nil
}

// emptyMount is a detached read-only tmpfs.
func emptyMount() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(fs) }()
	for _, o := range [][2]string{{"size", "0"}, {"nr_inodes", "1"}, {"mode", "555"}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("option %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
		return -1, fmt.Errorf("option ro: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}
