package spec

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

func TestResolveUser(t *testing.T) {
	root := testRoot(t)
	for _, c := range []struct {
		name   string
		groups []string
		want   string // uid:gid groups home, or the error
	}{
		{"", nil, "0:0 [0 4] /root"},
		{"root", nil, "0:0 [0 4] /root"},
		{"bob", nil, "1000:1001 [1001 4 100] /home/bob"},
		{"1000", nil, "1000:1001 [1001 4 100] /home/bob"},
		{"bob:users", nil, "1000:100 [100] /home/bob"},
		{"bob:7", []string{"adm", "7", "9"}, "1000:7 [7 4 9] /home/bob"},
		{"4711", nil, "4711:0 [0] /"},
		{"4711:4712", nil, "4711:4712 [4712] /"},
		{"homeless", nil, "1002:1002 [1002] /"},
		{"foo", nil, "unable to find user foo: no matching entries in passwd file"},
		{"bob:foo", nil, "unable to find group foo: no matching entries in group file"},
		{"bob", []string{"foo"}, "unable to find group foo: no matching entries in group file"},
	} {
		a, err := resolveUser(root, c.name, c.groups)
		got := fmt.Sprintf("%d:%d %v %s", a.UID, a.GID, a.AdditionalGids, a.home)
		if err != nil {
			got = err.Error()
			if !errs.Is(err, errs.Invalid) {
				t.Errorf("%q: class of %v", c.name, err)
			}
		}
		if got != c.want {
			t.Errorf("%q %v: %s, want %s", c.name, c.groups, got, c.want)
		}
	}
	if a, err := resolveUser(nil, "5", nil); err != nil || a.UID != 5 {
		t.Errorf("without a root: %+v %v", a, err)
	}
}

// Nothing outside of the root is ever read, whatever the links say.
func TestHostileRoot(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(outside+"/passwd", []byte("evil:x:666:666::/:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		make func(dir string) error
		want string
	}{
		{"absolute link to the outside", func(d string) error { return os.Symlink(outside, d+"/etc") }, "no matching entries"},
		{"climbing link", func(d string) error { return os.Symlink("../../../../../.."+outside, d+"/etc") }, "no matching entries"},
		{"link to the file", func(d string) error {
			return firstErr(os.Mkdir(d+"/etc", 0o755), os.Symlink(outside+"/passwd", d+"/etc/passwd"))
		}, "no matching entries"},
		{"loop", func(d string) error { return os.Symlink("etc", d+"/etc") }, "too many levels"},
		{"magic link", func(d string) error {
			return firstErr(os.Mkdir(d+"/etc", 0o755), os.Symlink("/proc/self/root"+outside+"/passwd", d+"/etc/passwd"))
		}, "no matching entries"},
		{"fifo", func(d string) error {
			return firstErr(os.Mkdir(d+"/etc", 0o755), unix.Mkfifo(d+"/etc/passwd", 0o644))
		}, "not a regular file"},
		{"folder", func(d string) error { return os.MkdirAll(d+"/etc/passwd", 0o755) }, "not a regular file"},
		{"etc is a file", func(d string) error { return os.WriteFile(d+"/etc", nil, 0o644) }, "no matching entries"},
		{"garbage", func(d string) error {
			return firstErr(os.Mkdir(d+"/etc", 0o755), os.WriteFile(d+"/etc/passwd", []byte("evil\n:::\nevil:x:no:1::\n\x00\xff"), 0o644))
		}, "user"},
	} {
		dir := t.TempDir()
		if err := c.make(dir); err != nil {
			t.Fatal(err)
		}
		a, err := resolveUser(open(t, dir), "evil2", nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v %v", c.name, a, err)
		}
		if a, err := resolveUser(open(t, dir), "evil", nil); err == nil && a.UID == 666 {
			t.Errorf("%s: the outside was read", c.name)
		}
	}
	// A link inside is followed inside.
	dir := t.TempDir()
	if err := firstErr(os.Mkdir(dir+"/usr", 0o755), os.WriteFile(dir+"/usr/passwd", []byte("in:x:7:8::/in:\n"), 0o644), os.Symlink("/usr", dir+"/etc")); err != nil {
		t.Fatal(err)
	}
	if a, err := resolveUser(open(t, dir), "in", nil); err != nil || a.UID != 7 {
		t.Errorf("%+v %v", a, err)
	}
}

func firstErr(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

func FuzzResolveUser(f *testing.F) {
	f.Add(testPasswd, testGroup, "bob:users", "adm")
	f.Fuzz(func(t *testing.T, passwd, group, name, extra string) {
		dir := t.TempDir()
		if err := firstErr(os.Mkdir(dir+"/etc", 0o755), os.WriteFile(dir+"/etc/passwd", []byte(passwd), 0o644), os.WriteFile(dir+"/etc/group", []byte(group), 0o644)); err != nil {
			t.Fatal(err)
		}
		a, err := resolveUser(open(t, dir), name, []string{extra})
		if err == nil && len(a.AdditionalGids) == 0 {
			t.Error("the primary group is missing")
		}
	})
}
