package layer

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// crashLayers are the layers that the killed process works on.
func crashLayers(t testing.TB) []Source {
	var srcs []Source
	for i := range 6 {
		es := []entry{folder("d/", 0o755)}
		for j := range 150 {
			es = append(es, file(fmt.Sprintf("d/%d-%d", i, j), strings.Repeat(fmt.Sprint(i), 1000+j)))
		}
		plain := makeTar(t, es...)
		srcs = append(srcs, source(plain, gz(t, plain), nil))
	}
	return srcs
}

// TestCrashWorker is the process that TestKilledAnywhere kills; alone it does nothing.
func TestCrashWorker(t *testing.T) {
	root := os.Getenv("SKIFF_CRASH_ROOT")
	if root == "" {
		t.Skip("run by TestKilledAnywhere")
	}
	srcs := crashLayers(t)
	s := openStore(t, root, Options{})
	for i := 0; ; i++ {
		h := s.Hold()
		n := 1 + i%len(srcs)
		c, err := h.Apply(t.Context(), srcs[:n], nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prepare(t.Context(), fmt.Sprint("c", i), c.ID, i%2 == 0); err != nil {
			t.Fatal(err)
		}
		h.Release()
		if i%3 == 2 {
			for j := range i {
				if err := s.Discard(t.Context(), fmt.Sprint("c", j)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Collect(t.Context(), Live{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What a process leaves that is killed at any moment is whole, and what is not is cleared away.
func TestKilledAnywhere(t *testing.T) {
	root := t.TempDir()
	for range 12 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashWorker$")
		cmd.Env = append(os.Environ(), "SKIFF_CRASH_ROOT="+root)
		out := &strings.Builder{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(50+rand.IntN(400)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if strings.Contains(out.String(), "FAIL") {
			t.Fatal(out)
		}
		checkWhole(t, root)
	}
}

func checkWhole(t *testing.T, root string) {
	t.Helper()
	s := openStore(t, root, Options{})
	defer s.Close()
	if l := leftovers(t, s); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
	for _, d := range s.diffs {
		es, err := os.ReadDir(filepath.Join(d.fs, "d"))
		if err != nil || len(es) != 150 {
			t.Errorf("layer %s has %d files, %v", d.name, len(es), err)
		}
		n, err := treeSize(t.Context(), d.fs)
		if err != nil || n != d.meta.Size {
			t.Errorf("layer %s has %d bytes, not %d, %v", d.name, n, d.meta.Size, err)
		}
	}
	for d := range s.blobs {
		if _, err := s.ReadBlob(d, 1<<20); err != nil {
			t.Error(err)
		}
	}
	for id, sn := range s.snaps {
		f, err := s.Mount(t.Context(), sn)
		if err != nil {
			t.Errorf("snapshot %s: %v", id, err)
			continue
		}
		f.Close()
	}
}

// A full disk gives one clear error, of class Exhausted, and the room is free again afterwards.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	s := openStore(t, dir, Options{})
	defer s.Close()
	plain := makeTar(t, file("big", strings.Repeat("0123456789abcdef", 1<<18)))
	for name, blob := range map[string][]byte{"unpacking": gz(t, plain), "transfer": plain} {
		h := s.Hold()
		_, err := h.Apply(t.Context(), []Source{source(plain, blob, nil)}, nil)
		h.Release()
		if !errs.Is(err, errs.Exhausted) || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%s: class %v, %v", name, errs.Of(err), err)
		}
		if l := leftovers(t, s); len(l) > 0 || len(s.blobs) != 0 {
			t.Errorf("%s leaves %v, %v", name, l, s.blobs)
		}
	}
	h := s.Hold()
	defer h.Release()
	if _, err := h.Stage(t.Context(), io.LimitReader(zeroReader{}, 4<<20)); !errs.Is(err, errs.Exhausted) {
		t.Error(err)
	}
	small := makeTar(t, file("small", "x"))
	if _, err := h.Apply(t.Context(), []Source{source(small, small, nil)}, nil); err != nil {
		t.Error(err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestSpares(t *testing.T) {
	s := newStore(t)
	one := makeTar(t, file("a", "b"))
	c := apply(t, s, source(one, one, nil))
	k := spareKey{c.ID, true}
	ready := func(want int) *spare {
		t.Helper()
		for range 300 {
			s.mu.Lock()
			l := s.spares.ready[k]
			s.mu.Unlock()
			if len(l) == want && want > 0 {
				return l[len(l)-1]
			}
			if len(l) == want {
				return nil
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("there are not %d spares", want)
		return nil
	}
	if _, err := s.Prepare(t.Context(), "one", c.ID, true); err != nil {
		t.Fatal(err)
	}
	sp := ready(1)
	sn, err := s.Prepare(t.Context(), "two", c.ID, true)
	if err != nil || sn.Upper != sp.sn.Upper || sn.ID != "two" {
		t.Fatalf("%+v, %v", sn, err)
	}
	m := mounted(t, s, sn)
	if err := os.WriteFile(m+"/new", []byte("123"), 0o644); err != nil {
		t.Error(err)
	}
	if n, err := s.Usage(t.Context(), "two"); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := s.Mount(t.Context(), sn); err != nil { // once more, not from the spare
		t.Error(err)
	}
	ready(1)
	for _, id := range []string{"one", "two"} {
		if err := s.Discard(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Collect(t.Context(), Live{}); err != nil {
		t.Error(err)
	}
	ready(0)
	if es, _ := os.ReadDir(s.path("rw")); len(es) != 0 {
		t.Errorf("left behind: %v", es)
	}
}
