package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

func apply(t testing.TB, s *Store, srcs ...Source) Chain {
	t.Helper()
	h := s.Hold()
	defer h.Release()
	c, err := h.Apply(t.Context(), srcs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestApplyPrepareMount(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root, Options{})
	one := makeTar(t, folder("./", 0o755), folder("etc/", 0o755), file("etc/passwd", "root"), file("etc/gone", "x"),
		folder("opt/", 0o700), file("opt/old", "old"))
	two := makeTar(t, folder("etc/", 0o750), file("etc/.wh.gone", ""), folder("opt/", 0o711), file("opt/.wh..wh..opq", ""), file("opt/new", "new"))
	three := makeTar(t, file("hello", "world"))
	c := apply(t, s, source(one, gz(t, one), nil), source(two, zst(t, two), nil), source(three, three, nil))
	if want := ChainID([]digest.Digest{digest.FromBytes(one), digest.FromBytes(two), digest.FromBytes(three)}); c.ID != want {
		t.Errorf("chain %s, want %s", c.ID, want)
	}
	check := func(s *Store, id string) {
		t.Helper()
		sn, err := s.Prepare(t.Context(), id, c.ID, false)
		if err != nil {
			t.Fatal(err)
		}
		m := mounted(t, s, sn)
		for p, want := range map[string]string{"etc/passwd": "root", "opt/new": "new", "hello": "world"} {
			if b, err := os.ReadFile(filepath.Join(m, p)); string(b) != want {
				t.Errorf("%s: %q, %v", p, b, err)
			}
		}
		for _, p := range []string{"etc/gone", "opt/old"} {
			if _, err := os.Lstat(filepath.Join(m, p)); !isNotExist(err) {
				t.Errorf("%s: %v", p, err)
			}
		}
		if err := os.WriteFile(filepath.Join(m, "mine"), []byte("12345"), 0o644); err != nil {
			t.Error(err)
		}
		if n, err := s.Usage(t.Context(), id); n != 5 || err != nil {
			t.Errorf("usage %d, %v", n, err)
		}
	}
	check(s, "a")
	if l := leftovers(t, s); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, root, Options{})
	defer s.Close()
	sn, err := s.Snapshot(t.Context(), "a")
	if err != nil || len(sn.Lower) != 3 {
		t.Fatalf("%+v, %v", sn, err)
	}
	if b, err := os.ReadFile(filepath.Join(mounted(t, s, sn), "mine")); string(b) != "12345" {
		t.Errorf("%q, %v", b, err)
	}
	check(s, "b")
	if err := s.Discard(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if _, err := s.Snapshot(t.Context(), "a"); !errs.Is(err, errs.NotFound) {
		t.Errorf("after discard: %v", err)
	}
}

func TestVolatileMountsAgain(t *testing.T) {
	s := newStore(t)
	one := makeTar(t, file("a", "b"))
	c := apply(t, s, source(one, one, nil))
	sn, err := s.Prepare(t.Context(), "v", c.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		f, err := s.Mount(t.Context(), sn)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func TestManyLayersBothWays(t *testing.T) {
	var srcs []Source
	for i := range 200 {
		l := makeTar(t, file(fmt.Sprintf("f%d", i), fmt.Sprint(i)), file("top", fmt.Sprint(i)))
		srcs = append(srcs, source(l, l, nil))
	}
	for _, o := range []overlay{{append: true}, {append: false}} {
		s := newStore(t)
		s.overlay = o // nobody reads it before the first layer
		c := apply(t, s, srcs...)
		sn, err := s.Prepare(t.Context(), fmt.Sprint("many", o.append), c.ID, false)
		if err != nil {
			t.Fatal(err)
		}
		m := mounted(t, s, sn)
		if b, err := os.ReadFile(filepath.Join(m, "top")); string(b) != "199" {
			t.Errorf("append %v: %q, %v", o.append, b, err)
		}
		if es, _ := os.ReadDir(m); len(es) != 201 {
			t.Errorf("append %v: %d entries", o.append, len(es))
		}
	}
}

func TestOddRoots(t *testing.T) {
	for _, dir := range []string{strings.Repeat("long,: ", 30) + "/" + strings.Repeat("x", 200), `a\b, c:d`} {
		oddRoot(t, filepath.Join(t.TempDir(), dir))
	}
}

func oddRoot(t *testing.T, root string) {
	s := openStore(t, root, Options{})
	defer s.Close()
	one := makeTar(t, file("a", "b"))
	c := apply(t, s, source(one, one, nil))
	for _, o := range []overlay{{append: true}, {append: false}} {
		s.overlay = o
		sn, err := s.Prepare(t.Context(), fmt.Sprint("long", o.append), c.ID, false)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(mounted(t, s, sn), "a")); string(b) != "b" {
			t.Errorf("append %v: %q, %v", o.append, b, err)
		}
	}
}

func TestEmptyChain(t *testing.T) {
	s := newStore(t)
	for _, o := range []overlay{{append: true}, {append: false}} {
		s.overlay = o
		sn, err := s.Prepare(t.Context(), fmt.Sprint("e", o.append), "", false)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mounted(t, s, sn), "a"), nil, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// A layer without a header for a folder does not hide the attributes that the folder has below.
func TestImpliedFolders(t *testing.T) {
	s := newStore(t)
	tmp := folder("tmp/", 0o1777)
	tmp.ModTime = time.Unix(1000, 0)
	srv := folder("srv/deep/", 0o2750)
	srv.Uid, srv.Gid = 7, 8
	base := makeTar(t, folder("./", 0o711), tmp, folder("srv/", 0o755), srv)
	other := makeTar(t, folder("tmp/", 0o700))
	hidden := makeTar(t, file(".wh.tmp", ""))
	top := makeTar(t, file("tmp/x", "1"), file("srv/deep/er/y", "2"))
	mode := func(id string, layers ...[]byte) (tmp, deep unix.Stat_t) {
		t.Helper()
		var srcs []Source
		for _, l := range layers {
			srcs = append(srcs, source(l, l, nil))
		}
		sn, err := s.Prepare(t.Context(), id, apply(t, s, srcs...).ID, false)
		if err != nil {
			t.Fatal(err)
		}
		m := mounted(t, s, sn)
		if b, err := os.ReadFile(m + "/tmp/x"); string(b) != "1" {
			t.Errorf("%s: %q, %v", id, b, err)
		}
		if err := errors.Join(unix.Stat(m+"/tmp", &tmp), unix.Stat(m+"/srv/deep", &deep)); err != nil {
			t.Error(err)
		}
		return tmp, deep
	}
	st, deep := mode("a", base, top)
	if st.Mode&0o7777 != 0o1777 || st.Mtim.Sec != 1000 {
		t.Errorf("tmp is %o, %d", st.Mode, st.Mtim.Sec)
	}
	if deep.Mode&0o7777 != 0o2750 || deep.Uid != 7 || deep.Gid != 8 {
		t.Errorf("srv/deep is %o %d:%d", deep.Mode, deep.Uid, deep.Gid)
	}
	if st, _ = mode("b", base, other, top); st.Mode&0o7777 != 0o700 {
		t.Errorf("tmp is %o on the other base", st.Mode)
	}
	if st, _ = mode("c", base, hidden, top); st.Mode&0o7777 != 0o755 {
		t.Errorf("tmp is %o above a whiteout", st.Mode)
	}
}

func TestPullsShareTheWork(t *testing.T) {
	s := newStore(t)
	var opened atomic.Int32
	plain := makeTar(t, file("a", strings.Repeat("0123456789", 100000)))
	blob := gz(t, plain)
	src := source(plain, blob, &opened)
	release := make(chan struct{})
	open := src.Open
	src.Open = func(ctx context.Context) (io.ReadCloser, error) { <-release; return open(ctx) }
	var wg sync.WaitGroup
	var told atomic.Int32
	for range 8 {
		wg.Go(func() {
			h := s.Hold()
			defer h.Release()
			_, err := h.Apply(t.Context(), []Source{src}, func(_ digest.Digest, st Stage, _, _ int64) {
				if st == StageDone {
					told.Add(1)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	for {
		s.mu.Lock()
		f := s.flights[src.Blob]
		n := 0
		if f != nil {
			n = f.users
		}
		s.mu.Unlock()
		if n == 8 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if opened.Load() != 1 || told.Load() != 8 {
		t.Errorf("opened %d times, told %d", opened.Load(), told.Load())
	}
}

// One of two pulls gives up: the other goes on; both give up: the transfer ends.
func TestCancel(t *testing.T) {
	s := newStore(t)
	plain := makeTar(t, file("a", "b"))
	src := source(plain, plain, nil)
	r, w := io.Pipe()
	src.Open = func(context.Context) (io.ReadCloser, error) { return r, nil }
	ctx1, cancel1 := context.WithCancel(t.Context())
	ctx2, cancel2 := context.WithCancel(t.Context())
	defer cancel2()
	run := func(ctx context.Context) chan error {
		ch := make(chan error, 1)
		go func() {
			h := s.Hold()
			defer h.Release()
			_, err := h.Apply(ctx, []Source{src}, nil)
			ch <- err
		}()
		return ch
	}
	e1 := run(ctx1)
	w.Write(plain[:100])
	e2 := run(ctx2)
	time.Sleep(20 * time.Millisecond)
	cancel1()
	if err := <-e1; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.Write(plain[100:200])
	cancel2()
	if err := <-e2; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if l := leftovers(t, s); len(l) > 0 {
		t.Errorf("left behind: %v", l)
	}
	if len(s.held) != 0 || len(s.flights) != 0 {
		t.Errorf("held %v, flights %v", s.held, s.flights)
	}
}

func TestBadTransfers(t *testing.T) {
	plain := makeTar(t, file("a", strings.Repeat("b", 100000)))
	blob := gz(t, plain)
	boom := errors.New("boom")
	with := func(f func(*Source)) Source {
		s := source(plain, blob, nil)
		f(&s)
		return s
	}
	body := func(b []byte, end error) func(context.Context) (io.ReadCloser, error) {
		return func(context.Context) (io.ReadCloser, error) {
			r := io.Reader(bytes.NewReader(b))
			if end != nil {
				r = io.MultiReader(r, errReader{end})
			}
			return io.NopCloser(r), nil
		}
	}
	bad := bytes.Clone(blob)
	bad[len(bad)-12] ^= 0xff
	cut := gz(t, plain)[:len(blob)-20]
	for name, c := range map[string]struct {
		src  Source
		want string
	}{
		"open fails":     {with(func(s *Source) { s.Open = func(context.Context) (io.ReadCloser, error) { return nil, boom } }), "boom"},
		"stream fails":   {with(func(s *Source) { s.Open = body(blob[:50], boom) }), "boom"},
		"too short":      {with(func(s *Source) { s.Open = body(blob[:50], nil) }), "has 50 bytes"},
		"too long":       {with(func(s *Source) { s.Open = body(append(bytes.Clone(blob), 0), nil) }), "more than"},
		"other bytes":    {with(func(s *Source) { s.Open = body(bad, nil) }), "verification failed"},
		"other contents": {with(func(s *Source) { s.DiffID = digest.FromString("x") }), "its contents have the digest"},
		"cut gzip":       {Source{Blob: digest.FromBytes(cut), DiffID: digest.FromBytes(plain), Size: -1, Open: body(cut, nil)}, "unexpected EOF"},
		"no tar":         {Source{Blob: digest.FromString("hello"), Size: -1, Open: body([]byte("hello"), nil)}, "tar"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			h := s.Hold()
			_, err := h.Apply(t.Context(), []Source{c.src}, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			h.Release()
			if l := leftovers(t, s); len(l) > 0 || len(s.diffs) > 0 || len(s.blobs) > 0 && name != "no tar" && name != "cut gzip" {
				t.Errorf("left behind: %v %v %v", l, s.diffs, s.blobs)
			}
		})
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestCollect(t *testing.T) {
	s := newStore(t)
	a, b, c := makeTar(t, file("a", "1")), makeTar(t, file("b", "22")), makeTar(t, file("c", "333"))
	ab := apply(t, s, source(a, a, nil), source(b, b, nil))
	ac := apply(t, s, source(a, a, nil), source(c, c, nil))
	if _, err := s.Prepare(t.Context(), "x", ab.ID, false); err != nil {
		t.Fatal(err)
	}
	// ab has a snapshot, ac nothing
	h := s.Hold()
	h.KeepChain(ac.ID)
	if f, err := s.Collect(t.Context(), Live{}); err != nil || len(f.Chains) != 0 || len(f.Blobs) != 3 {
		t.Errorf("%+v, %v", f, err)
	}
	h.Release()
	f, err := s.Collect(t.Context(), Live{})
	if err != nil || len(f.Chains) != 1 || f.Chains[0] != ac.ID || f.Bytes != 3 {
		t.Errorf("%+v, %v", f, err)
	}
	if len(s.diffs) != 2 {
		t.Errorf("%d layers", len(s.diffs))
	}
	if err := s.Discard(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(t.Context(), Live{}); err != nil || len(s.diffs) != 0 || len(s.chains) != 0 {
		t.Errorf("%v %v %v", err, s.diffs, s.chains)
	}
}

func TestOpenClearsAway(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root, Options{})
	if _, err := Open(t.Context(), root, Options{Logger: quiet()}); !errs.Is(err, errs.Conflict) {
		t.Errorf("opened twice: %v", err)
	}
	for _, d := range []string{"tmp/layer-1/fs/x", "trash/1/y", "rw/7/fs", "snapshot/half", "diff/half/fs"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = openStore(t, root, Options{})
	defer s.Close()
	for range 200 {
		if es, _ := os.ReadDir(s.path("trash")); len(es) == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, d := range []string{"tmp", "trash", "snapshot", "rw", "diff"} {
		if es, _ := os.ReadDir(s.path(d)); len(es) != 0 {
			t.Errorf("%s has %v", d, es)
		}
	}
}

func TestOverlayOnOverlay(t *testing.T) {
	s := newStore(t)
	sn, err := s.Prepare(t.Context(), "x", "", false)
	if err != nil {
		t.Fatal(err)
	}
	m := mounted(t, s, sn)
	if _, err := Open(t.Context(), m, Options{Logger: quiet()}); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "itself on overlayfs") {
		t.Error(err)
	}
}

func TestPrepareIsIdempotent(t *testing.T) {
	s := newStore(t)
	if _, err := s.Prepare(t.Context(), "x", digest.FromString("?"), false); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	a, err := s.Prepare(t.Context(), "x", "", false)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.Prepare(t.Context(), "x", "", false); err != nil || b.Upper != a.Upper {
		t.Error(err)
	}
	if _, err := s.Prepare(t.Context(), "x", "", true); !errs.Is(err, errs.Conflict) {
		t.Error(err)
	}
	for _, id := range []string{"", ".", "..", "a/b", "a\x00"} {
		if _, err := s.Prepare(t.Context(), id, "", true); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// BenchmarkPrepareMount: "spare" is a container after a pause, as people start them; "bare" is one of many at once.
func BenchmarkPrepareMount(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		for _, kind := range []string{"spare", "bare"} {
			b.Run(fmt.Sprint(n, kind), func(b *testing.B) { benchPrepareMount(b, n, kind == "spare") })
		}
	}
}

func benchPrepareMount(b *testing.B, n int, spare bool) {
	s := newStore(b)
	if !spare {
		s.spares.stop()
	}
	var srcs []Source
	for i := range n {
		l := makeTar(b, folder("./", 0o755), folder("d/", 0o755), file(fmt.Sprint("d/", i), "x"))
		srcs = append(srcs, source(l, l, nil))
	}
	c := apply(b, s, srcs...)
	var laps [][2]time.Duration
	for i := 0; b.Loop(); i++ {
		t0 := time.Now()
		sn, err := s.Prepare(b.Context(), fmt.Sprint("c", i), c.ID, true)
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		f, err := s.Mount(b.Context(), sn)
		if err != nil {
			b.Fatal(err)
		}
		laps = append(laps, [2]time.Duration{t1.Sub(t0), time.Since(t1)})
		b.StopTimer()
		f.Close()
		if err := s.Discard(b.Context(), sn.ID); err != nil {
			b.Fatal(err)
		}
		time.Sleep(25 * time.Millisecond)
		b.StartTimer()
	}
	for k, what := range []string{"prepare", "mount"} {
		slices.SortFunc(laps, func(x, y [2]time.Duration) int { return int(x[k] - y[k]) })
		b.ReportMetric(float64(laps[len(laps)/2][k].Nanoseconds())/1000, what+"-median-µs")
	}
}
