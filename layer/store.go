package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// Store is an open layer store. All methods may be called from several goroutines.
type Store struct {
	root string // absolute
	log  *slog.Logger
	opt  Options
	lock *os.File
	rfd  *os.File // the root, for syncfs

	fetches, unpacks *semaphore.Weighted
	sync             groupSync
	trash            *trash
	overlay          overlay

	mu      sync.Mutex // guards the maps; held for single renames and unlinks, never while data moves
	blobs   map[digest.Digest]int64
	diffs   map[string]*diff // by folder name
	chains  map[digest.Digest]*chain
	snaps   map[string]Snapshot
	held    map[string]int // keys (heldBlob…) of what holds need
	flights map[digest.Digest]*flight
	mounts  map[string]*os.File // of snapshots whose mount was made in advance and not taken yet
	lastRW  atomic.Uint64       // the last number of a folder in layer/rw
	spares  spares
}

// diff is an unpacked layer; immutable.
type diff struct {
	name string
	meta diffMeta
	fs   string // absolute folder
}

// diffMeta is layer/diff/NAME/meta.json.
type diffMeta struct {
	DiffID digest.Digest `json:"diffID,omitempty"` // "" for a layer of folder attributes alone (see frame.go)
	Size   int64         `json:"size"`             // bytes of its files
	// Implied are folders without a header in the tar; OpaqueRoot: nothing below this layer is seen.
	Implied    []string `json:"implied,omitempty"`
	OpaqueRoot bool     `json:"opaqueRoot,omitempty"`
}

// chain is a stack of diffs; immutable.
type chain struct {
	id    digest.Digest
	stack []*diff  // bottom first, frames included
	lower []string // folders for overlayfs, topmost first
	root  rootAttr
}

// chainFile is layer/chain/HEX.
type chainFile struct {
	Layers []string `json:"layers"` // names of folders in layer/diff, bottom first
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.root, "layer"}, elem...)...)
}

func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.root, "blobs", "sha256", d.Encoded())
}

// Open opens the store in the folder root, makes it if it is not there, and clears away what a killed predecessor left.
// It fails with a clear text if overlayfs can't be used on root's file system, or if another process has the store open.
func Open(ctx context.Context, root string, opt Options) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("opening layer store %s: %w", root, err)
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.Fetches <= 0 {
		opt.Fetches = 6
	}
	if opt.Unpacks <= 0 {
		opt.Unpacks = max(2, runtime.NumCPU())
	}
	s := &Store{
		root: root, log: opt.Logger, opt: opt,
		fetches: semaphore.NewWeighted(int64(opt.Fetches)),
		unpacks: semaphore.NewWeighted(int64(opt.Unpacks)),
		blobs:   map[digest.Digest]int64{},
		diffs:   map[string]*diff{},
		chains:  map[digest.Digest]*chain{},
		snaps:   map[string]Snapshot{},
		held:    map[string]int{},
		flights: map[digest.Digest]*flight{},
		mounts:  map[string]*os.File{},
	}
	s.spares.init(s)
	if err := s.open(ctx); err != nil {
		s.spares.stop()
		if s.trash != nil {
			s.trash.stop()
		}
		s.rfd.Close()
		s.lock.Close()
		return nil, fmt.Errorf("opening layer store %s: %w", root, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	for _, dir := range []string{s.path("diff"), s.path("chain"), s.path(snapshotFolder), s.path(rwFolder), s.path("tmp"), s.path("trash"), filepath.Join(s.root, "blobs", "sha256")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	// The names inside are no secret, but nobody else has business with half-made layers and setuid files in them.
	if err := os.Chmod(s.path(), 0o700); err != nil {
		return err
	}
	var err error
	if s.lock, err = os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if err == unix.EWOULDBLOCK {
			return errs.New(errs.Conflict, "another process has it open")
		}
		return fmt.Errorf("locking it: %w", err)
	}
	if s.rfd, err = os.Open(s.root); err != nil {
		return err
	}
	s.sync.fd = int(s.rfd.Fd())
	if err := s.writeLayoutMarker(); err != nil {
		return err
	}
	s.trash = startTrash(s.path("trash"), s.log)
	if err := s.clearTemp(); err != nil {
		return err
	}
	if s.overlay, err = probeOverlay(ctx, s.path("tmp")); err != nil {
		return err
	}
	return s.load()
}

// writeLayoutMarker makes the root an OCI image layout.
func (s *Store) writeLayoutMarker() error {
	p := filepath.Join(s.root, "oci-layout")
	if _, err := os.Stat(p); err == nil {
		return nil
	}
	return s.WriteFile(p, []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

// clearTemp throws away what was not finished, and half-made snapshots.
func (s *Store) clearTemp() error {
	entries, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := s.trash.take(s.path("tmp", e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) load() error {
	for _, step := range []func() error{s.loadBlobs, s.loadDiffs, s.loadChains, s.loadSnapshots} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) loadBlobs() error {
	entries, err := os.ReadDir(filepath.Join(s.root, "blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		fi, err := e.Info()
		if d.Validate() == nil && err == nil && fi.Mode().IsRegular() {
			s.blobs[d] = fi.Size()
		}
	}
	return nil
}

func (s *Store) loadDiffs() error {
	entries, err := os.ReadDir(s.path("diff"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		d := &diff{name: e.Name(), fs: s.path("diff", e.Name(), "fs")}
		b, err := os.ReadFile(s.path("diff", e.Name(), "meta.json"))
		if err == nil {
			err = json.Unmarshal(b, &d.meta)
		}
		if err != nil { // not ours, or damaged: the image's blobs are there to unpack it again
			s.log.Warn("dropping an unreadable layer", "layer", e.Name(), "error", err)
			if err := s.trash.take(s.path("diff", e.Name())); err != nil {
				return err
			}
			continue
		}
		s.diffs[d.name] = d
	}
	return nil
}

func (s *Store) loadChains() error {
	entries, err := os.ReadDir(s.path("chain"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		id := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		c, err := s.loadChain(id)
		if err != nil {
			s.log.Warn("dropping a chain of layers", "chain", id, "error", err)
			if err := os.Remove(s.path("chain", e.Name())); err != nil {
				return err
			}
			continue
		}
		s.chains[id] = c
	}
	return nil
}

func (s *Store) loadChain(id digest.Digest) (*chain, error) {
	b, err := os.ReadFile(s.path("chain", id.Encoded()))
	if err != nil {
		return nil, err
	}
	var f chainFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	stack := make([]*diff, 0, len(f.Layers))
	for _, name := range f.Layers {
		d := s.diffs[name]
		if d == nil {
			return nil, fmt.Errorf("layer %s is missing", name)
		}
		stack = append(stack, d)
	}
	return newChain(id, stack)
}

func newChain(id digest.Digest, stack []*diff) (*chain, error) {
	c := &chain{id: id, stack: stack}
	for i := len(stack) - 1; i >= 0; i-- {
		c.lower = append(c.lower, stack[i].fs)
		if stack[i].meta.OpaqueRoot {
			break
		}
	}
	c.root = rootAttr{mode: 0o755}
	if len(c.lower) > 0 {
		var err error
		if c.root, err = readRootAttr(c.lower[0]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *chain) public() Chain {
	out := Chain{ID: c.id}
	for _, d := range c.stack {
		if d.meta.DiffID != "" {
			out.Diffs = append(out.Diffs, d.meta.DiffID)
			out.Sizes = append(out.Sizes, d.meta.Size)
			out.Size += d.meta.Size
		}
	}
	return out
}

// Chain tells about an unpacked stack; false if it isn't there.
func (s *Store) Chain(id digest.Digest) (Chain, bool) {
	if id == "" {
		return Chain{}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.chains[id]
	if !ok {
		return Chain{}, false
	}
	return c.public(), true
}

// ChainID is the chain id of a stack of diff ids, bottom first, as the OCI image configuration defines it; "" for none.
func ChainID(diffs []digest.Digest) digest.Digest {
	var id digest.Digest
	for _, d := range diffs {
		if id == "" {
			id = d
		} else {
			id = digest.FromString(id.String() + " " + d.String())
		}
	}
	return id
}

// Close ends the background work and gives the store free for another process. Running transfers must have ended.
func (s *Store) Close() error {
	s.spares.stop()
	s.mu.Lock()
	for id, m := range s.mounts {
		m.Close()
		delete(s.mounts, id)
	}
	s.mu.Unlock()
	s.trash.stop()
	return errors.Join(s.rfd.Close(), s.lock.Close())
}

// Root is the store's folder.
func (s *Store) Root() string { return s.root }

// WriteFile replaces a file of the layout (index.json) in one step; it is durable when the call returns.
func (s *Store) WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(s.path("tmp"), "file-")
	if err != nil {
		return spaceErr(err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return spaceErr(fmt.Errorf("writing %s: %w", path, err))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}

// spaceErr gives an error of a full disk its class.
func spaceErr(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errs.As(errs.Exhausted, err)
	}
	return err
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// validDigest refuses what would not be a file name of ours.
func validDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return errs.New(errs.Invalid, "digest %q: %w", string(d), err)
	}
	if d.Algorithm() != digest.SHA256 {
		return errs.New(errs.NotImplemented, "digest %s: only sha256 is supported, not %s", d, strings.ToLower(d.Algorithm().String()))
	}
	return nil
}

// HasDiff tells whether a layer is unpacked.
func (s *Store) HasDiff(id digest.Digest) bool {
	if id.Validate() != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.diffs[id.Encoded()] != nil
}

// Lower are the folders of a chain's layers, topmost first; nil if it is not there.
func (s *Store) Lower(id digest.Digest) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.chains[id]; c != nil {
		return c.lower
	}
	return nil
}
