package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// A container's folder is layer/rw/N, with a number that is never used twice while the store is open: folders are made in
// advance (spare.go), before anybody knows the container's id. It has the symbolic link "chain", whose target is "chain:"
// or "volatile:" and the chain id. What makes it a snapshot is the link layer/snapshot/ID to it: one call, whole or not at
// all.
const (
	chainLink      = "chain"
	markDurable    = "chain:"
	markVolatile   = "volatile:"
	snapshotFolder = "snapshot"
	rwFolder       = "rw"
)

func checkSnapshotID(id string) error {
	if id == "" || id == "." || id == ".." || len(id) > 255 || strings.ContainsAny(id, "/\x00") {
		return errs.New(errs.Invalid, "snapshot id %q can't be a folder's name", id)
	}
	return nil
}

// Prepare makes the snapshot of a new container on top of chain; nothing is mounted. It is not synced: a snapshot without
// changes that a power cut took is made again by the same call. If the snapshot is there, on the same chain, it is given back as it is; on
// another chain: class errs.Conflict. An unknown chain: errs.NotFound.
func (s *Store) Prepare(_ context.Context, id string, chainID digest.Digest, volatile bool) (Snapshot, error) {
	if err := checkSnapshotID(id); err != nil {
		return Snapshot{}, err
	}
	k := spareKey{chainID, volatile}
	s.mu.Lock()
	old, exists := s.snaps[id]
	c, err := s.chainOf(chainID)
	sp := s.spares.take(k)
	s.mu.Unlock()
	if sp != nil && (exists || err != nil) {
		s.dropSpare(sp)
	}
	if exists {
		return existing(old, k)
	}
	if err != nil {
		return Snapshot{}, err
	}
	if sp == nil {
		if sp, err = s.makeSpare(c, k); err != nil {
			s.dropSpare(sp)
			return Snapshot{}, spaceErr(fmt.Errorf("preparing snapshot %s: %w", id, err))
		}
	}
	sn, err := s.name(sp, id, c, k)
	if err != nil {
		s.dropSpare(sp)
	}
	return sn, err
}

func existing(sn Snapshot, k spareKey) (Snapshot, error) {
	if sn.Chain != k.chain || sn.Volatile != k.volatile {
		return Snapshot{}, errs.New(errs.Conflict, "snapshot %s exists on other layers", sn.ID)
	}
	return sn, nil
}

// name makes a spare the snapshot id. After an error, or if somebody else was faster, it is still the caller's.
func (s *Store) name(sp *spare, id string, c *chain, k spareKey) (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.snaps[id]; ok {
		return Snapshot{}, errs.New(errs.Conflict, "snapshot %s is being made by another call", id)
	}
	if s.chains[k.chain] != c {
		return Snapshot{}, errs.New(errs.NotFound, "layers %s are not in the store", k.chain)
	}
	if err := unix.Symlink("../"+rwFolder+"/"+sp.name, s.path(snapshotFolder, id)); err != nil {
		return Snapshot{}, spaceErr(fmt.Errorf("preparing snapshot %s: %w", id, err))
	}
	sn := sp.sn
	sn.ID = id
	s.snaps[id] = sn
	if sp.mount != nil {
		s.mounts[id] = sp.mount
	}
	s.spares.expect(k)
	return sn, nil
}

func (s *Store) newSnapshot(id, rw string, chainID digest.Digest, lower []string, volatile bool) Snapshot {
	dir := s.path(rwFolder, rw)
	return Snapshot{ID: id, Chain: chainID, Lower: lower, Upper: dir + "/fs", Work: dir + "/work", Volatile: volatile}
}

func makeSnapshot(sn Snapshot, root rootAttr) error {
	dir := filepath.Dir(sn.Upper)
	if err := unix.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mkdir(sn.Upper, 0o700); err != nil {
		return err
	}
	if err := root.set(sn.Upper); err != nil {
		return err
	}
	if err := unix.Mkdir(sn.Work, 0o700); err != nil {
		return err
	}
	mark := markDurable
	if sn.Volatile {
		mark = markVolatile
	}
	return unix.Symlink(mark+string(sn.Chain), dir+"/"+chainLink)
}

func (s *Store) loadSnapshots() error {
	entries, err := os.ReadDir(s.path(snapshotFolder))
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, e := range entries {
		sn, rw, err := s.loadSnapshot(e.Name())
		if err != nil {
			s.log.Info("removing a half-made snapshot", "snapshot", e.Name(), "error", err)
			if err := s.trash.take(s.path(snapshotFolder, e.Name())); err != nil {
				return err
			}
			continue
		}
		used[rw] = true
		s.snaps[sn.ID] = sn
	}
	if entries, err = os.ReadDir(s.path(rwFolder)); err != nil {
		return err
	}
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 63); err == nil && n > s.lastRW.Load() {
			s.lastRW.Store(n)
		}
		if !used[e.Name()] {
			if err := s.trash.take(s.path(rwFolder, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) loadSnapshot(id string) (Snapshot, string, error) {
	to, err := os.Readlink(s.path(snapshotFolder, id))
	if err != nil {
		return Snapshot{}, "", err
	}
	rw := filepath.Base(to)
	mark, err := os.Readlink(s.path(rwFolder, rw, chainLink))
	if err != nil {
		return Snapshot{}, "", err
	}
	c, durable := strings.CutPrefix(mark, markDurable)
	v, volatile := strings.CutPrefix(mark, markVolatile)
	if !durable && !volatile {
		return Snapshot{}, "", fmt.Errorf("its mark is %q", mark)
	}
	chainID := digest.Digest(c)
	if volatile {
		chainID = digest.Digest(v)
	}
	var lower []string
	if chainID != "" {
		if ch := s.chains[chainID]; ch != nil {
			lower = ch.lower
		} else {
			s.log.Warn("a snapshot's layers are missing", "snapshot", id, "chain", chainID)
		}
	}
	return s.newSnapshot(id, rw, chainID, lower, volatile), rw, nil
}

// Snapshot finds a snapshot; class errs.NotFound if it is not there.
func (s *Store) Snapshot(_ context.Context, id string) (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sn, ok := s.snaps[id]
	if !ok {
		return Snapshot{}, errs.New(errs.NotFound, "no such snapshot: %s", id)
	}
	return sn, nil
}

// Snapshots lists the ids of all snapshots, in no order.
func (s *Store) Snapshots(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]string, 0, len(s.snaps))
	for id := range s.snaps {
		ids = append(ids, id)
	}
	return ids, nil
}

// Discard removes a snapshot: it is gone when the call returns, its files are deleted in the background. A snapshot that
// isn't there is no error. A mount of it that is still used goes on working, its files vanish under it.
func (s *Store) Discard(_ context.Context, id string) error {
	if err := checkSnapshotID(id); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sn, ok := s.snaps[id]
	if !ok {
		return nil
	}
	if err := os.Remove(s.path(snapshotFolder, id)); err != nil && !isNotExist(err) {
		return fmt.Errorf("discarding snapshot %s: %w", id, err)
	}
	delete(s.snaps, id)
	if m := s.mounts[id]; m != nil { // made in advance and never asked for
		delete(s.mounts, id)
		m.Close()
	}
	if err := s.trash.take(filepath.Dir(sn.Upper)); err != nil {
		return fmt.Errorf("discarding snapshot %s: %w", id, err)
	}
	return nil
}

// Usage is the number of bytes in the snapshot's own files, each inode once. The container may be running.
func (s *Store) Usage(ctx context.Context, id string) (int64, error) {
	sn, err := s.Snapshot(ctx, id)
	if err != nil {
		return 0, err
	}
	n, err := treeSize(ctx, sn.Upper)
	if err != nil {
		return 0, fmt.Errorf("measuring snapshot %s: %w", id, err)
	}
	return n, nil
}

// treeSize adds up the sizes of the regular files below dir. What vanishes meanwhile does not count.
func treeSize(ctx context.Context, dir string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var sum int64
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !e.Type().IsRegular() {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			if err == unix.ENOENT {
				return nil
			}
			return fmt.Errorf("%s: %w", p, err)
		}
		k := inode{st.Dev, st.Ino}
		if st.Nlink > 1 {
			if seen[k] {
				return nil
			}
			seen[k] = true
		}
		sum += st.Size
		return nil
	})
	return sum, err
}
