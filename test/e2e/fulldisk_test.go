package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skiff/test/kit"
)

// TestFullDisk runs a daemon on a data root of a few megabytes: what doesn't fit is refused with a clear error and leaves nothing,
// what fills the disk can be removed, and a daemon starts on a full one.
func TestFullDisk(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=14m,mode=711"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	d, err := kit.StartDaemon(t.Context(), kit.Options{Mirror: shared.registry.URL(), DataRoot: filepath.Join(root, "data")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of skiffd:\n%s", d.Log())
		}
		if err := d.Destroy(); err != nil {
			t.Error(err)
		}
	})
	c := skiff(d)
	c.ok(t, "pull", "-q", "busybox")
	before := used(t, root)
	c.fails(t, 1, "no space left on device", "pull", "ubuntu")
	if images := c.ok(t, "images", "-q"); strings.Count(images, "\n") > 0 || images == "" {
		t.Errorf("images after a pull that failed: %q", images)
	}
	eventually(t, 5*time.Second, "what was fetched is gone", func() bool { return used(t, root) <= before+64<<10 })

	c.ok(t, "run", "-d", "--name", "small", "busybox", "sleep", "1000")
	r := c.run(t, "", "run", "--name", "filler", "busybox", "sh", "-c", "dd if=/dev/zero of=/fill bs=64k 2>&1 | grep -c 'No space left'")
	if strings.TrimSpace(r.stdout) != "1" {
		t.Errorf("a container fills the disk: %+v", r)
	}
	if got := c.ok(t, "exec", "small", "echo", "still here"); got != "still here" {
		t.Errorf("exec on a full disk: %q", got)
	}
	if err := os.WriteFile(filepath.Join(root, "rest"), make([]byte, 1<<20), 0o600); err == nil {
		t.Log("the disk was not quite full")
	}
	r = c.run(t, "", "run", "--rm", "busybox", "true") // may be refused, with the reason
	if r.code != 0 && !strings.Contains(r.stderr, "no space left on device") {
		t.Errorf("run on a full disk: %+v", r)
	}
	d.Kill()
	if err := d.Start(t.Context()); err != nil {
		t.Fatalf("a daemon on a full disk: %v", err)
	}
	if ps := c.ok(t, "ps", "-a", "--format", "{{.Names}} {{.State}}"); !strings.Contains(ps, "filler exited") {
		t.Errorf("ps: %q", ps)
	}
	_ = os.Remove(filepath.Join(root, "rest"))
	c.ok(t, "rm", "-f", "filler", "small")
	eventually(t, 5*time.Second, "the room is there again", func() bool { return used(t, root) <= before+2<<20 })
	c.ok(t, "run", "--rm", "busybox", "true")
}

// used is how many bytes of a file system are in use.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(fmt.Errorf("statfs %s: %w", dir, err))
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}
