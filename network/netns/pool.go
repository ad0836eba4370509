package netns

import (
	"context"
	"sync"
	"time"
)

// Limits say how many things a Pool keeps ready.
type Limits struct {
	Min, Max int           // Max >= Min >= 0
	Idle     time.Duration // after which a pool that nobody used shrinks to Min
}

// Pool keeps ready what make makes. Its size doubles when somebody had to wait, and goes back when it is not used.
type Pool[T any] struct {
	limits  Limits
	produce func(ctx context.Context) (T, error)
	drop    func(T)

	mu      sync.Mutex
	ready   []T
	waiting []chan item[T]
	target  int
	lastUse time.Time
	lastErr error
	closed  bool

	kick   chan struct{} // there may be something to do
	cancel context.CancelFunc
	done   chan struct{}
}

type item[T any] struct {
	v   T
	err error
}

// retryAfter is the pause after a failure while nobody waits.
const retryAfter = time.Second

// NewPool starts a pool; produce makes a thing, drop gets rid of one that was not taken.
func NewPool[T any](l Limits, produce func(ctx context.Context) (T, error), drop func(T)) *Pool[T] {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pool[T]{
		limits: l, produce: produce, drop: drop, target: l.Min, lastUse: time.Now(),
		kick: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{}),
	}
	go p.refill(ctx)
	return p
}

// Take gives a ready thing, or waits for the next. Those who wait are served in order.
func (p *Pool[T]) Take(ctx context.Context) (T, error) {
	p.mu.Lock()
	p.lastUse = time.Now()
	if p.closed {
		p.mu.Unlock()
		var none T
		return none, ErrClosed
	}
	if n := len(p.ready); n > 0 && len(p.waiting) == 0 {
		v := p.ready[0]
		var none T
		p.ready[0] = none
		p.ready = p.ready[1:]
		if n-1 < p.target/4 {
			p.target = min(p.target*2, p.limits.Max)
		}
		p.mu.Unlock()
		p.wake()
		return v, nil
	}
	p.target = min(max(p.target*2, 1), p.limits.Max)
	ch := make(chan item[T], 1)
	p.waiting = append(p.waiting, ch)
	p.mu.Unlock()
	p.wake()
	select {
	case it := <-ch:
		return it.v, it.err
	case <-ctx.Done():
		p.leave(ch)
		var none T
		return none, context.Cause(ctx)
	}
}

// leave gives up waiting; what came meanwhile goes back to the others.
func (p *Pool[T]) leave(ch chan item[T]) {
	p.mu.Lock()
	for i, w := range p.waiting {
		if w == ch {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			p.mu.Unlock()
			return
		}
	}
	p.mu.Unlock()
	if it := <-ch; it.err == nil {
		p.put(it.v)
	}
}

// put hands v to the first who waits, or keeps it.
func (p *Pool[T]) put(v T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		p.drop(v)
	case len(p.waiting) > 0:
		p.waiting[0] <- item[T]{v: v}
		p.waiting = p.waiting[1:]
	default:
		p.ready = append(p.ready, v)
	}
}

// SetMin changes how many things are kept ready at least.
func (p *Pool[T]) SetMin(n int) {
	p.mu.Lock()
	if p.limits.Min == n {
		p.mu.Unlock()
		return
	}
	p.limits.Min = n
	p.target = max(p.target, n)
	p.mu.Unlock()
	p.wake()
}

// Flush drops everything that is ready; new things are made.
func (p *Pool[T]) Flush() {
	p.mu.Lock()
	old := p.ready
	p.ready = nil
	p.mu.Unlock()
	for _, v := range old {
		p.drop(v)
	}
	p.wake()
}

// Close drops everything and ends the pool.
func (p *Pool[T]) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	<-p.done
	p.Flush()
	p.fail(ErrClosed)
}

func (p *Pool[T]) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *Pool[T]) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.waiting {
		w <- item[T]{err: err}
	}
	p.waiting = nil
}

// wanted says whether one more has to be made, and trims a pool that was idle.
func (p *Pool[T]) wanted(now time.Time) (more bool, surplus []T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.lastUse) >= p.limits.Idle {
		p.target = p.limits.Min
		if n := len(p.ready); n > p.target {
			surplus = append(surplus, p.ready[p.target:]...)
			clear(p.ready[p.target:])
			p.ready = p.ready[:p.target]
		}
	}
	if p.lastErr != nil && len(p.waiting) == 0 {
		return false, surplus
	}
	return len(p.waiting) > 0 || len(p.ready) < p.target, surplus
}

func (p *Pool[T]) refill(ctx context.Context) {
	defer close(p.done)
	for ctx.Err() == nil {
		more, surplus := p.wanted(time.Now())
		for _, v := range surplus {
			p.drop(v)
		}
		if more {
			v, err := p.produce(ctx)
			p.mu.Lock()
			p.lastErr = err
			p.mu.Unlock()
			if err != nil {
				p.fail(err)
			} else {
				p.put(v)
			}
			continue
		}
		p.rest(ctx)
	}
}

// rest waits until there may be something to do.
func (p *Pool[T]) rest(ctx context.Context) {
	p.mu.Lock()
	var pause time.Duration
	switch {
	case p.lastErr != nil:
		pause = retryAfter
		p.lastErr = nil
	case p.target > p.limits.Min:
		pause = max(p.limits.Idle-time.Since(p.lastUse), time.Millisecond)
	}
	p.mu.Unlock()
	if pause == 0 {
		select {
		case <-ctx.Done():
		case <-p.kick:
		}
		return
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-p.kick:
	case <-t.C:
	}
}
