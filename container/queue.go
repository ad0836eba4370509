package container

import (
	"context"
	"sync"
)

// queue runs an object's commands one after the other. It has a goroutine only while there is something to do, so that
// an idle object costs the few bytes of this structure. The mutex guards the list alone and is never held while a command
// runs. The zero value is an empty queue.
type queue struct {
	mu       sync.Mutex
	commands []func()
	running  bool
}

// post adds a command and returns at once.
func (q *queue) post(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.commands = append(q.commands, f)
	if !q.running {
		q.running = true
		go q.run()
	}
}

// do adds a command and waits for its end. If ctx ends first its error is returned, and the command runs to its end
// nevertheless: half a change is worse than one that nobody waited for. f gets a context with the values of ctx that
// doesn't end.
func (q *queue) do(ctx context.Context, f func(context.Context) error) error {
	done := make(chan error, 1)
	q.post(func() { done <- f(context.WithoutCancel(ctx)) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *queue) run() {
	for {
		q.mu.Lock()
		if len(q.commands) == 0 {
			q.running, q.commands = false, nil
			q.mu.Unlock()
			return
		}
		f := q.commands[0]
		q.commands[0] = nil
		q.commands = q.commands[1:]
		q.mu.Unlock()
		f()
	}
}
