package container

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"

	"skiff/internal/errs"
	"skiff/network"
)

// object is one container. Its queue's commands are the only ones to change it; everybody may read the definition and the
// status, which are values that are replaced, never changed. An idle container costs this structure and its definition.
type object struct {
	id    string
	queue queue
	d     atomic.Pointer[definition]
	s     atomic.Pointer[status]
	cache atomic.Pointer[listed] // see list.go

	// cleanup is closed when what the last run left (its control group) is gone. The queue's alone.
	cleanup chan struct{}
	// keep holds back the automatic removal during a restart. The queue's alone.
	keep bool

	mu      sync.Mutex // guards what follows; never held across I/O
	live    *live      // handles of the running process
	waiters []*waiter
	pending []*tap // attached clients who wait for the start
	execs   []*exec
}

// live are the handles of a running container.
type live struct {
	pid    int
	pidfd  *os.File
	stdin  *os.File // write end of the pipe, or the pty's master; nil if the container has no stdin
	master *os.File // the pty's master, nil without a terminal
	group  Group
	ended  chan struct{} // closed when the exit was handled

	once sync.Once // closes stdin
}

func newObject(d *definition, s *status) *object {
	o := &object{id: d.ID}
	o.d.Store(d)
	o.s.Store(s)
	return o
}

func (o *object) def() *definition { return o.d.Load() }
func (o *object) status() *status  { return o.s.Load() }

// set replaces the status.
func (o *object) set(s *status) { o.s.Store(s) }

// handles gives those of the running process, nil if there is none.
func (o *object) handles() *live {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.live
}

func (l *live) close() {
	if l == nil {
		return
	}
	l.once.Do(func() { closeFile(l.stdin) })
	if l.master != l.stdin {
		closeFile(l.master)
	}
	closeFile(l.pidfd)
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// waiter waits for one end.
type waiter struct {
	cond WaitCondition
	ch   chan WaitResult // capacity 1
	stop func() bool     // of the context's AfterFunc
}

// The wait conditions.
const (
	WaitNotRunning WaitCondition = "not-running"
	WaitNextExit   WaitCondition = "next-exit"
	WaitRemoved    WaitCondition = "removed"
)

// Wait implements api.Containers.
func (m *Manager) Wait(ctx context.Context, name string, cond WaitCondition) (<-chan WaitResult, error) {
	switch cond {
	case "":
		cond = WaitNotRunning
	case WaitNotRunning, WaitNextExit, WaitRemoved:
	default:
		return nil, errs.New(errs.Invalid, "invalid condition: %q", cond)
	}
	o, err := m.index.find(name)
	if err != nil {
		return nil, err
	}
	return o.wait(ctx, cond), nil
}

// wait registers a waiter, who gets exactly one result: the end, or the error of ctx.
func (o *object) wait(ctx context.Context, cond WaitCondition) <-chan WaitResult {
	w := &waiter{cond: cond, ch: make(chan WaitResult, 1)}
	o.mu.Lock()
	defer o.mu.Unlock()
	// The status is replaced before the waiters are told, both by the queue, so that none is missed between.
	if s := o.status(); cond == WaitNotRunning && !s.alive() {
		w.ch <- s.result()
		return w.ch
	} else if o.waiters == nil && s.Phase == phaseGone {
		w.ch <- s.result()
		return w.ch
	}
	o.waiters = append(o.waiters, w)
	if ctx.Done() != nil {
		w.stop = context.AfterFunc(ctx, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			if i := slices.Index(o.waiters, w); i >= 0 {
				o.waiters = slices.Delete(o.waiters, i, i+1)
				w.ch <- WaitResult{StatusCode: -1, Err: ctx.Err()}
			}
		})
	}
	return w.ch
}

// result is what a waiter gets. A container that could not be started has an error, as in dockerd.
func (s *status) result() WaitResult {
	r := WaitResult{StatusCode: int64(s.ExitCode)}
	if s.Failed {
		r.Err = errs.New(errs.Internal, "%s", s.Error)
	}
	return r
}

// tell ends the waits for the conditions.
func (o *object) tell(conditions ...WaitCondition) {
	r := o.status().result()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiters = slices.DeleteFunc(o.waiters, func(w *waiter) bool {
		if !slices.Contains(conditions, w.cond) {
			return false
		}
		if w.stop != nil {
			w.stop()
		}
		w.ch <- r
		return true
	})
	if len(o.waiters) == 0 {
		o.waiters = nil
	}
}

// publish tells an event of a container, with Docker's attributes: the labels, image and name, and more in pairs.
func (m *Manager) publish(o *object, action events.Action, more ...string) {
	d := o.def()
	attrs := make(map[string]string, len(d.Config.Labels)+2+len(more)/2)
	for k, v := range d.Config.Labels {
		attrs[k] = v
	}
	attrs["image"], attrs["name"] = d.Config.Image, d.Name
	for i := 0; i+1 < len(more); i += 2 {
		attrs[more[i]] = more[i+1]
	}
	now := time.Now()
	m.cfg.Events.Publish(events.Message{
		Type: events.ContainerEventType, Action: action, Scope: "local",
		Actor: events.Actor{ID: o.id, Attributes: attrs}, Time: now.Unix(), TimeNano: now.UnixNano(),
	})
}

// publishNetwork tells that a container came to a network or left it.
func (m *Manager) publishNetwork(o *object, ep *network.Endpoint, action events.Action) {
	if ep == nil {
		return
	}
	m.cfg.Events.Publish(events.Message{
		Type: events.NetworkEventType, Action: action,
		Actor: events.Actor{ID: ep.NetworkID, Attributes: map[string]string{
			"container": o.id, "name": string(o.def().HostConfig.NetworkMode), "type": "bridge",
		}},
	})
}
