package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// maxAccountFile bounds what is read of an image's /etc/passwd or /etc/group, in bytes.
const maxAccountFile = 16 << 20

// account is a user resolved in a root.
type account struct {
	specs.User
	home string
}

// resolveUser finds "user", "uid", "user:group" … and additional groups in the root's own files. The errors are
// Docker's words.
func resolveUser(root *os.File, name string, groups []string) (account, error) {
	passwd, err := readInRoot(root, "/etc/passwd")
	if err != nil {
		return account{}, err
	}
	group, err := readInRoot(root, "/etc/group")
	if err != nil {
		return account{}, err
	}
	u, err := user.GetExecUser(name, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return account{}, errs.As(errs.Invalid, err)
	}
	gids := append([]int{u.Gid}, u.Sgids...)
	if len(groups) > 0 {
		more, err := user.GetAdditionalGroups(groups, bytes.NewReader(group))
		if err != nil {
			return account{}, errs.As(errs.Invalid, err)
		}
		slices.Sort(more) // the library gives them in the order of a map
		gids = append(gids, more...)
	}
	a := account{home: u.Home}
	a.UID, a.GID = uint32(u.Uid), uint32(u.Gid)
	// The primary group is also among the additional ones: a program that drops it with setgid keeps no less than
	// the user has (CVE-2022-36109).
	for _, g := range gids {
		if !slices.Contains(a.AdditionalGids, uint32(g)) {
			a.AdditionalGids = append(a.AdditionalGids, uint32(g))
		}
	}
	if a.home == "" {
		a.home = "/"
	}
	return a, nil
}

// readInRoot reads a file of the container. No link leads out of its root, only a regular file is read, and not
// more than a bound. A file that is not there is empty. A nil root has no files.
func readInRoot(root *os.File, name string) ([]byte, error) {
	if root == nil {
		return nil, nil
	}
	how := &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	var fd int
	var err error
	for { // EAGAIN: a rename happened meanwhile
		if fd, err = unix.Openat2(int(root.Fd()), name, how); err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s in the container's file system: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd) // only opened
		return nil, errs.New(errs.Invalid, "%s in the container's file system is not a regular file", name)
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }() // read only
	var buf bytes.Buffer
	buf.Grow(int(min(st.Size, maxAccountFile)) + bytes.MinRead)
	if _, err := buf.ReadFrom(io.LimitReader(f, maxAccountFile)); err != nil {
		return nil, fmt.Errorf("read %s in the container's file system: %w", name, err)
	}
	return buf.Bytes(), nil
}
