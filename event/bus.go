package event

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

const (
	// historySize is how many events are kept for subscribers who ask for the past. Docker keeps 256.
	historySize = 1024
	// backlog is how many undelivered events a subscriber may have.
	backlog = 1024
)

// Bus distributes events. The zero value is not usable; see New.
type Bus struct {
	log *slog.Logger

	mu      sync.Mutex
	history []events.Message // a ring once it is full
	next    int              // where the oldest is, and the next goes, in a full ring
	subs    map[*subscriber]struct{}
}

type subscriber struct {
	ch    chan events.Message
	match func(events.Message) bool
	stop  func() bool // of the context's AfterFunc
	timer *time.Timer // of until
}

// New makes a bus. Dropped subscribers are reported to log.
func New(log *slog.Logger) *Bus {
	return &Bus{log: log, subs: map[*subscriber]struct{}{}}
}

// Publish records an event and hands it to the subscribers. A zero time becomes now, an empty scope "local".
func (b *Bus) Publish(m events.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.TimeNano == 0 { // under the lock, so that history is in the order of time
		now := time.Now()
		m.Time, m.TimeNano = now.Unix(), now.UnixNano()
	}
	if m.Scope == "" {
		m.Scope = "local"
	}
	if len(b.history) < historySize {
		b.history = append(b.history, m)
	} else {
		b.history[b.next] = m
		b.next = (b.next + 1) % historySize
	}
	for s := range b.subs {
		if s.match != nil && !s.match(m) {
			continue
		}
		select {
		case s.ch <- m:
		default:
			b.log.Warn("an event subscriber is too slow and was dropped", "undelivered", len(s.ch))
			b.drop(s)
		}
	}
}

// Subscribe delivers the events that match (nil: all). With a since, those of the history from then on come first; with an
// until, the channel is closed at that time, at once if it has passed. The channel is also closed when ctx ends, or when
// the subscriber was too slow.
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, match func(events.Message) bool) <-chan events.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	var past []events.Message
	if !since.IsZero() {
		for i := range b.history {
			m := b.history[(b.next+i)%len(b.history)]
			if m.TimeNano < since.UnixNano() || !until.IsZero() && m.TimeNano > until.UnixNano() {
				continue
			}
			if match == nil || match(m) {
				past = append(past, m)
			}
		}
	}
	s := &subscriber{ch: make(chan events.Message, len(past)+backlog), match: match}
	for _, m := range past {
		s.ch <- m
	}
	left := time.Until(until)
	if ctx.Err() != nil || !until.IsZero() && left <= 0 {
		close(s.ch)
		return s.ch
	}
	b.subs[s] = struct{}{}
	// Both functions wait for mu, so that they find the fields set.
	s.stop = context.AfterFunc(ctx, func() { b.unsubscribe(s) })
	if !until.IsZero() {
		s.timer = time.AfterFunc(left, func() { b.unsubscribe(s) })
	}
	return s.ch
}

// Subscribers counts those who listen.
func (b *Bus) Subscribers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
}

func (b *Bus) unsubscribe(s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(s)
}

// drop closes a subscriber's channel once. The caller holds mu.
func (b *Bus) drop(s *subscriber) {
	if _, here := b.subs[s]; !here {
		return
	}
	delete(b.subs, s)
	close(s.ch)
	s.stop()
	if s.timer != nil {
		s.timer.Stop()
	}
}
