package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// Names of the OCI layer format ("Whiteouts"), taken from AUFS.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // AUFS's own files; of no meaning but the opaque marker
	whiteoutOpaque = ".wh..wh..opq"
)

const (
	xattrPrefix   = "SCHILY.xattr." // PAX records of extended attributes, as star and Docker write them
	overlayOpaque = "trusted.overlay.opaque"
)

// remove clears the way for a new entry: the last entry of a name wins.
func (u *unpacker) remove(d *openDir, base string) error {
	err := unix.Unlinkat(d.fd, base, 0)
	if err == nil || err == unix.ENOENT {
		u.dirs.forgetExcept(d) // it may have been a link
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return fmt.Errorf("removing what was there: %w", err)
	}
	u.dirs.forgetExcept(d)
	if err := os.RemoveAll(fdPath(d.fd, base)); err != nil {
		return fmt.Errorf("removing the folder that was there: %w", err)
	}
	return nil
}

// fdPath names an entry of an open folder, or with "" the folder's own link in /proc, for calls that have no *at form.
func fdPath(fd int, base string) string {
	p := "/proc/self/fd/" + strconv.Itoa(fd)
	if base == "" {
		return p
	}
	return p + "/" + base
}

func (u *unpacker) file(d *openDir, base string, hdr *tar.Header) error {
	if hdr.Size > u.opt.Limits.Bytes-u.res.Bytes {
		return errs.New(errs.Invalid, "the layer's files are larger than %d bytes", u.opt.Limits.Bytes)
	}
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := openat(d.fd, base, flags)
	if err == unix.EEXIST {
		if err := u.remove(d, base); err != nil {
			return err
		}
		fd, err = openat(d.fd, base, flags)
	}
	if err != nil {
		return fmt.Errorf("creating the file: %w", err)
	}
	defer unix.Close(fd)
	if err := u.copy(fd, hdr); err != nil {
		return err
	}
	u.res.Bytes += hdr.Size
	if hdr.Uid != 0 || hdr.Gid != 0 || d.setgid {
		if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	// After chown, which clears setuid and setgid; and always, since the umask has its say in open.
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	if err := setXattrs(d.fd, base, fd, hdr); err != nil {
		return err
	}
	ts := times(hdr)
	if err := futimens(fd, &ts); err != nil {
		return fmt.Errorf("setting the time: %w", err)
	}
	return nil
}

func openat(dir int, base string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, base, flags, 0o600)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// copy writes the current entry's bytes. Holes of a sparse entry stay holes.
func (u *unpacker) copy(fd int, hdr *tar.Header) error {
	sparse := hdr.Typeflag == tar.TypeGNUSparse || hdr.PAXRecords["GNU.sparse.major"] != "" || hdr.PAXRecords["GNU.sparse.map"] != ""
	var off int64
	for off < hdr.Size {
		if off&(1<<26-1) == 0 && u.ctx.Err() != nil { // a hole of many gigabytes reads nothing
			return context.Cause(u.ctx)
		}
		n, err := io.ReadFull(u.tr, u.buf[:min(int64(len(u.buf)), hdr.Size-off)])
		if n > 0 {
			if werr := writeAt(fd, u.buf[:n], off, sparse); werr != nil {
				return fmt.Errorf("writing: %w", werr)
			}
			off += int64(n)
		}
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("reading %d bytes of it: %w", hdr.Size, err)
		}
	}
	if sparse {
		if err := unix.Ftruncate(fd, hdr.Size); err != nil {
			return fmt.Errorf("setting the size to %d: %w", hdr.Size, err)
		}
	}
	return nil
}

// zeros is one page: the unit in which holes are looked for.
var zeros [4096]byte

func writeAt(fd int, b []byte, off int64, sparse bool) error {
	for sparse && len(b) > 0 { // skip what is zero, write up to the next zero page
		n := 0
		for n < len(b) && !bytes.Equal(b[n:min(n+len(zeros), len(b))], zeros[:min(len(zeros), len(b)-n)]) {
			n = min(n+len(zeros), len(b))
		}
		if n > 0 {
			if err := writeAt(fd, b[:n], off, false); err != nil {
				return err
			}
		}
		n = min(n+len(zeros), len(b))
		b, off = b[n:], off+int64(n)
	}
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func (u *unpacker) folder(d *openDir, p, base string, hdr *tar.Header) error {
	if err := u.mkdir(d, base); err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	if err := setFolder(d, base, hdr.Uid, hdr.Gid, uint32(hdr.Mode)&0o7777); err != nil {
		return err
	}
	if c, ok := u.dirs.byDir[p]; ok {
		c.refresh()
	}
	delete(u.implied, p)
	if err := u.remember(p, hdr); err != nil {
		return err
	}
	return setXattrs(d.fd, base, -1, hdr)
}

func setFolder(d *openDir, base string, uid, gid int, mode uint32) error {
	if err := unix.Fchownat(d.fd, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := unix.Fchmodat(d.fd, base, mode, 0); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return nil
}

// make creates an entry that is not a file or folder, after removing what has its name.
func (u *unpacker) make(d *openDir, base string, create func() error) error {
	err := create()
	if err == unix.EEXIST {
		if err := u.remove(d, base); err != nil {
			return err
		}
		err = create()
	}
	return err
}

func (u *unpacker) symlink(d *openDir, base string, hdr *tar.Header) error {
	if hdr.Linkname == "" || len(hdr.Linkname) > maxPath {
		return errs.New(errs.Invalid, "the symbolic link's target has %d bytes", len(hdr.Linkname))
	}
	if err := u.make(d, base, func() error { return unix.Symlinkat(hdr.Linkname, d.fd, base) }); err != nil {
		return fmt.Errorf("making the symbolic link: %w", err)
	}
	if hdr.Uid != 0 || hdr.Gid != 0 || d.setgid {
		if err := unix.Fchownat(d.fd, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	return u.nodeEnd(d, base, hdr)
}

func (u *unpacker) nodeEnd(d *openDir, base string, hdr *tar.Header) error {
	if err := setXattrs(d.fd, base, -1, hdr); err != nil {
		return err
	}
	ts := times(hdr)
	if err := unix.UtimesNanoAt(d.fd, base, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("setting the time: %w", err)
	}
	return nil
}

func (u *unpacker) hardlink(d *openDir, base string, hdr *tar.Header) error {
	target, err := cleanName(hdr.Linkname)
	if err != nil || target == "" {
		return errs.New(errs.Invalid, "hard link to %q, which is outside of the layer", shorten(hdr.Linkname))
	}
	// Opened beside the cache, whose next call may close d.
	tdir, tbase := splitDir(target)
	tfd := u.dirs.root.fd
	if tdir != "" {
		if tfd, err = openInRoot(u.dirs.root.fd, tdir, unix.O_PATH|unix.O_DIRECTORY); err != nil {
			return errs.New(errs.Invalid, "hard link to %q, which is not in this layer: %w", shorten(hdr.Linkname), err)
		}
		defer unix.Close(tfd)
	}
	var to, from unix.Stat_t
	if err := unix.Fstatat(tfd, tbase, &to, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return errs.New(errs.Invalid, "hard link to %q, which is not in this layer: %w", shorten(hdr.Linkname), err)
	}
	if unix.Fstatat(d.fd, base, &from, unix.AT_SYMLINK_NOFOLLOW) == nil && from.Ino == to.Ino && from.Dev == to.Dev {
		return nil // to itself, or a link that is there already
	}
	err = u.make(d, base, func() error { return unix.Linkat(tfd, tbase, d.fd, base, 0) })
	if err != nil {
		return fmt.Errorf("making a hard link to %q: %w", shorten(hdr.Linkname), err)
	}
	return nil
}

func splitDir(p string) (dir, base string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

func (u *unpacker) node(d *openDir, base string, hdr *tar.Header) error {
	mode, dev := uint32(hdr.Mode)&0o7777, 0
	switch hdr.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar, tar.TypeBlock:
		if hdr.Devmajor < 0 || hdr.Devmajor >= 1<<12 || hdr.Devminor < 0 || hdr.Devminor >= 1<<20 {
			return errs.New(errs.Invalid, "device number %d:%d is out of range", hdr.Devmajor, hdr.Devminor)
		}
		dev = int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
		mode |= unix.S_IFBLK
		if hdr.Typeflag == tar.TypeChar {
			mode ^= unix.S_IFBLK ^ unix.S_IFCHR
		}
	}
	if err := u.make(d, base, func() error { return unix.Mknodat(d.fd, base, mode, dev) }); err != nil {
		return fmt.Errorf("making the device or pipe: %w", err)
	}
	if err := setFolder(d, base, hdr.Uid, hdr.Gid, mode&0o7777); err != nil {
		return err
	}
	return u.nodeEnd(d, base, hdr)
}

// whiteout hides an entry of the layers below, or all that they have in this folder. It never hides what this layer has.
func (u *unpacker) whiteout(d *openDir, dir, base string) error {
	if base == whiteoutOpaque {
		if dir == "" {
			u.res.OpaqueRoot = true
			return nil
		}
		return setOpaque(d.fd, ".")
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	name := base[len(whiteoutPrefix):]
	if name == "" || name == "." || name == ".." {
		return errs.New(errs.Invalid, "whiteout of %q", name)
	}
	err := unix.Mknodat(d.fd, name, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		if err != nil {
			return fmt.Errorf("making the whiteout: %w", err)
		}
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("making the whiteout: %w", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return setOpaque(d.fd, name)
	}
	return nil
}

func setOpaque(fd int, base string) error {
	if err := unix.Lsetxattr(fdPath(fd, base), overlayOpaque, []byte("y"), 0); err != nil {
		return fmt.Errorf("marking the folder opaque: %w", err)
	}
	return nil
}

// setXattrs sets the attributes that the header has. fd is the entry itself if it is open for writing, else -1.
func setXattrs(dir int, base string, fd int, hdr *tar.Header) error {
	if len(hdr.PAXRecords) == 0 {
		return nil
	}
	for k := range maps.Keys(hdr.PAXRecords) {
		name, ok := strings.CutPrefix(k, xattrPrefix)
		// overlayfs's own attributes are not a layer's to set: they would redirect lookups to other places.
		if !ok || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if err := setXattr(dir, base, fd, name, hdr.PAXRecords[k]); err != nil {
			return err
		}
	}
	return nil
}

func setXattr(dir int, base string, fd int, name, value string) error {
	var err error
	if fd >= 0 {
		err = unix.Fsetxattr(fd, name, []byte(value), 0)
	} else {
		err = unix.Lsetxattr(fdPath(dir, base), name, []byte(value), 0)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOTSUP):
		return nil // this file system or kind of file has none of that sort; images run without, as with other engines
	case errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user."):
		return nil // user attributes on links and devices
	case errors.Is(err, unix.EINVAL) && strings.HasPrefix(name, "security.selinux"):
		return nil // a label of a policy that is not loaded here
	}
	return fmt.Errorf("setting the attribute %s: %w", shorten(name), err)
}
