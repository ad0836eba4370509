package layer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A layer's tar may hold "tmp/x" without a header for "tmp". Unpacked by itself, the folder tmp gets default attributes,
// and being above, they would hide those of the layer below (1777). How such a folder looks depends on the chain, but
// unpacked layers do not. So a chain gets a frame: a further, thin layer just above, that holds these folders alone, with
// the attributes of the layers below. overlayfs takes a merged folder's attributes from its topmost layer.

// rootAttr are the attributes of a layer's root, which a snapshot's upper folder must copy.
type rootAttr struct {
	mode     uint32 // st_mode & 07777
	uid, gid int
}

func readRootAttr(dir string) (rootAttr, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return rootAttr{}, fmt.Errorf("reading the attributes of %s: %w", dir, err)
	}
	return rootAttr{st.Mode & 0o7777, int(st.Uid), int(st.Gid)}, nil
}

// folderAttr is a folder in some layer.
type folderAttr struct {
	src string // absolute path
	st  unix.Stat_t
}

// frame makes, or finds, the frame above the topmost of stack; nil if none is needed.
func (h *Hold) frame(id digest.Digest, stack []*diff) (*diff, error) {
	top := stack[len(stack)-1]
	if len(top.meta.Implied) == 0 || len(stack) == 1 {
		return nil, nil
	}
	name := top.name + "." + id.Encoded()[:32]
	h.s.mu.Lock()
	d := h.s.diffs[name]
	if d != nil {
		h.keep(heldDiff(name))
	}
	h.s.mu.Unlock()
	if d != nil {
		return d, nil
	}
	want := map[string]folderAttr{}
	for _, p := range top.meta.Implied {
		a, ok, err := lookBelow(p, stack)
		if err != nil {
			return nil, err
		}
		if ok && !plain(a) {
			want[p] = a
		}
	}
	if len(want) == 0 {
		return nil, nil
	}
	dir, err := os.MkdirTemp(h.s.path("tmp"), "frame-")
	if err != nil {
		return nil, err
	}
	u := &unpacked{dir: dir}
	defer u.discard()
	if err := buildFrame(filepath.Join(dir, "fs"), want, top); err != nil {
		return nil, err
	}
	b, err := json.Marshal(u.meta)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "meta.json"), b, 0o644)
	}
	if err != nil {
		return nil, err
	}
	if err := h.s.sync.wait(); err != nil {
		return nil, err
	}
	return h.placeDiff(u, name)
}

// plain tells whether a folder looks as unpack makes an implied one anyway.
func plain(a folderAttr) bool {
	if a.st.Mode&0o7777 != 0o755 || a.st.Uid != 0 || a.st.Gid != 0 {
		return false
	}
	names, err := listXattrs(a.src)
	return err == nil && len(names) == 0
}

// lookBelow finds the folder p as the layers below the topmost of stack show it. false: they don't have it.
func lookBelow(p string, stack []*diff) (folderAttr, bool, error) {
	parts := strings.Split(p, "/")
	for i := len(stack) - 1; i >= 0; i-- {
		st, found, hidden, err := lookIn(stack[i].fs, parts)
		if err != nil {
			return folderAttr{}, false, err
		}
		if found && i < len(stack)-1 {
			return folderAttr{filepath.Join(stack[i].fs, p), st}, true, nil
		}
		if hidden || stack[i].meta.OpaqueRoot {
			return folderAttr{}, false, nil
		}
	}
	return folderAttr{}, false, nil
}

// lookIn walks one layer. hidden: this layer hides what those below have at the path.
func lookIn(fs string, parts []string) (st unix.Stat_t, found, hidden bool, err error) {
	p := fs
	for _, part := range parts {
		p += "/" + part
		switch err := unix.Lstat(p, &st); {
		case err == unix.ENOENT:
			return st, false, hidden, nil
		case err != nil:
			return st, false, false, fmt.Errorf("looking at %s: %w", p, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return st, false, true, nil // a whiteout, a file, a link
		}
		var v [1]byte
		if n, err := unix.Lgetxattr(p, "trusted.overlay.opaque", v[:]); err == nil && n == 1 && v[0] == 'y' {
			hidden = true
		}
	}
	return st, true, hidden, nil
}

// buildFrame makes the wanted folders, and those on the way to them as the layer itself has them.
func buildFrame(fs string, want map[string]folderAttr, top *diff) error {
	root, err := readRootAttr(top.fs)
	if err != nil {
		return err
	}
	if err := os.Mkdir(fs, 0o755); err != nil {
		return err
	}
	if err := root.set(fs); err != nil {
		return err
	}
	made := map[string]folderAttr{}
	var add func(p string) error
	add = func(p string) error {
		if _, ok := made[p]; ok || p == "." {
			return nil
		}
		if err := add(path.Dir(p)); err != nil {
			return err
		}
		a, ok := want[p]
		if !ok {
			a.src = filepath.Join(top.fs, p)
			if err := unix.Lstat(a.src, &a.st); err != nil {
				return fmt.Errorf("looking at %s: %w", a.src, err)
			}
		}
		made[p] = a
		return copyFolder(filepath.Join(fs, p), a)
	}
	for p := range want {
		if err := add(p); err != nil {
			return err
		}
	}
	for p, a := range made { // last: making their contents changed the times
		ts := []unix.Timespec{a.st.Atim, a.st.Mtim}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(fs, p), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return nil
}

func (a rootAttr) set(dir string) error {
	if a.uid != 0 || a.gid != 0 {
		if err := os.Chown(dir, a.uid, a.gid); err != nil {
			return err
		}
	}
	return unix.Chmod(dir, a.mode)
}

func copyFolder(dst string, a folderAttr) error {
	if err := os.Mkdir(dst, 0o700); err != nil {
		return err
	}
	if err := (rootAttr{a.st.Mode & 0o7777, int(a.st.Uid), int(a.st.Gid)}).set(dst); err != nil {
		return err
	}
	names, err := listXattrs(a.src)
	if err != nil {
		return err
	}
	for _, n := range names {
		buf := make([]byte, 64<<10)
		k, err := unix.Lgetxattr(a.src, n, buf)
		if err == nil {
			err = unix.Lsetxattr(dst, n, buf[:k], 0)
		}
		if err != nil {
			return fmt.Errorf("copying the attribute %s of %s: %w", n, a.src, err)
		}
	}
	return nil
}

// listXattrs names a folder's attributes without those of overlayfs.
func listXattrs(p string) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the attributes of %s: %w", p, err)
	}
	var names []string
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name != "" && !strings.HasPrefix(name, "trusted.overlay.") {
			names = append(names, name)
		}
	}
	return names, nil
}
