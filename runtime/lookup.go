package runtime

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// lookUp finds where an absolute path leads inside a root file system: the path without symbolic links, and whether
// something is there. What is missing counts as folders to be made.
func lookUp(root int, dest string) (Target, error) {
	if dest == "/" {
		return Target{Path: "/", Exists: true}, nil
	}
	fd, err := openIn(root, dest, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
	if err == nil {
		_ = unix.Close(fd)
		return Target{Path: dest, Exists: true}, nil
	}
	if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return Target{}, err
	}
	return walk(root, dest)
}

// maxLinks is how many symbolic links the kernel follows in one path.
const maxLinks = 40

// walk resolves a path step by step, following the image's symbolic links inside the root.
func walk(root int, dest string) (Target, error) {
	at, rest, links, exists := "/", strings.Split(strings.Trim(dest, "/"), "/"), 0, true
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		link, err := readLinkIn(root, next)
		switch {
		case errors.Is(err, unix.EINVAL): // no link
			at = next
		case errors.Is(err, unix.ENOENT):
			at, exists = next, false
		case errors.Is(err, unix.ENOTDIR):
			return Target{}, errs.New(errs.Invalid, "%s is not a folder", at)
		case err != nil:
			return Target{}, err
		default:
			if links++; links > maxLinks {
				return Target{}, errs.New(errs.Invalid, "%s: %w", dest, unix.ELOOP)
			}
			if path.IsAbs(link) {
				at = "/"
			}
			rest = append(strings.Split(link, "/"), rest...)
		}
	}
	if exists { // a ".." may have led back from something missing
		fd, err := openIn(root, at, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
		if exists = err == nil; exists {
			_ = unix.Close(fd)
		}
	}
	return Target{Path: at, Exists: exists}, nil
}

func readLinkIn(root int, name string) (string, error) {
	fd, err := openIn(root, name, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", unix.EINVAL
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// openIn opens a path inside a root.
func openIn(root int, name string, flags, resolve uint64) (int, error) {
	return retry(func() (int, error) {
		for {
			fd, err := unix.Openat2(root, strings.TrimPrefix(name, "/"), &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
			if !errors.Is(err, unix.EAGAIN) { // a rename went on meanwhile
				return fd, err
			}
		}
	})
}

// homeOf is the home folder of a user in the container's own /etc/passwd, "/" if it has none.
func homeOf(root int, uid uint32) string {
	fd, err := openIn(root, "etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return "/"
	}
	f := os.NewFile(uintptr(fd), "/etc/passwd")
	defer func() { _ = f.Close() }() // only read
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "/"
	}
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20)) // an image's file may be any size
	for lines.Scan() {
		field := strings.Split(lines.Text(), ":")
		if len(field) < 6 {
			continue
		}
		if n, err := strconv.ParseUint(field[2], 10, 32); err == nil && uint32(n) == uid && strings.HasPrefix(field[5], "/") {
			return field[5]
		}
	}
	return "/"
}
