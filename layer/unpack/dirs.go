package unpack

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// openDir is an open folder of the layer.
type openDir struct {
	fd int // O_PATH
	// setgid says that new entries get the folder's group instead of root's.
	setgid bool
}

func (d *openDir) refresh() {
	var st unix.Stat_t
	d.setgid = unix.Fstat(d.fd, &st) != nil || st.Mode&unix.S_ISGID != 0
}

// dirCache keeps the folders open in which entries were made lately: tars list a folder's entries next to each other, so
// nearly every path costs no resolution at all. It is emptied when something is replaced that a path could lead through.
type dirCache struct {
	root  *openDir
	byDir map[string]*openDir
	order []string // insertion order, for eviction
}

const maxOpenDirs = 64

func newDirCache(root int) *dirCache {
	c := &dirCache{root: &openDir{fd: root}, byDir: map[string]*openDir{}}
	c.root.refresh()
	return c
}

// open finds an existing folder by its path inside the layer; ENOENT if it is not there. The descriptor belongs to the
// cache and is valid until the next call.
func (c *dirCache) open(dir string) (*openDir, error) {
	if dir == "" {
		return c.root, nil
	}
	if d, ok := c.byDir[dir]; ok {
		return d, nil
	}
	fd, err := openInRoot(c.root.fd, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	d := &openDir{fd: fd}
	d.refresh()
	if len(c.order) >= maxOpenDirs {
		unix.Close(c.byDir[c.order[0]].fd)
		delete(c.byDir, c.order[0])
		c.order = c.order[1:]
	}
	c.byDir[dir] = d
	c.order = append(c.order, dir)
	return d, nil
}

// forget closes all: a folder, or a link that a path may lead through, was replaced or changed its mode.
func (c *dirCache) forget() {
	for _, d := range c.byDir {
		unix.Close(d.fd)
	}
	clear(c.byDir)
	c.order = c.order[:0]
}

func (c *dirCache) close() { c.forget() }

// openInRoot opens a path as if root were "/": absolute links and ".." stay inside.
func openInRoot(root int, p string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for range 32 { // EAGAIN: a rename anywhere on the system made ".." undecidable
		fd, err := unix.Openat2(root, p, &how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		return fd, err
	}
	return -1, unix.EAGAIN
}

// parent opens the folder in which an entry is to be made, and makes it if the tar has none.
func (u *unpacker) parent(dir string) (*openDir, error) { return u.parentAfter(dir, 0) }

// maxLinks is the kernel's own limit of links in one path.
const maxLinks = 40

func (u *unpacker) parentAfter(dir string, links int) (*openDir, error) {
	d, err := u.dirs.open(dir)
	switch {
	case err == nil:
		return d, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, errs.New(errs.Invalid, "parent %q is not a folder: %w", shorten(dir), err)
	case !errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("opening the parent %q: %w", shorten(dir), err)
	}
	up, base := path.Split(dir)
	if up != "" {
		up = up[:len(up)-1]
	}
	pd, err := u.parentAfter(up, links)
	if err != nil {
		return nil, err
	}
	if to, ok := readlink(pd, base); ok {
		// The link's target is not in this layer (var/run -> /run): it is made where the link leads, inside the layer.
		if links++; links > maxLinks {
			return nil, errs.New(errs.Invalid, "parent %q leads through too many links", shorten(dir))
		}
		if !path.IsAbs(to) {
			to = path.Join("/", up, to)
		}
		to = path.Clean(to)[1:]
		if to == dir || len(to) > maxPath {
			return nil, errs.New(errs.Invalid, "parent %q is a link to nowhere", shorten(dir))
		}
		return u.parentAfter(to, links)
	}
	if err := u.mkdir(pd, base); err != nil {
		return nil, fmt.Errorf("making the parent %q: %w", shorten(dir), err)
	}
	if err := setFolder(pd, base, 0, 0, 0o755); err != nil {
		return nil, fmt.Errorf("making the parent %q: %w", shorten(dir), err)
	}
	p := path.Join(u.dirs.real(pd), base)
	u.implied[p] = true
	if err := u.count(p); err != nil {
		return nil, err
	}
	return u.dirs.open(dir)
}

// real is a folder's path inside the layer without any link, as the kernel tells it.
func (c *dirCache) real(d *openDir) string {
	root, err1 := os.Readlink(fdPath(c.root.fd, ""))
	p, err2 := os.Readlink(fdPath(d.fd, ""))
	if err1 != nil || err2 != nil {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(p, root), "/")
}

func readlink(d *openDir, base string) (string, bool) {
	buf := make([]byte, maxPath+1)
	n, err := unix.Readlinkat(d.fd, base, buf)
	if err != nil {
		return "", false
	}
	return string(buf[:n]), true
}

// mkdir makes a folder where none is. What is there and is no folder gives way; if it was a whiteout, the folder is
// opaque: what the layers below have under this name stays hidden.
func (u *unpacker) mkdir(d *openDir, base string) error {
	err := unix.Mkdirat(d.fd, base, 0o700)
	if err != unix.EEXIST {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK && len(u.dirs.byDir) > 0 {
		u.dirs.forgetExcept(d)
	}
	if err := unix.Unlinkat(d.fd, base, 0); err != nil {
		return err
	}
	if err := unix.Mkdirat(d.fd, base, 0o700); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		return setOpaque(d.fd, base)
	}
	return nil
}

// forgetExcept empties the cache but keeps the folder that is being worked in.
func (c *dirCache) forgetExcept(keep *openDir) {
	order := c.order[:0]
	for _, k := range c.order {
		if c.byDir[k] == keep {
			order = append(order, k)
			continue
		}
		unix.Close(c.byDir[k].fd)
		delete(c.byDir, k)
	}
	c.order = order
}
