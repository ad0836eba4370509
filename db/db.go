package db

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Schema is the version of the layout that this program writes. An older one is migrated by the owner of the buckets
// (there is none yet), a newer one is refused.
const Schema = 1

// SyncDelay is how long a relaxed change of a synced database stays without the safety of an fdatasync at most.
const SyncDelay = 200 * time.Millisecond

// lockTimeout is how long Open waits for another process that has the file, for example a predecessor that is ending.
const lockTimeout = 2 * time.Second

var metaBucket = []byte("skiff")

// Options of a database.
type Options struct {
	// NoSync never calls fsync: nothing needs to survive the machine.
	NoSync bool
	// Epoch, if not empty, names the time in which the contents are true (a boot id). What was written in another
	// epoch is thrown away at Open.
	Epoch string
}

// DB is an open database. All methods may be called concurrently.
type DB struct {
	path string
	opt  Options
	bolt *bbolt.DB

	mu      sync.Mutex // guards what follows; never held across I/O
	pending map[string]map[string][]byte
	queue   []*commit
	leading bool  // a goroutine writes the queue; it alone touches journal
	failed  error // the journal can't be trusted any more
	closed  bool
	dirty   bool // relaxed frames are not synced
	timer   *time.Timer

	journal   *journal
	postponed int64 // by how many bytes the next checkpoint is later, for want of room
}

// Open opens or creates the database at path, replaying what its journal holds.
func Open(path string, opt Options) (*DB, error) {
	d, stale, err := open(path, opt)
	if err != nil || !stale {
		return d, err
	}
	d.bolt.Close()
	d.journal.close()
	for _, p := range []string{path, journalPath(path)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open database %s: throw away the one of a former epoch: %w", path, err)
		}
	}
	d, _, err = open(path, opt)
	return d, err
}

func open(path string, opt Options) (d *DB, stale bool, err error) {
	b, err := openBolt(path, opt)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	stale, err = checkMeta(b, opt)
	if err != nil {
		return nil, false, fmt.Errorf("open database %s: %w", path, err)
	}
	j, frames, err := openJournal(journalPath(path))
	if err != nil {
		return nil, false, err
	}
	if !opt.NoSync { // the files may be new
		if err := syncDir(filepath.Dir(path)); err != nil {
			j.close()
			return nil, false, fmt.Errorf("open database %s: %w", path, err)
		}
	}
	d = &DB{path: path, opt: opt, bolt: b, journal: j, pending: map[string]map[string][]byte{}}
	for _, ops := range frames {
		d.apply(ops)
	}
	if len(frames) > 0 && !stale {
		if err := d.checkpoint(); err != nil && !outOfSpace(err) { // on a full disk it is as before: the journal has the newest
			j.close()
			return nil, false, err
		}
	}
	return d, stale, nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func openBolt(path string, opt Options) (b *bbolt.DB, err error) {
	defer func() {
		// bbolt checks its meta pages but trusts the rest, and panics on a page that makes no sense.
		if r := recover(); r != nil {
			b, err = nil, fmt.Errorf("open database %s: the file is damaged: %v", path, r)
		}
	}()
	b, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockTimeout, NoSync: opt.NoSync, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
	})
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("open database %s: another process has it open", path)
	case errors.Is(err, bbolterrors.ErrInvalid), errors.Is(err, bbolterrors.ErrChecksum), errors.Is(err, bbolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("open database %s: the file is damaged or no database: %w", path, err)
	}
	return nil, fmt.Errorf("open database %s: %w", path, err)
}

// checkMeta compares the schema and the epoch, and writes them into a new file.
func checkMeta(b *bbolt.DB, opt Options) (stale bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the file is damaged: %v", r)
		}
	}()
	var schema, epoch []byte
	err = b.View(func(tx *bbolt.Tx) error {
		if m := tx.Bucket(metaBucket); m != nil {
			schema, epoch = append(schema, m.Get([]byte("schema"))...), append(epoch, m.Get([]byte("epoch"))...)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	if schema != nil {
		if len(schema) != 4 {
			return false, fmt.Errorf("the schema version is damaged")
		}
		if v := binary.BigEndian.Uint32(schema); v != Schema {
			return false, fmt.Errorf("the file has schema version %d, this program knows %d", v, Schema)
		}
		return string(epoch) != opt.Epoch, nil
	}
	return false, b.Update(func(tx *bbolt.Tx) error {
		m, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		if err := m.Put([]byte("epoch"), []byte(opt.Epoch)); err != nil {
			return err
		}
		return m.Put([]byte("schema"), binary.BigEndian.AppendUint32(nil, Schema))
	})
}

// Path is the path of the bbolt file.
func (d *DB) Path() string { return d.path }

// Close brings bbolt up to date and closes the files. Commits that come later fail.
func (d *DB) Close() error {
	if err := d.lead(func() { d.closed = true }); err != nil {
		return err
	}
	err := d.checkpoint()
	if outOfSpace(err) { // the next one has the journal to read
		if err = nil; !d.opt.NoSync {
			err = d.journal.sync()
		}
	}
	d.unlead()
	return errors.Join(err, d.journal.close(), d.bolt.Close())
}

// roomForPages keeps a checkpoint from using up the last blocks for pages that are good for nothing, since it can't be ended.
func (d *DB) roomForPages() error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return err
	}
	if need := 2*d.journal.size + 64<<10; int64(st.Bfree)*st.Bsize < need {
		return fmt.Errorf("%d bytes are needed: %w", need, unix.ENOSPC)
	}
	return nil
}

// checkpoint writes everything pending to bbolt and empties the journal. The caller is the leader.
func (d *DB) checkpoint() error {
	d.mu.Lock()
	pending, failed := d.pending, d.failed
	d.mu.Unlock()
	if failed != nil {
		return failed
	}
	if len(pending) == 0 && d.journal.size <= journalHeader {
		return nil
	}
	if err := d.roomForPages(); err != nil {
		return fmt.Errorf("bring database %s up to date: %w", d.path, err)
	}
	err := d.bolt.Update(func(tx *bbolt.Tx) error {
		for name, keys := range pending {
			b, err := tx.CreateBucketIfNotExists([]byte(name))
			if err != nil {
				return err
			}
			for k, v := range keys {
				if v == nil {
					err = b.Delete([]byte(k))
				} else {
					err = b.Put([]byte(k), v)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("bring database %s up to date: %w", d.path, err)
	}
	// The leader is the only writer of pending, so nothing was added meanwhile.
	d.mu.Lock()
	d.pending = map[string]map[string][]byte{}
	d.dirty = false
	d.mu.Unlock()
	return d.journal.reset()
}
