package layer

import (
	"context"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"skiff/internal/errs"
)

// Making a snapshot's folders costs some 0.1 ms, and overlayfs's first mount of them 0.2 ms and more, since it makes and
// tries out its work folder. Whoever starts one container of an image mostly starts another. So a little after a snapshot
// was prepared, off the caller's path, a spare is made for the same layers, mounted already; the next Prepare takes it with one
// call (symlink).

// Bounds of what lies ready.
const (
	sparesPerKey = 2
	spareKeys    = 4
	// spareDelay lets the container start before the next one's spare is made: there may be few processors.
	spareDelay = 15 * time.Millisecond
)

// spareKey is for what a spare is good.
type spareKey struct {
	chain    digest.Digest
	volatile bool
}

// spare is a snapshot without an id.
type spare struct {
	name  string // in layer/rw
	sn    Snapshot
	mount *os.File // nil: not mounted yet
}

// spares are kept under the store's mutex; one goroutine makes them.
type spares struct {
	s      *Store
	ready  map[spareKey][]*spare
	recent []spareKey // the last used one first
	wake   chan spareKey
	quit   chan struct{}
	once   sync.Once
	done   sync.WaitGroup
}

func (p *spares) init(s *Store) {
	p.s, p.ready = s, map[spareKey][]*spare{}
	p.wake, p.quit = make(chan spareKey, 16), make(chan struct{})
	p.done.Go(p.run)
}

// take gives a spare away, or nil. The store's mutex is held.
func (p *spares) take(k spareKey) *spare {
	l := p.ready[k]
	if len(l) == 0 {
		return nil
	}
	sp := l[len(l)-1]
	p.ready[k] = l[:len(l)-1]
	return sp
}

// expect asks for a spare of this kind, soon. The store's mutex is held.
func (p *spares) expect(k spareKey) {
	select {
	case p.wake <- k:
	default: // enough to do
	}
}

func (p *spares) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var k spareKey
		select {
		case k = <-p.wake:
		case <-p.quit:
			return
		}
		timer.Reset(spareDelay)
		select {
		case <-timer.C:
		case <-p.quit:
			return
		}
		p.fill(k)
	}
}

// fill makes one spare, if there is room.
func (p *spares) fill(k spareKey) {
	s := p.s
	s.mu.Lock()
	p.used(k)
	c, err := s.chainOf(k.chain)
	enough := len(p.ready[k]) >= sparesPerKey
	s.mu.Unlock()
	if err != nil || enough {
		return
	}
	sp, err := s.makeSpare(c, k)
	if err == nil {
		sp.mount, err = s.overlay.mount(context.Background(), sp.sn)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.chains[k.chain] != c {
		err = errs.New(errs.NotFound, "its layers were removed")
	}
	if err != nil {
		s.log.Debug("making a spare snapshot", "chain", k.chain, "error", err)
		s.dropSpare(sp)
		return
	}
	p.ready[k] = append(p.ready[k], sp)
}

// used puts a kind in front, and drops the spares of the one that was not used for longest.
func (p *spares) used(k spareKey) {
	recent := []spareKey{k}
	for _, r := range p.recent {
		if r != k {
			recent = append(recent, r)
		}
	}
	if len(recent) > spareKeys {
		p.dropKey(recent[spareKeys])
		recent = recent[:spareKeys]
	}
	p.recent = recent
}

// drop gives up the spares of layers that go away. The store's mutex is held.
func (p *spares) drop(chain digest.Digest) {
	p.dropKey(spareKey{chain, false})
	p.dropKey(spareKey{chain, true})
}

func (p *spares) dropKey(k spareKey) {
	for _, sp := range p.ready[k] {
		p.s.dropSpare(sp)
	}
	delete(p.ready, k)
}

// stop ends the making and gives all spares up.
func (p *spares) stop() {
	p.once.Do(func() { close(p.quit) })
	p.done.Wait()
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for k := range p.ready {
		p.dropKey(k)
	}
}

// chainOf finds a chain; nil without an error for no layers at all. The store's mutex is held.
func (s *Store) chainOf(id digest.Digest) (*chain, error) {
	c := s.chains[id]
	if c == nil && id != "" {
		return nil, errs.New(errs.NotFound, "layers %s are not in the store", id)
	}
	return c, nil
}

// makeSpare makes the folders for a snapshot of the given layers. After an error the spare is to be dropped.
func (s *Store) makeSpare(c *chain, k spareKey) (*spare, error) {
	root := rootAttr{mode: 0o755}
	var lower []string
	if c != nil {
		root, lower = c.root, c.lower
	}
	sp := &spare{name: strconv.FormatUint(s.lastRW.Add(1), 10)}
	sp.sn = s.newSnapshot("", sp.name, k.chain, lower, k.volatile)
	return sp, makeSnapshot(sp.sn, root)
}

func (s *Store) dropSpare(sp *spare) {
	if sp.mount != nil {
		sp.mount.Close()
	}
	if err := s.trash.take(s.path(rwFolder, sp.name)); err != nil {
		s.log.Warn("removing a spare snapshot", "error", err)
	}
}

// takeMount gives the mount that was made in advance, once.
func (s *Store) takeMount(id string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mounts[id]
	delete(s.mounts, id)
	return m
}
