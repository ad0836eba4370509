package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// Limits bound what one layer may hold. A zero field means its default.
type Limits struct {
	Entries int64 // headers in the tar; default 4,000,000
	Bytes   int64 // sum of the files' sizes in bytes, holes included; default 256 GiB
	Paths   int64 // bytes of the folders' paths, which are kept in memory until the end; default 128 MiB
}

const (
	defaultEntries = 4_000_000
	defaultBytes   = 256 << 30
	// maxPath is PATH_MAX without its NUL: longer paths can't be given to the kernel in one piece, by nobody.
	maxPath      = 4095
	defaultPaths = 128 << 20
	// maxTail is how many bytes may follow the tar's end marker; GNU tar pads to 10 kB.
	maxTail = 64 << 20
)

// Options of Unpack.
type Options struct {
	Limits Limits
}

// Result is what was unpacked.
type Result struct {
	Entries int64 // headers read
	Bytes   int64 // sum of the regular files' sizes
	// Implied are the folders that had no header, by relative path, parents first. They were made with mode 0755 for root;
	// how they ought to look depends on the layers below.
	Implied []string
	// OpaqueRoot says that the layer hides all layers below it. overlayfs does not honour the attribute on a layer's root.
	OpaqueRoot bool
}

// Unpack reads a plain tar from r to its end and writes it into the folder that root, an open directory, refers to.
// Errors of class errs.Invalid are the tar's fault; those of the system (no space, not permitted) carry the errno.
func Unpack(ctx context.Context, root int, r io.Reader, opt Options) (Result, error) {
	if opt.Limits.Entries == 0 {
		opt.Limits.Entries = defaultEntries
	}
	if opt.Limits.Bytes == 0 {
		opt.Limits.Bytes = defaultBytes
	}
	if opt.Limits.Paths == 0 {
		opt.Limits.Paths = defaultPaths
	}
	u := &unpacker{
		ctx:     ctx,
		opt:     opt,
		tr:      tar.NewReader(r),
		dirs:    newDirCache(root),
		mtimes:  map[string][2]unix.Timespec{},
		implied: map[string]bool{},
		buf:     make([]byte, 128<<10),
	}
	defer u.dirs.close()
	err := u.run()
	if err == nil {
		err = u.finish()
	}
	if err != nil {
		return Result{}, err
	}
	// What follows the end marker belongs to the layer's digest; a reader that hashes must see it.
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{io.LimitReader(r, maxTail+1)}, u.buf)
	if err != nil {
		return Result{}, fmt.Errorf("reading the layer's end: %w", err)
	}
	if n > maxTail {
		return Result{}, errs.New(errs.Invalid, "more than %d bytes follow the end of the layer's tar", maxTail)
	}
	return u.res, nil
}

type unpacker struct {
	ctx     context.Context
	opt     Options
	tr      *tar.Reader
	dirs    *dirCache
	mtimes  map[string][2]unix.Timespec // folders' times by path; set last, since each new entry changes them
	implied map[string]bool
	paths   int64 // bytes of the keys of mtimes and implied
	res     Result
	buf     []byte
}

func (u *unpacker) run() error {
	for {
		hdr, err := u.tr.Next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, tar.ErrInsecurePath): // we look at the path ourselves
		case errors.Is(err, tar.ErrHeader):
			return errs.New(errs.Invalid, "layer's tar, after %d entries: %w", u.res.Entries, err)
		case err != nil:
			return fmt.Errorf("reading the layer's tar, after %d entries: %w", u.res.Entries, err)
		}
		u.res.Entries++
		if u.res.Entries > u.opt.Limits.Entries {
			return errs.New(errs.Invalid, "layer has more than %d entries", u.opt.Limits.Entries)
		}
		if u.res.Entries%64 == 0 && u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		if err := u.entry(hdr); err != nil {
			return fmt.Errorf("unpacking %q: %w", shorten(hdr.Name), err)
		}
	}
}

// shorten keeps an error readable that names a hostile path.
func shorten(s string) string {
	if len(s) > 256 {
		return s[:256] + "…"
	}
	return s
}

// cleanName turns a tar's name into a relative path without "." and "..", "" for the root itself.
func cleanName(name string) (string, error) {
	if !strings.HasPrefix(name, "/") {
		p := path.Clean(name)
		if p == ".." || strings.HasPrefix(p, "../") {
			return "", errs.New(errs.Invalid, "the path leads out of the layer")
		}
	}
	p := strings.TrimPrefix(path.Clean("/"+name), "/")
	if len(p) > maxPath {
		return "", errs.New(errs.Invalid, "the path is longer than %d bytes", maxPath)
	}
	return p, nil
}

func (u *unpacker) entry(hdr *tar.Header) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	p, err := cleanName(hdr.Name)
	if err != nil {
		return err
	}
	if err := checkHeader(hdr); err != nil {
		return err
	}
	if p == "" {
		if hdr.Typeflag != tar.TypeDir {
			return errs.New(errs.Invalid, "the layer's root is not a folder")
		}
		return u.rootEntry(hdr)
	}
	dir, base := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	d, err := u.parent(dir)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(d, dir, base)
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(d, base, hdr)
	case tar.TypeDir:
		return u.folder(d, p, base, hdr)
	case tar.TypeSymlink:
		return u.symlink(d, base, hdr)
	case tar.TypeLink:
		return u.hardlink(d, base, hdr)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return u.node(d, base, hdr)
	}
	return errs.New(errs.Invalid, "entry of unknown type %q", string(hdr.Typeflag))
}

func checkHeader(hdr *tar.Header) error {
	const maxID = 1<<32 - 2 // -1 means "leave as it is" to chown
	if hdr.Uid < 0 || hdr.Uid > maxID || hdr.Gid < 0 || hdr.Gid > maxID {
		return errs.New(errs.Invalid, "owner %d:%d is out of range", hdr.Uid, hdr.Gid)
	}
	if hdr.Size < 0 {
		return errs.New(errs.Invalid, "negative size %d", hdr.Size)
	}
	return nil
}

func (u *unpacker) rootEntry(hdr *tar.Header) error {
	d := u.dirs.root
	if err := unix.Fchownat(d.fd, ".", hdr.Uid, hdr.Gid, 0); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if err := unix.Fchmodat(d.fd, ".", uint32(hdr.Mode)&0o7777, 0); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	d.refresh()
	if err := u.remember("", hdr); err != nil {
		return err
	}
	return setXattrs(d.fd, ".", -1, hdr)
}

// remember keeps a folder's times for the end.
func (u *unpacker) remember(p string, hdr *tar.Header) error {
	u.mtimes[p] = times(hdr)
	return u.count(p)
}

func (u *unpacker) count(p string) error {
	if u.paths += int64(len(p)) + 64; u.paths > u.opt.Limits.Paths {
		return errs.New(errs.Invalid, "the paths of the layer's folders are longer than %d bytes together", u.opt.Limits.Paths)
	}
	return nil
}

// finish sets the folders' times, which creating their contents has changed.
func (u *unpacker) finish() error {
	for p, ts := range u.mtimes {
		if p == "" {
			if err := unix.UtimesNanoAt(u.dirs.root.fd, ".", ts[:], 0); err != nil {
				return fmt.Errorf("setting the time of the layer's root: %w", err)
			}
			continue
		}
		d, err := u.dirs.open(path.Dir("/" + p)[1:])
		if err != nil {
			continue // replaced by something else later in the tar
		}
		var st unix.Stat_t
		base := path.Base(p)
		if unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if err := unix.UtimesNanoAt(d.fd, base, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("setting the time of %q: %w", shorten(p), err)
		}
	}
	for p := range u.implied {
		u.res.Implied = append(u.res.Implied, p)
	}
	slices.Sort(u.res.Implied)
	return nil
}

// times are a header's access and modification time.
func times(hdr *tar.Header) [2]unix.Timespec {
	a := hdr.AccessTime
	if a.IsZero() {
		a = hdr.ModTime
	}
	return [2]unix.Timespec{timespec(a), timespec(hdr.ModTime)}
}

func timespec(t time.Time) unix.Timespec {
	// The kernel clamps to what the file system can hold; the nanoseconds must be in range.
	var ts unix.Timespec
	ts.Sec, ts.Nsec = t.Unix(), int64(t.Nanosecond())
	return ts
}
