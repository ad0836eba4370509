package keeper

import "sync"

// queue passes exits on without ever making the sender wait.
type queue struct {
	out chan Exit

	mu    sync.Mutex
	items []Exit
	wake  chan struct{}
	end   chan struct{}
}

func newQueue() *queue {
	q := &queue{out: make(chan Exit), wake: make(chan struct{}, 1), end: make(chan struct{})}
	go q.run()
	return q
}

func (q *queue) add(e Exit) {
	q.mu.Lock()
	q.items = append(q.items, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) run() {
	for {
		q.mu.Lock()
		items := q.items
		q.items = nil
		q.mu.Unlock()
		for _, e := range items {
			select {
			case q.out <- e:
			case <-q.end:
				return
			}
		}
		select {
		case <-q.wake:
		case <-q.end:
			return
		}
	}
}

func (q *queue) stop() { close(q.end) }
