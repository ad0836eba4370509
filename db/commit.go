package db

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// checkpointSize is how many bytes the journal may have before bbolt is brought up to date.
const checkpointSize = 4 << 20

// Durability says when Commit returns.
type Durability bool

const (
	// Relaxed returns when the change survives this process.
	Relaxed Durability = false
	// Durable returns when it survives the machine.
	Durable Durability = true
)

// ErrClosed is what a commit to a closed database gets.
var ErrClosed = errors.New("the database is closed")

// Batch is a change: it is seen whole or not at all. The zero value is empty.
type Batch struct {
	// NeedsRoom refuses the change when the disk is all but full. Others, that record what has happened or remove something, may
	// use up the last blocks.
	NeedsRoom bool

	ops []op
	err error
}

type commit struct {
	ops     []op
	durable bool
	room    bool       // as in Batch
	done    chan error // capacity 1
	// exclusive asks to be leader instead of writing something.
	exclusive bool
}

// Commit writes the batch. An empty one costs nothing.
func (d *DB) Commit(b *Batch, how Durability) error {
	if b.err != nil {
		return b.err
	}
	if len(b.ops) == 0 {
		return nil
	}
	return d.enqueue(&commit{ops: b.ops, room: b.NeedsRoom, durable: bool(how) && !d.opt.NoSync, done: make(chan error, 1)})
}

// Sync returns when everything committed before it survives the machine.
func (d *DB) Sync() error {
	if d.opt.NoSync {
		return nil
	}
	return d.enqueue(&commit{durable: true, done: make(chan error, 1)})
}

// lead makes the caller the leader, after all that was queued; then runs under the lock. unlead ends it.
func (d *DB) lead(then func()) error {
	if err := d.enqueue(&commit{exclusive: true, done: make(chan error, 1)}); err != nil {
		return err
	}
	d.mu.Lock()
	then()
	d.mu.Unlock()
	return nil
}

func (d *DB) unlead() {
	d.mu.Lock()
	d.handOver()
	d.mu.Unlock()
}

// handOver gives the queue to a new goroutine, or to nobody if it is empty. The caller holds mu and was the leader.
func (d *DB) handOver() {
	d.leading = len(d.queue) > 0
	if d.leading {
		go d.round()
	}
}

func (d *DB) enqueue(c *commit) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return fmt.Errorf("write database %s: %w", d.path, ErrClosed)
	}
	d.queue = append(d.queue, c)
	lead := !d.leading
	d.leading = true
	d.mu.Unlock()
	if lead {
		d.round()
	}
	return <-c.done
}

// round writes what is in the queue. Whoever finds nobody leading does one round, in which his own commit is.
func (d *DB) round() {
	d.mu.Lock()
	batch := d.queue
	for i, c := range batch {
		if c.exclusive { // what comes later has to wait for its end
			batch = batch[:i]
			break
		}
	}
	if len(batch) == 0 {
		c := d.queue[0]
		d.queue = d.queue[1:]
		d.mu.Unlock()
		c.done <- nil // he is the leader now
		return
	}
	d.queue = append([]*commit(nil), d.queue[len(batch):]...)
	failed, dirty := d.failed, d.dirty
	if d.closed {
		failed = fmt.Errorf("write database %s: %w", d.path, ErrClosed)
	}
	d.mu.Unlock()
	if failed != nil {
		for _, c := range batch {
			c.done <- failed
		}
	} else {
		d.write(batch, dirty)
	}
	if d.journal.size > checkpointSize+d.postponed {
		d.tidy()
	}
	d.mu.Lock()
	d.handOver()
	d.mu.Unlock()
}

// tidy brings bbolt up to date. If the disk has no room for that the journal goes on growing for a while.
func (d *DB) tidy() {
	err := d.checkpoint()
	switch {
	case err == nil:
		d.postponed = 0
	case outOfSpace(err):
		d.postponed = d.journal.size - checkpointSize*3/4
	default:
		d.fail(err)
	}
}

// refuseRoom answers those of the batch that need more room than the disk has, and gives the others.
func (d *DB) refuseRoom(batch []*commit) []*commit {
	n := 0
	for _, c := range batch {
		if len(c.ops) > 0 {
			n += len(appendFrame(nil, 0, c.ops))
		}
	}
	err := d.journal.makeRoom(n)
	if err == nil {
		return batch
	}
	return slices.DeleteFunc(batch, func(c *commit) bool {
		if c.room {
			c.done <- err
		}
		return c.room
	})
}

func (d *DB) write(batch []*commit, dirty bool) {
	if slices.ContainsFunc(batch, func(c *commit) bool { return c.room }) {
		if batch = d.refuseRoom(slices.Clone(batch)); len(batch) == 0 {
			return
		}
	}
	var buf []byte
	var ops []op
	durable := false
	for _, c := range batch {
		if len(c.ops) > 0 {
			buf = appendFrame(buf, d.journal.synced, c.ops)
			ops = append(ops, c.ops...)
		}
		durable = durable || c.durable
	}
	if len(buf) > 0 {
		broken, err := d.journal.write(buf)
		if broken {
			d.fail(err)
		}
		if err != nil {
			for _, c := range batch {
				c.done <- err
			}
			return
		}
	}
	d.apply(ops)
	for _, c := range batch {
		if !c.durable {
			c.done <- nil
		}
	}
	if !durable {
		d.syncSoon()
		return
	}
	var err error
	if len(buf) > 0 || dirty {
		if err = d.journal.sync(); err != nil {
			d.fail(err) // the kernel may have dropped the pages: what the file holds is unknown
		}
	}
	d.mu.Lock()
	d.dirty = d.dirty && err != nil
	d.mu.Unlock()
	for _, c := range batch {
		if c.durable {
			c.done <- err
		}
	}
}

// syncSoon sees to it that a relaxed change is synced within SyncDelay.
func (d *DB) syncSoon() {
	if d.opt.NoSync {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirty {
		return // the timer runs
	}
	d.dirty = true
	sync := func() {
		d.mu.Lock()
		dirty := d.dirty && !d.closed
		d.mu.Unlock()
		if dirty {
			_ = d.Sync() // a failure is kept in d.failed and told to the next commit
		}
	}
	if d.timer == nil {
		d.timer = time.AfterFunc(SyncDelay, sync)
	} else {
		d.timer.Reset(SyncDelay)
	}
}

// fail makes all later commits fail: the next Open finds out what the files hold.
func (d *DB) fail(err error) {
	d.mu.Lock()
	if d.failed == nil {
		d.failed = err
	}
	d.mu.Unlock()
}

// apply makes operations visible to readers.
func (d *DB) apply(ops []op) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range ops {
		keys := d.pending[o.bucket]
		if keys == nil {
			keys = map[string][]byte{}
			d.pending[o.bucket] = keys
		}
		keys[o.key] = o.value
	}
}
