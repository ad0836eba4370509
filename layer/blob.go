package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// HasBlob tells whether a blob is there, and its size in bytes.
func (s *Store) HasBlob(d digest.Digest) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.blobs[d]
	return n, ok
}

// Blob opens a blob for reading; class errs.NotFound if it is not there. Its bytes were verified when it came.
func (s *Store) Blob(d digest.Digest) (*os.File, error) {
	if err := validDigest(d); err != nil {
		return nil, err
	}
	f, err := os.Open(s.blobPath(d))
	if isNotExist(err) {
		return nil, errs.New(errs.NotFound, "blob %s is not in the store", d)
	}
	return f, err
}

// ReadBlob reads a small blob of at most limit bytes, and verifies it again: what is parsed is what was named.
func (s *Store) ReadBlob(d digest.Digest, limit int64) ([]byte, error) {
	f, err := s.Blob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading blob %s: %w", d, err)
	}
	if int64(len(b)) > limit {
		return nil, errs.New(errs.Invalid, "blob %s is larger than %d bytes", d, limit)
	}
	if digest.FromBytes(b) != d {
		return nil, fmt.Errorf("blob %s is damaged on disk", d)
	}
	return b, nil
}

// Put stores small blobs, durably when it returns, with one sync for all.
func (h *Hold) Put(ctx context.Context, blobs ...[]byte) ([]digest.Digest, error) {
	var pending []*tempBlob
	defer func() {
		for _, t := range pending {
			t.discard()
		}
	}()
	ds := make([]digest.Digest, 0, len(blobs))
	for _, b := range blobs {
		d := digest.FromBytes(b)
		ds = append(ds, d)
		if h.Keep(d) || slices.Contains(ds[:len(ds)-1], d) {
			continue
		}
		t, err := h.s.newTempBlob()
		if err == nil {
			pending = append(pending, t)
			_, err = io.Copy(t, bytes.NewReader(b))
		}
		if err != nil {
			return nil, spaceErr(fmt.Errorf("storing blob %s: %w", d, err))
		}
	}
	if len(pending) == 0 {
		return ds, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return ds, h.commit(pending...)
}

// Staged is a temporary blob that was read to its end and hashed, but is not in the store yet.
type Staged struct {
	Digest digest.Digest
	Size   int64 // bytes
	t      *tempBlob
}

// Discard gives a staged blob up, unless it was committed.
func (b *Staged) Discard() { b.t.discard() }

// Bytes reads a small staged blob back, before Commit.
func (b *Staged) Bytes(limit int64) ([]byte, error) {
	if b.Size > limit {
		return nil, errs.New(errs.Invalid, "blob %s is larger than %d bytes", b.Digest, limit)
	}
	return os.ReadFile(b.t.path)
}

// Open opens the staged bytes for reading.
func (b *Staged) Open() (*os.File, error) { return os.Open(b.t.path) }

// Stage reads a blob of unknown digest.
func (h *Hold) Stage(ctx context.Context, r io.Reader) (*Staged, error) {
	t, err := h.s.newTempBlob()
	if err != nil {
		return nil, spaceErr(fmt.Errorf("storing a blob: %w", err))
	}
	if err := t.fill(ctx, r, -1, nil); err != nil {
		t.discard()
		return nil, err
	}
	if err := t.f.Close(); err != nil { // there may be many
		t.discard()
		return nil, spaceErr(err)
	}
	return &Staged{t.digest(), t.n, t}, nil
}

// Commit puts staged blobs into the store, durably, with one sync for all.
func (h *Hold) Commit(blobs ...*Staged) error {
	var pending []*tempBlob
	seen := map[digest.Digest]bool{} // images share layers
	for _, b := range blobs {
		if !seen[b.Digest] && !h.Keep(b.Digest) {
			pending = append(pending, b.t)
		}
		seen[b.Digest] = true
	}
	if len(pending) == 0 {
		return nil
	}
	return h.commit(pending...)
}

// commit puts written and verified blobs in place.
func (h *Hold) commit(blobs ...*tempBlob) error {
	if err := h.s.sync.wait(); err != nil {
		return spaceErr(err)
	}
	for _, t := range blobs {
		if err := h.place(t); err != nil {
			return err
		}
	}
	return h.s.syncBlobDir()
}

// place renames a synced blob into the store and holds it.
func (h *Hold) place(t *tempBlob) error {
	d := t.digest()
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if err := os.Rename(t.path, h.s.blobPath(d)); err != nil {
		return fmt.Errorf("storing blob %s: %w", d, err)
	}
	t.path = ""
	h.s.blobs[d] = t.n
	h.keep(heldBlob(d))
	return nil
}

func (s *Store) syncBlobDir() error { return syncDir(s.root + "/blobs/sha256") }

// tempBlob is a blob on its way in: what is written is hashed.
type tempBlob struct {
	f    *os.File
	path string // "" once it is in place
	hash digest.Digester
	n    int64
}

func (s *Store) newTempBlob() (*tempBlob, error) {
	f, err := os.CreateTemp(s.path("tmp"), "blob-")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return nil, err
	}
	return &tempBlob{f: f, path: f.Name(), hash: digest.SHA256.Digester()}, nil
}

func (t *tempBlob) Write(b []byte) (int, error) {
	n, err := t.f.Write(b)
	t.hash.Hash().Write(b[:n])
	t.n += int64(n)
	return n, err
}

func (t *tempBlob) digest() digest.Digest { return t.hash.Digest() }

// fill copies r to the end, or to more bytes than size. wrote, if not nil, is told how many bytes there are after each write.
func (t *tempBlob) fill(ctx context.Context, r io.Reader, size int64, wrote func(int64)) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if size >= 0 && t.n+int64(n) > size {
				return errs.New(errs.Invalid, "more than the %d bytes that were announced", size)
			}
			if _, werr := t.Write(buf[:n]); werr != nil {
				return spaceErr(fmt.Errorf("writing: %w", werr))
			}
			if wrote != nil {
				wrote(t.n)
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tempBlob) verify(want digest.Digest, size int64) error {
	if size >= 0 && t.n != size {
		return errs.New(errs.Invalid, "blob %s has %d bytes, not the %d that were announced", want, t.n, size)
	}
	if got := t.digest(); want != "" && got != want {
		return errs.New(errs.Invalid, "blob verification failed: expected digest %s, got %s", want, got)
	}
	return nil
}

func (t *tempBlob) discard() {
	t.f.Close()
	if t.path != "" {
		os.Remove(t.path)
	}
}

// Collect deletes chains, layers and blobs that are neither in live, nor below a snapshot, nor held.
func (s *Store) Collect(ctx context.Context, live Live) (Freed, error) {
	var freed Freed
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[digest.Digest]bool{}
	for _, sn := range s.snaps {
		used[sn.Chain] = true
	}
	needed := map[string]bool{}
	for id, c := range s.chains {
		if live.Chains[id] || used[id] || s.held[heldChain(id)] > 0 {
			for _, d := range c.stack {
				needed[d.name] = true
			}
			continue
		}
		if err := os.Remove(s.path("chain", id.Encoded())); err != nil && !isNotExist(err) {
			return freed, fmt.Errorf("removing chain %s: %w", id, err)
		}
		delete(s.chains, id)
		s.spares.drop(id)
		freed.Chains = append(freed.Chains, id)
	}
	var failed []error
	for name, d := range s.diffs {
		if needed[name] || s.held[heldDiff(name)] > 0 {
			continue
		}
		if err := s.trash.take(s.path("diff", name)); err != nil {
			failed = append(failed, err)
			continue
		}
		delete(s.diffs, name)
		freed.Bytes += d.meta.Size
	}
	for d, n := range s.blobs {
		if live.Blobs[d] || s.held[heldBlob(d)] > 0 {
			continue
		}
		if err := unix.Unlink(s.blobPath(d)); err != nil && err != unix.ENOENT {
			failed = append(failed, fmt.Errorf("removing blob %s: %w", d, err))
			continue
		}
		delete(s.blobs, d)
		freed.Blobs = append(freed.Blobs, d)
		freed.Bytes += n
	}
	return freed, errors.Join(failed...)
}
