package layer

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// groupSync makes everything durable that was written to the file system before the call. Callers that come while a
// syncfs runs share the next one, so that eight layers which end together cost two syncs and not eight.
//
// syncfs rather than an fsync of each file: measured in docs/decisions/0010-layers-by-diff-id.md.
type groupSync struct {
	fd int

	mu      sync.Mutex
	running bool
	next    *syncRound
}

type syncRound struct {
	done chan struct{}
	err  error
}

func (g *groupSync) wait() error {
	g.mu.Lock()
	if g.next == nil {
		g.next = &syncRound{done: make(chan struct{})}
	}
	r := g.next
	if !g.running {
		g.running = true
		go g.run()
	}
	g.mu.Unlock()
	<-r.done
	return r.err
}

func (g *groupSync) run() {
	for {
		g.mu.Lock()
		r := g.next
		g.next = nil
		if r == nil {
			g.running = false
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		if err := unix.Syncfs(g.fd); err != nil {
			r.err = fmt.Errorf("syncing the file system: %w", err)
		}
		close(r.done)
	}
}
