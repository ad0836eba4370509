package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

type ent struct {
	tar.Header
	body string
}

func reg(name, body string) ent {
	return ent{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body}
}

func dir(name string, mode int64) ent {
	return ent{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, ""}
}

func link(kind byte, name, to string) ent {
	return ent{tar.Header{Name: name, Typeflag: kind, Linkname: to, Mode: 0o777}, ""}
}

func build(t testing.TB, es ...ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range es {
		e.Size = int64(len(e.body))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpackIn unpacks below a folder with a neighbour that must stay as it is.
func unpackIn(t testing.TB, in io.Reader, opt Options) (root string, res Result, err error) {
	t.Helper()
	top := t.TempDir()
	root = filepath.Join(top, "root")
	if err := errors.Join(os.Mkdir(root, 0o755), os.WriteFile(filepath.Join(top, "outside"), []byte("safe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, err = Unpack(t.Context(), int(f.Fd()), in, opt)
	var st unix.Stat_t
	if serr := unix.Lstat(filepath.Join(top, "outside"), &st); serr != nil || st.Mode != unix.S_IFREG|0o600 || st.Nlink != 1 || st.Size != 4 {
		t.Errorf("the neighbour was touched: %v %o, %d links", serr, st.Mode, st.Nlink)
	}
	if es, _ := os.ReadDir(top); len(es) != 2 {
		t.Errorf("the parent has %v", es)
	}
	return root, res, err
}

func lstat(t testing.TB, p string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		t.Errorf("%s: %v", p, err)
	}
	return st
}

func TestUnpackAllKinds(t *testing.T) {
	when := time.Unix(1234567890, 123456789)
	suid := reg("bin/su", "#!")
	suid.Mode, suid.Uid, suid.Gid, suid.ModTime = 0o4755, 1000, 2000, when
	suid.Format = tar.FormatPAX
	suid.PAXRecords = map[string]string{
		"SCHILY.xattr.user.note":                 "hello\x00world",
		"SCHILY.xattr.security.capability":       "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.trusted.overlay.redirect":  "/etc",
		"SCHILY.xattr.trusted.overlay.metacopy":  "",
		"SCHILY.xattr.user.overlay.origin":       "x",
		"SCHILY.xattr.trusted.overlay.whiteouts": "y",
	}
	bin := dir("bin", 0o1777)
	bin.ModTime, bin.Uid = when, 5
	null := ent{tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, ""}
	blk := ent{tar.Header{Name: "dev/blk", Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 70000, Mode: 0o660, Gid: 6}, ""}
	pipe := ent{tar.Header{Name: "dev/pipe", Typeflag: tar.TypeFifo, Mode: 0o622}, ""}
	sym := link(tar.TypeSymlink, "bin/sh", "/nowhere/../at all")
	sym.Uid, sym.ModTime = 7, when
	long := strings.Repeat("d/", 60) + strings.Repeat("n", 200)
	sgid := dir("mail", 0o2775)
	sgid.Gid = 8
	rootdir := dir("./", 0o711)
	rootdir.Uid, rootdir.ModTime = 3, when
	root, res, err := unpackIn(t, bytes.NewReader(build(t, rootdir, bin, suid, sym, link(tar.TypeLink, "bin/su2", "bin/su"), link(tar.TypeLink, "lnk", "/bin/sh"),
		null, blk, pipe, reg(long, "deep"), reg("bad\xff\xfename", "1"), sgid, reg("mail/box", "x"), dir("ro", 0o500), reg("ro/f", "y"),
		reg("./a/./b/../c", "c"), reg("/abs", "abs"))), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path     string
		mode     uint32
		uid, gid uint32
	}{
		{"", unix.S_IFDIR | 0o711, 3, 0},
		{"bin", unix.S_IFDIR | 0o1777, 5, 0},
		{"bin/su", unix.S_IFREG | 0o4755, 1000, 2000},
		{"bin/sh", unix.S_IFLNK | 0o777, 7, 0},
		{"lnk", unix.S_IFLNK | 0o777, 7, 0},
		{"dev", unix.S_IFDIR | 0o755, 0, 0},
		{"dev/null", unix.S_IFCHR | 0o666, 0, 0},
		{"dev/blk", unix.S_IFBLK | 0o660, 0, 6},
		{"dev/pipe", unix.S_IFIFO | 0o622, 0, 0},
		{"mail", unix.S_IFDIR | 0o2775, 0, 8},
		{"mail/box", unix.S_IFREG | 0o644, 0, 0},
		{"ro", unix.S_IFDIR | 0o500, 0, 0},
		{"a/c", unix.S_IFREG | 0o644, 0, 0},
		{"abs", unix.S_IFREG | 0o644, 0, 0},
		{"bad\xff\xfename", unix.S_IFREG | 0o644, 0, 0},
		{long, unix.S_IFREG | 0o644, 0, 0},
	} {
		if st := lstat(t, filepath.Join(root, c.path)); st.Mode != c.mode || st.Uid != c.uid || st.Gid != c.gid {
			t.Errorf("%q: %o %d:%d", c.path, st.Mode, st.Uid, st.Gid)
		}
	}
	for _, p := range []string{"", "bin", "bin/su", "bin/sh"} {
		if st := lstat(t, filepath.Join(root, p)); st.Mtim.Sec != when.Unix() {
			t.Errorf("%s has the time %d", p, st.Mtim.Sec)
		}
	}
	if st := lstat(t, root+"/bin/su"); st.Mtim.Nsec != 123456789 || st.Nlink != 2 {
		t.Errorf("nanoseconds %d, links %d", st.Mtim.Nsec, st.Nlink)
	}
	if st := lstat(t, root+"/dev/blk"); unix.Major(st.Rdev) != 259 || unix.Minor(st.Rdev) != 70000 {
		t.Errorf("device %x", st.Rdev)
	}
	buf := make([]byte, 100)
	if n, err := unix.Lgetxattr(root+"/bin/su", "user.note", buf); err != nil || string(buf[:n]) != "hello\x00world" {
		t.Errorf("%q %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Lgetxattr(root+"/bin/su", "security.capability", buf); err != nil || n != 20 {
		t.Errorf("capability: %d %v", n, err)
	}
	if n, _ := unix.Llistxattr(root+"/bin/su", buf); strings.Contains(string(buf[:n]), "overlay") {
		t.Errorf("%q", buf[:n])
	}
	if !slices.Contains(res.Implied, "dev") || slices.Contains(res.Implied, "bin") || res.Entries != 17 {
		t.Errorf("%+v", res)
	}
}

func isWhiteout(t testing.TB, p string) bool {
	st := lstat(t, p)
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func isOpaque(p string) bool {
	var b [1]byte
	n, err := unix.Lgetxattr(p, "trusted.overlay.opaque", b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

func TestWhiteouts(t *testing.T) {
	root, res, err := unpackIn(t, bytes.NewReader(build(t,
		reg("etc/.wh.gone", ""),
		reg("opq/.wh..wh..opq", ""), reg("opq/new", "1"),
		reg(".wh.first", ""), dir("first", 0o755), reg("first/x", ""), // was whited out: opaque
		reg("second/x", ""), reg(".wh.second", ""), // the same in the other order
		reg("file", "new"), reg(".wh.file", ""), // a layer never hides its own
		reg(".wh.file2", ""), reg("file2", "new"),
		reg(".wh..wh.plnk", ""), reg(".wh..wh.aufs", ""), // AUFS's own
	)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !isWhiteout(t, root+"/etc/gone") || !isOpaque(root+"/opq") || !isOpaque(root+"/first") || !isOpaque(root+"/second") || isOpaque(root+"/etc") {
		t.Error("whiteouts or opaque marks are wrong")
	}
	for _, p := range []string{"opq/new", "first/x", "second/x", "file", "file2"} {
		if st := lstat(t, filepath.Join(root, p)); st.Mode&unix.S_IFMT != unix.S_IFREG {
			t.Errorf("%s is %o", p, st.Mode)
		}
	}
	if es, _ := filepath.Glob(root + "/.wh*"); len(es) != 0 || res.OpaqueRoot {
		t.Errorf("%v %v", es, res.OpaqueRoot)
	}
	if _, res, err := unpackIn(t, bytes.NewReader(build(t, reg(".wh..wh..opq", ""))), Options{}); err != nil || !res.OpaqueRoot {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestLastEntryWins(t *testing.T) {
	root, _, err := unpackIn(t, bytes.NewReader(build(t,
		reg("a", "1"), reg("a", "22"),
		reg("d/x", "1"), dir("d", 0o700), // a folder keeps what it has
		dir("gone/deep", 0o755), reg("gone", "now a file"),
		reg("f", "1"), dir("f", 0o711), reg("f/y", "2"),
		link(tar.TypeSymlink, "s", "d"), reg("s/in-d", "1"), dir("s", 0o755), reg("s/in-s", "1"), // a link becomes a folder
		reg("l", "1"), link(tar.TypeLink, "l2", "l"), reg("l2", "other"),
		link(tar.TypeLink, "l", "l"),
	)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"a": "22", "d/x": "1", "gone": "now a file", "f/y": "2", "d/in-d": "1", "s/in-s": "1", "l": "1", "l2": "other"} {
		if b, err := os.ReadFile(filepath.Join(root, p)); string(b) != want {
			t.Errorf("%s: %q, %v", p, b, err)
		}
	}
	if st := lstat(t, root+"/s"); st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Error("s is no folder")
	}
	if _, err := os.Lstat(root + "/s/in-d"); err == nil {
		t.Error("s has what was made through the link")
	}
}

// A folder that only a lower layer has, reached through a link of this layer.
func TestParentThroughLink(t *testing.T) {
	root, res, err := unpackIn(t, bytes.NewReader(build(t, link(tar.TypeSymlink, "var/run", "/run"), reg("var/run/x/y", "1"), link(tar.TypeSymlink, "v", "var"), reg("v/run/z", "2"))), Options{})
	if err != nil || !slices.Equal(res.Implied, []string{"run", "run/x", "var"}) {
		t.Fatalf("%+v, %v", res, err)
	}
	for _, p := range []string{"run/x/y", "run/z"} {
		lstat(t, filepath.Join(root, p))
	}
	if st := lstat(t, root+"/var/run"); st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Error("the link is gone")
	}
}

func TestHostileTars(t *testing.T) {
	deep := "x" + strings.Repeat("/y", 2100)
	neg := reg("f", "")
	neg.Uid = -5
	neg.Format = tar.FormatGNU
	badDev := ent{tar.Header{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1 << 20}, ""}
	badDev.Format = tar.FormatGNU
	for name, c := range map[string]struct {
		es   []ent
		want string // "" : it is taken, and nothing outside is touched
	}{
		"dotdot":              {[]ent{reg("../outside", "x")}, "leads out of the layer"},
		"dotdot inside":       {[]ent{reg("a/../../outside", "x")}, "leads out of the layer"},
		"absolute dotdot":     {[]ent{reg("/../outside", "x")}, ""},
		"absolute link":       {[]ent{link(tar.TypeSymlink, "a", "/"), reg("a/outside", "x")}, ""},
		"link up":             {[]ent{link(tar.TypeSymlink, "a", "../../../.."), reg("a/outside", "x")}, ""},
		"link chain":          {[]ent{link(tar.TypeSymlink, "a", ".."), link(tar.TypeSymlink, "b", "a/.."), link(tar.TypeSymlink, "c", "b/../.."), reg("c/outside", "x")}, ""},
		"link loop":           {[]ent{link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", "a"), reg("a/x", "x")}, "not a folder"},
		"magic link":          {[]ent{link(tar.TypeSymlink, "a", "/proc/self/root"), reg("a/outside", "x")}, ""},
		"dangling parent":     {[]ent{link(tar.TypeSymlink, "a", "nowhere"), reg("a/x", "x")}, ""},
		"file as parent":      {[]ent{reg("a", ""), reg("a/x", "x")}, "not a folder"},
		"hard link out":       {[]ent{link(tar.TypeLink, "a", "../outside")}, "outside of the layer"},
		"hard link abs":       {[]ent{link(tar.TypeLink, "a", "/etc/passwd")}, "not in this layer"},
		"hard link through":   {[]ent{link(tar.TypeSymlink, "up", "../.."), link(tar.TypeLink, "a", "up/outside")}, "not in this layer"},
		"hard link to folder": {[]ent{dir("d", 0o755), link(tar.TypeLink, "a", "d")}, "making a hard link"},
		"hard link to root":   {[]ent{link(tar.TypeLink, "a", ".")}, "outside of the layer"},
		"write via hard link": {[]ent{link(tar.TypeSymlink, "s", "../outside"), link(tar.TypeLink, "h", "s"), reg("h", "x")}, ""},
		"chmod via link":      {[]ent{link(tar.TypeSymlink, "s", "../outside"), dir("s", 0o777)}, ""},
		"whiteout out":        {[]ent{reg(".wh...", "")}, "whiteout of"},
		"whiteout of itself":  {[]ent{reg("a/.wh..", "")}, "whiteout of"},
		"root as file":        {[]ent{reg(".", "x")}, "root is not a folder"},
		"deep":                {[]ent{reg(deep, "x")}, "longer than"},
		"long component":      {[]ent{reg(strings.Repeat("x", 300), "x")}, "name too long"},
		"unknown type":        {[]ent{{tar.Header{Name: "x", Typeflag: 'Z'}, ""}}, "unknown type"},
		"negative owner":      {[]ent{neg}, "out of range"},
		"device numbers":      {[]ent{badDev}, "out of range"},
		"global header":       {[]ent{{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"path": "../outside"}}, ""}, reg("x", "")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := unpackIn(t, bytes.NewReader(build(t, c.es...)), Options{})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	var es []ent
	for i := range 50 {
		es = append(es, reg(fmt.Sprint("f", i), "12345"))
	}
	in := build(t, es...)
	for _, c := range []struct {
		l    Limits
		want string
	}{
		{Limits{Entries: 49}, "more than 49 entries"},
		{Limits{Bytes: 249}, "larger than 249 bytes"},
		{Limits{Entries: 50, Bytes: 250}, ""},
	} {
		_, _, err := unpackIn(t, bytes.NewReader(in), Options{Limits: c.l})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errs.Is(err, errs.Invalid)) {
			t.Errorf("%+v: %v", c.l, err)
		}
	}
	big := ent{tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 1 << 60}, ""}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	big.Format = tar.FormatGNU
	if err := w.WriteHeader(&big.Header); err != nil {
		t.Fatal(err)
	}
	if _, _, err := unpackIn(t, &b, Options{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("a size that lies: %v", err)
	}
	tail := io.MultiReader(bytes.NewReader(in), io.LimitReader(zeroes{}, 65<<20))
	if _, _, err := unpackIn(t, tail, Options{}); err == nil || !strings.Contains(err.Error(), "follow the end") {
		t.Errorf("a long tail: %v", err)
	}
	var deep []ent // each makes a thousand folders
	for i := range 4 {
		deep = append(deep, reg(fmt.Sprint(i, strings.Repeat("/y", 1500), "/f"), ""))
	}
	if _, _, err := unpackIn(t, bytes.NewReader(build(t, deep...)), Options{Limits: Limits{Paths: 3 << 20}}); err == nil || !strings.Contains(err.Error(), "paths of the layer's folders") {
		t.Errorf("very many folders: %v", err)
	}
	if _, _, err := unpackIn(t, bytes.NewReader(in[:len(in)-3000]), Options{}); err == nil {
		t.Error("a cut tar was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, _ := os.Open(t.TempDir())
	defer f.Close()
	for i := range 100 {
		es = append(es, reg(fmt.Sprint("g", i), ""))
	}
	if _, err := Unpack(ctx, int(f.Fd()), bytes.NewReader(build(t, es...)), Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A sparse file in GNU's PAX 1.0 form: the map is in front of the data.
func TestSparse(t *testing.T) {
	data := strings.Repeat("x", 4096)
	m := "2\n1048576\n4096\n8388608\n0\n"
	body := m + strings.Repeat("\x00", 512-len(m)) + data
	e := ent{tar.Header{
		Name: "GNUSparseFile.0/sparse", Typeflag: tar.TypeReg, Mode: 0o644, Format: tar.FormatPAX,
	}, body}
	var raw bytes.Buffer
	rec := func(k, v string) string {
		n := len(k) + len(v) + 3
		n += len(fmt.Sprint(n))
		if s := fmt.Sprintf("%d %s=%s\n", n, k, v); len(s) == n {
			return s
		}
		return fmt.Sprintf("%d %s=%s\n", n+1, k, v)
	}
	pax := rec("GNU.sparse.major", "1") + rec("GNU.sparse.minor", "0") + rec("GNU.sparse.name", "sparse") + rec("GNU.sparse.realsize", "8388608")
	raw.Write(rawHeader("PaxHeaders/x", 'x', int64(len(pax))))
	raw.WriteString(pax)
	raw.Write(make([]byte, (512-len(pax)%512)%512))
	raw.Write(rawHeader(e.Name, '0', int64(len(body))))
	raw.WriteString(body)
	raw.Write(make([]byte, 1024+(512-len(body)%512)%512))
	root, res, err := unpackIn(t, &raw, Options{})
	if err != nil {
		t.Fatal(err)
	}
	st := lstat(t, root+"/sparse")
	if st.Size != 8<<20 || st.Blocks*512 > 64<<10 || res.Bytes != 8<<20 {
		t.Errorf("size %d, on disk %d", st.Size, st.Blocks*512)
	}
	b, err := os.ReadFile(root + "/sparse")
	if err != nil || string(b[1<<20:1<<20+4096]) != data || bytes.Count(b, []byte("x")) != 4096 {
		t.Error("wrong contents", err)
	}
}

func rawHeader(name string, kind byte, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00        ", size, 0))
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func FuzzUnpack(f *testing.F) {
	f.Add(build(f, reg("a/b", "c"), link(tar.TypeSymlink, "s", "../.."), reg("s/x", "y"), link(tar.TypeLink, "h", "a/b")))
	f.Add(build(f, reg(".wh.a", ""), dir("a", 0o777), reg("a/.wh..wh..opq", "")))
	f.Add(build(f, link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", "../outside"), dir("a", 0o777), link(tar.TypeLink, "b", "a")))
	f.Fuzz(func(t *testing.T, in []byte) {
		root, _, err := unpackIn(t, bytes.NewReader(in), Options{Limits: Limits{Bytes: 1 << 20, Entries: 100}})
		if err != nil && errs.Of(err) == errs.Invalid && err.Error() == "" {
			t.Error("no words")
		}
		_ = filepath.WalkDir(root, func(_ string, _ fs.DirEntry, err error) error { return err })
	})
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }
