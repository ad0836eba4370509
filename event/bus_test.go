package event

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/events"
)

func message(id int) events.Message {
	return events.Message{Type: events.ContainerEventType, Action: events.ActionStart, Actor: events.Actor{ID: fmt.Sprint(id)}}
}

func drain(ch <-chan events.Message) (ids []string) {
	for m := range ch {
		ids = append(ids, m.Actor.ID)
	}
	return ids
}

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(slog.New(slog.DiscardHandler))
		start := time.Now()
		for i := range 5 {
			b.Publish(message(i))
			time.Sleep(time.Second)
		}
		for _, tc := range []struct {
			name         string
			since, until time.Duration // after start; < 0: none
			odd          bool
			want         string
		}{
			{"past only", 0, 4500 * time.Millisecond, false, "0 1 2 3 4"},
			{"a part of the past", 1500 * time.Millisecond, 3 * time.Second, false, "2 3"},
			{"past and future", 3 * time.Second, 8 * time.Second, false, "3 4 100 101"},
			{"future only", -1, 8 * time.Second, false, "100 101"},
			{"filtered", 0, 8 * time.Second, true, "1 3 101"},
		} {
			since, until := time.Time{}, time.Time{}
			if tc.since >= 0 {
				since = start.Add(tc.since)
			}
			if tc.until >= 0 {
				until = start.Add(tc.until)
			}
			match := func(m events.Message) bool { return m.Actor.ID[len(m.Actor.ID)-1]%2 == 1 }
			if !tc.odd {
				match = nil
			}
			ch := b.Subscribe(t.Context(), since, until, match)
			t.Cleanup(func() {
				if got := strings.Join(drain(ch), " "); got != tc.want {
					t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
				}
			})
		}
		b.Publish(message(100))
		b.Publish(message(101))
		time.Sleep(10 * time.Second)
		b.Publish(message(102))
		if len(b.subs) != 0 {
			t.Errorf("%d subscribers are left", len(b.subs))
		}
	})
}

func TestSlowAndGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		b := New(slog.New(slog.NewTextHandler(&log, nil)))
		slow := b.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		gone := b.Subscribe(ctx, time.Time{}, time.Time{}, nil)
		b.Publish(message(0))
		cancel()
		synctest.Wait()
		for i := range backlog + 10 {
			b.Publish(message(i))
		}
		if n := len(drain(gone)); n != 1 {
			t.Errorf("the one who left got %d events, want 1", n)
		}
		if n := len(drain(slow)); n != backlog {
			t.Errorf("the slow one got %d events, want %d", n, backlog)
		}
		if !strings.Contains(log.String(), "too slow") {
			t.Errorf("log: %q", log.String())
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	b := New(slog.New(slog.DiscardHandler))
	for i := range historySize*2 + 7 {
		b.Publish(message(i))
	}
	ids := drain(b.Subscribe(t.Context(), time.Unix(1, 0), time.Now(), nil))
	if len(ids) != historySize || ids[0] != fmt.Sprint(historySize+7) || ids[len(ids)-1] != fmt.Sprint(historySize*2+6) {
		t.Errorf("%d events from %s to %s", len(ids), ids[0], ids[len(ids)-1])
	}
	if slices.Contains(ids, "0") {
		t.Error("the oldest event is still there")
	}
}
