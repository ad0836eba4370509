package daemon

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// oldestKernel is what every mechanism of skiff works on.
var oldestKernel = [2]int{5, 10}

// checkHost says in one sentence why containers can't be had here.
func checkHost() error {
	if os.Geteuid() != 0 {
		return errors.New("skiffd must be started as root: it makes namespaces, mounts and network interfaces")
	}
	release := uname().release
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, _ := strconv.Atoi(major)
	y, _ := strconv.Atoi(strings.TrimRight(minor, "abcdefghijklmnopqrstuvwxyz-+_"))
	if x < oldestKernel[0] || x == oldestKernel[0] && y < oldestKernel[1] {
		return fmt.Errorf("skiffd needs Linux %d.%d or newer, this is %s", oldestKernel[0], oldestKernel[1], release)
	}
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return fmt.Errorf("skiffd needs /proc: %w", err)
	}
	if !bytes.Contains(b, []byte("\toverlay\n")) {
		if _, err := os.Stat("/sys/module/overlay"); err != nil && !modular() {
			return errors.New("skiffd needs overlayfs, which this kernel does not have (CONFIG_OVERLAY_FS; try: modprobe overlay)")
		}
	}
	return nil
}

// modular says whether the kernel may load overlayfs on the first mount.
func modular() bool {
	_, err := os.Stat("/proc/modules")
	return err == nil
}

type unameInfo struct{ release, machine, node string }

func uname() unameInfo {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return unameInfo{}
	}
	return unameInfo{unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]), unix.ByteSliceToString(u.Nodename[:])}
}

// osRelease reads the distribution's name and version (os-release(5)).
func osRelease() (name, version string) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		b, _ = os.ReadFile("/usr/lib/os-release")
	}
	name = "Linux"
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		key, value, _ := strings.Cut(sc.Text(), "=")
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		switch key {
		case "PRETTY_NAME":
			name = value
		case "VERSION_ID":
			version = strings.Trim(value, "'")
		}
	}
	return strings.Trim(name, "'"), version
}

// memTotal is the machine's memory in bytes.
func memTotal() int64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	return int64(s.Totalram) * int64(s.Unit)
}

// fileSystem names the file system of a folder, as far as it is one of the usual ones.
func fileSystem(path string) string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return "unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "extfs", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", 0x2fc12fc1: "zfs", unix.F2FS_SUPER_MAGIC: "f2fs", unix.NFS_SUPER_MAGIC: "nfs",
	}
	if name, ok := names[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("0x%x", st.Type)
}

// bootID names this boot of the machine.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
