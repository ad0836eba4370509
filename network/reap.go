package network

import (
	"net/netip"
	"sync"
	"time"

	"skiff/network/rtnl"
)

// reaper frees the addresses of released containers once the kernel has removed their interfaces, and removes the
// interfaces that stay.
type reaper struct {
	m *Manager

	mu      sync.Mutex
	dying   []dying
	running bool
}

type dying struct {
	b     *bridge
	addr  netip.Addr // the zero value: none to free
	veth  string
	since time.Time
}

// The kernel takes some ten milliseconds to end a namespace whose last process is gone.
const (
	reapEvery = 500 * time.Millisecond
	reapAfter = 3 * time.Second
)

func newReaper(m *Manager) *reaper { return &reaper{m: m} }

// add hands an interface over.
func (r *reaper) add(b *bridge, addr netip.Addr, veth string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dying = append(r.dying, dying{b, addr, veth, time.Now()})
	if r.running || r.m.ctx.Err() != nil {
		return
	}
	r.running = true
	r.m.work.Go(r.run)
}

// run works until nothing is left to be reaped, or the manager closes.
func (r *reaper) run() {
	t := time.NewTicker(reapEvery)
	defer t.Stop()
	for {
		select {
		case <-r.m.ctx.Done():
			return
		case <-t.C:
		}
		r.pass(reapAfter)
		r.mu.Lock()
		if len(r.dying) == 0 {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

// hurry looks at once for addresses that can be freed, because there is no other; it reports whether there may be some.
func (r *reaper) hurry() bool {
	r.mu.Lock()
	n := len(r.dying)
	r.mu.Unlock()
	if n == 0 {
		return false
	}
	r.pass(0)
	return true
}

// pass frees what is gone, and removes interfaces that are older than age.
func (r *reaper) pass(age time.Duration) {
	r.mu.Lock()
	all := r.dying
	r.dying = nil
	r.mu.Unlock()
	var left []dying
	for _, d := range all {
		if index, err := r.m.host.Index(d.veth); err == nil {
			if time.Since(d.since) < age {
				left = append(left, d)
				continue
			}
			var batch rtnl.Batch
			batch.DelLink(index)
			if err := r.m.host.Do(&batch); err != nil {
				if _, gone := r.m.host.Index(d.veth); gone == nil {
					r.m.log.Warn("an interface that is not used any more could not be removed", "interface", d.veth, "error", err)
					left = append(left, d)
					continue
				}
			}
		}
		if d.addr.IsValid() {
			d.b.space.Release(d.addr)
		}
	}
	r.mu.Lock()
	r.dying = append(left, r.dying...)
	r.mu.Unlock()
}
