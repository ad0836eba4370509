package layer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"skiff/internal/errs"
	"skiff/layer/unpack"
)

// flight is one layer on its way: transferred, verified, inflated, verified again and unpacked in one pass. All pulls that
// want the same blob at the same time share it.
type flight struct {
	s      *Store
	src    Source
	hold   *Hold // keeps the results until the last waiter has taken its own hold
	cancel context.CancelCauseFunc
	done   chan struct{}

	// results, valid after done
	diff *diff
	err  error

	mu    sync.Mutex
	users int // guarded by s.mu
	subs  map[*waiter]struct{}
	last  *report
}

type waiter struct{ progress Progress }

type report struct {
	stage          Stage
	current, total int64
}

// join takes part in the flight of src, or begins it.
func (s *Store) join(ctx context.Context, src Source, w *waiter) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flights[src.Blob]
	if f != nil && (f.src.DiffID == src.DiffID || src.DiffID == "") {
		f.users++
		f.add(w)
		return f
	}
	// What others wait for must not end with the first one's request.
	fctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	f = &flight{s: s, src: src, hold: s.Hold(), cancel: cancel, done: make(chan struct{}), users: 1, subs: map[*waiter]struct{}{}}
	f.add(w)
	s.flights[src.Blob] = f
	go f.run(fctx)
	return f
}

// leave ends a waiter's part; the flight of nobody is cancelled.
func (f *flight) leave(w *waiter) {
	f.mu.Lock()
	delete(f.subs, w)
	f.mu.Unlock()
	f.s.mu.Lock()
	f.users--
	last := f.users == 0
	if last && f.s.flights[f.src.Blob] == f {
		delete(f.s.flights, f.src.Blob)
	}
	f.s.mu.Unlock()
	if last {
		f.cancel(context.Canceled)
		<-f.done // its temporary files are gone when the pull returns
		f.hold.Release()
	}
}

func (f *flight) add(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[w] = struct{}{}
	if f.last != nil && w.progress != nil {
		w.progress(f.src.Blob, f.last.stage, f.last.current, f.last.total)
	}
}

func (f *flight) report(stage Stage, current, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = &report{stage, current, total}
	for w := range f.subs {
		if w.progress != nil {
			w.progress(f.src.Blob, stage, current, total)
		}
	}
}

func (f *flight) run(ctx context.Context) {
	defer close(f.done)
	f.diff, f.err = f.fly(ctx)
	f.s.mu.Lock() // a later pull begins anew
	if f.s.flights[f.src.Blob] == f {
		delete(f.s.flights, f.src.Blob)
	}
	f.s.mu.Unlock()
}

// ready looks for the unpacked layer, and holds it.
func (h *Hold) ready(id digest.Digest) *diff {
	if id == "" {
		return nil
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	d := h.s.diffs[id.Encoded()]
	if d != nil {
		h.keep(heldDiff(d.name))
	}
	return d
}

func (f *flight) fly(ctx context.Context) (*diff, error) {
	d := f.hold.ready(f.src.DiffID)
	have := f.hold.Keep(f.src.Blob)
	if d != nil && have {
		f.report(StageExists, 0, 0)
		return d, nil
	}
	var t *tempBlob
	var in *tail
	if have {
		b, err := f.s.Blob(f.src.Blob)
		if err != nil {
			return nil, err
		}
		defer b.Close()
		n, _ := f.s.HasBlob(f.src.Blob)
		in = newTail(b)
		in.grow(n)
		in.end(nil)
		f.report(StageDownloaded, 0, 0)
	} else {
		var err error
		if t, err = f.s.newTempBlob(); err != nil {
			return nil, spaceErr(err)
		}
		defer t.discard()
		in = newTail(t.f)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var fetchErr error
	var wg sync.WaitGroup
	defer wg.Wait()
	if t != nil {
		wg.Go(func() {
			fetchErr = f.fetch(ctx, t, in)
			in.end(fetchErr)
			if fetchErr != nil {
				cancel(fetchErr)
			}
		})
	}
	var u *unpacked
	if d == nil {
		var err error
		u, err = f.unpack(ctx, in)
		if err != nil {
			cancel(err)
			wg.Wait()
			if fetchErr != nil {
				return nil, fetchErr // the cause; the other is its consequence
			}
			return nil, spaceErr(err)
		}
		defer u.discard()
	}
	wg.Wait()
	if fetchErr != nil {
		return nil, fetchErr
	}
	return f.commit(t, u, d)
}

// fetch transfers the blob into t and verifies it.
func (f *flight) fetch(ctx context.Context, t *tempBlob, in *tail) error {
	if !f.s.fetches.TryAcquire(1) {
		f.report(StageWaiting, 0, 0)
		if err := f.s.fetches.Acquire(ctx, 1); err != nil {
			return context.Cause(ctx)
		}
	}
	defer f.s.fetches.Release(1)
	body, err := f.src.Open(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	stop := context.AfterFunc(ctx, func() { body.Close() })
	defer stop()
	f.report(StageDownloading, 0, max(f.src.Size, 0))
	tick := throttle{}
	err = t.fill(ctx, body, f.src.Size, func(n int64) {
		in.grow(n)
		if tick.due() {
			f.report(StageDownloading, n, max(f.src.Size, 0))
		}
	})
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w", f.src.Blob, err)
	}
	f.report(StageVerifying, 0, 0)
	if err := t.verify(f.src.Blob, f.src.Size); err != nil {
		return err
	}
	f.report(StageDownloaded, 0, 0)
	return nil
}

// throttle limits how often progress is told.
type throttle struct{ last time.Time }

func (t *throttle) due() bool {
	now := time.Now()
	if now.Sub(t.last) < 100*time.Millisecond {
		return false
	}
	t.last = now
	return true
}

// unpacked is a layer in the temporary folder.
type unpacked struct {
	dir  string // "" once it is in place
	meta diffMeta
}

func (u *unpacked) discard() {
	if u != nil && u.dir != "" {
		os.RemoveAll(u.dir)
	}
}

func (f *flight) unpack(ctx context.Context, in *tail) (_ *unpacked, err error) {
	if err := f.s.unpacks.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	defer f.s.unpacks.Release(1)
	dir, err := os.MkdirTemp(f.s.path("tmp"), "layer-")
	if err != nil {
		return nil, err
	}
	u := &unpacked{dir: dir}
	defer func() {
		if err != nil {
			u.discard()
		}
	}()
	if err := os.Mkdir(filepath.Join(dir, "fs"), 0o755); err != nil {
		return nil, err
	}
	root, err := os.Open(filepath.Join(dir, "fs"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := root.Chmod(0o755); err != nil {
		return nil, err
	}
	tick := throttle{last: time.Now()}
	in.read = func(n int64) {
		f.mu.Lock()
		downloading := f.last == nil || f.last.stage != StageDownloaded && f.last.stage != StageExtracting
		f.mu.Unlock()
		if !downloading && tick.due() {
			f.report(StageExtracting, n, max(f.src.Size, 0))
		}
	}
	// The decoder is made and closed where it is used: closing it under a running Read would not do.
	id, res, err := inflateAndUnpack(ctx, int(root.Fd()), in, f.s.opt.Limits)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", f.src.Blob, err)
	}
	if f.src.DiffID != "" && id != f.src.DiffID {
		return nil, errs.New(errs.Invalid, "layer %s: its contents have the digest %s, the image's configuration says %s", f.src.Blob, id, f.src.DiffID)
	}
	u.meta = diffMeta{DiffID: id, Size: res.Bytes, Implied: res.Implied, OpaqueRoot: res.OpaqueRoot}
	return u, nil
}

func inflateAndUnpack(ctx context.Context, root int, in io.Reader, limits unpack.Limits) (digest.Digest, unpack.Result, error) {
	plain, err := Decompress(in)
	if err != nil {
		return "", unpack.Result{}, err
	}
	defer plain.Close()
	ahead, stop := readAhead(ctx, plain)
	defer stop()
	hash := digest.SHA256.Digester()
	res, err := unpack.Unpack(ctx, root, io.TeeReader(ahead, hash.Hash()), unpack.Options{Limits: limits})
	if err != nil {
		return "", unpack.Result{}, err
	}
	return hash.Digest(), res, nil
}

// commit puts the results in place, synced. t or u may be nil: it was there already.
func (f *flight) commit(t *tempBlob, u *unpacked, d *diff) (*diff, error) {
	if u != nil {
		b, err := json.Marshal(u.meta)
		if err == nil {
			err = os.WriteFile(filepath.Join(u.dir, "meta.json"), b, 0o644)
		}
		if err != nil {
			return nil, spaceErr(fmt.Errorf("layer %s: %w", f.src.Blob, err))
		}
	}
	if err := f.s.sync.wait(); err != nil {
		return nil, spaceErr(err)
	}
	if t != nil {
		if err := f.hold.place(t); err != nil {
			return nil, err
		}
	}
	if u != nil {
		var err error
		if d, err = f.hold.placeDiff(u, u.meta.DiffID.Encoded()); err != nil {
			return nil, fmt.Errorf("layer %s: %w", f.src.Blob, err)
		}
	}
	f.report(StageDone, 0, 0)
	return d, nil
}

// placeDiff renames a synced layer into the store and holds it; one that is there already is taken instead.
func (h *Hold) placeDiff(u *unpacked, name string) (*diff, error) {
	s := h.s
	s.mu.Lock()
	defer s.mu.Unlock()
	h.keep(heldDiff(name))
	if d := s.diffs[name]; d != nil {
		return d, nil
	}
	if err := os.Rename(u.dir, s.path("diff", name)); err != nil {
		return nil, err
	}
	u.dir = ""
	d := &diff{name: name, meta: u.meta, fs: s.path("diff", name, "fs")}
	s.diffs[name] = d
	return d, nil
}
