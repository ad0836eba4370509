package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	api "github.com/moby/moby/api/types/container"

	"skiff/internal/errs"
)

const (
	copyBuffer   = 32 << 10
	stopPatience = time.Second
)

// Attach implements api.Containers.
func (m *Manager) Attach(ctx context.Context, name string, opt AttachOptions) (Session, error) {
	keys, err := parseDetachKeys(opt.DetachKeys)
	if err != nil {
		return nil, err
	}
	o, err := m.index.find(name)
	if err != nil {
		return nil, err
	}
	s := &attachSession{m: m, o: o, opt: opt, keys: keys, tty: o.def().Config.Tty, since: time.Now()}
	if opt.Stream {
		err = o.queue.do(ctx, func(ctx context.Context) error { return m.tap(ctx, o, s) })
		if err != nil {
			return nil, err
		}
	}
	m.publish(o, events.ActionAttach)
	return s, nil
}

// tap connects a session to the running process, or registers it for the next start. It is one of the object's commands.
func (m *Manager) tap(ctx context.Context, o *object, s *attachSession) error {
	switch st := o.status(); {
	case st.Phase == api.StatePaused:
		return errs.New(errs.Conflict, "container %s is paused, unpause the container before attach", o.id)
	case st.gone():
		return errs.New(errs.Conflict, "container %s is marked for removal and cannot be attached to", o.id)
	}
	t, err := newTap(s.opt.Stdout, s.opt.Stderr)
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", o.def().Name, err)
	}
	if l := o.handles(); l != nil {
		if sub, ok := t.subscriber(); ok {
			if err := m.cfg.Keeper.Subscribe(ctx, o.id, sub); err != nil {
				t.giveUp()
				closeFile(t.r)
				return fmt.Errorf("attach to container %s: %w", o.def().Name, err)
			}
		}
		t.started(l)
	} else {
		o.mu.Lock()
		o.pending = append(o.pending, t)
		o.mu.Unlock()
	}
	s.t, s.since = t, time.Now()
	return nil
}

// untap takes a tap back that waits for a start.
func (o *object) untap(t *tap) {
	o.mu.Lock()
	i := slices.Index(o.pending, t)
	if i >= 0 {
		o.pending = slices.Delete(o.pending, i, i+1)
	}
	o.mu.Unlock()
	if i >= 0 {
		t.giveUp()
	}
}

// attachSession implements Session.
type attachSession struct {
	m     *Manager
	o     *object
	opt   AttachOptions
	keys  []byte
	tty   bool
	since time.Time // what was written before is in the log
	t     *tap      // nil: no stream
	once  sync.Once
}

// TTY implements Session.
func (s *attachSession) TTY() bool { return s.tty }

// Close implements Session.
func (s *attachSession) Close() error {
	s.once.Do(func() {
		if s.t != nil {
			s.o.untap(s.t)
			closeFile(s.t.r)
		}
	})
	return nil
}

// Run implements Session.
func (s *attachSession) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	defer s.Close()
	if s.opt.Logs {
		if err := s.m.replay(ctx, s.o, LogOptions{Stdout: s.opt.Stdout, Stderr: s.opt.Stderr, Until: s.since, Tail: -1}, out); err != nil {
			return err
		}
	}
	if s.t == nil {
		return nil
	}
	c := conversation{
		tap: s.t, tty: s.tty, keys: s.keys, stdin: s.opt.Stdin && s.o.def().Config.OpenStdin,
		closeStdin: s.o.def().Config.StdinOnce,
		eof:        func(l *live) { s.m.closeStdin(s.o.id, l) },
	}
	err := c.run(ctx, in, out)
	if errors.Is(err, ErrDetached) {
		s.m.publish(s.o, events.ActionDetach)
	}
	return err
}

// closeStdin closes a process's standard input: our end, and the keeper's.
func (m *Manager) closeStdin(process string, l *live) {
	l.once.Do(func() { closeFile(l.stdin) })
	err := m.cfg.Keeper.CloseStdin(context.Background(), process)
	if err != nil && !errs.Is(err, errs.NotFound) {
		m.log.Warn("the keeper did not close a standard input", "process", process, "error", err)
	}
}

// conversation copies between a client and a process.
type conversation struct {
	tap        *tap
	tty        bool
	keys       []byte // that detach, with a terminal
	stdin      bool   // the client's input is wanted
	closeStdin bool   // its end closes the process's
	eof        func(*live)
}

// run ends with the process, with the client (his connection fails, or the caller ends ctx), or when he detaches. The end
// of his input alone does not end it: a client whose standard input is empty still wants the output.
func (c *conversation) run(ctx context.Context, in io.Reader, out io.Writer) error {
	var output, input chan error
	left := make(chan struct{})
	defer close(left)
	if c.tap.r != nil {
		output = make(chan error, 1)
		go func() { output <- c.copyOut(out) }()
	}
	if c.stdin {
		input = make(chan error, 1)
		go func() { input <- c.copyIn(in, left) }()
	} else {
		forgo(in)
	}
	ready := c.tap.ready
	var ended chan struct{} // the process's end, if no output tells it
	for {
		select {
		case err := <-output:
			return err
		case err := <-input:
			if err != nil || output == nil {
				return c.stop(output, err)
			}
			input = nil
		case <-ready:
			if ready = nil; output == nil {
				if c.tap.live == nil {
					return nil
				}
				ended = c.tap.live.ended
			}
		case <-ended:
			return nil
		case <-ctx.Done():
			return c.stop(output, ctx.Err())
		}
	}
}

// forgo says that nobody reads the client's input. That he leaves is still to be noticed: an input with a method Unread looks after
// that by itself, any other is read to its end.
func forgo(in io.Reader) {
	if u, ok := in.(interface{ Unread() }); ok {
		u.Unread()
	} else if in != nil {
		go func() { _, _ = io.Copy(io.Discard, in) }()
	}
}

// stop ends the output, so that nothing is written after Run has returned.
func (c *conversation) stop(output <-chan error, why error) error {
	if output != nil {
		_ = c.tap.r.SetReadDeadline(time.Unix(1, 0))
		select {
		case <-output:
		case <-time.After(stopPatience): // the client doesn't read; he will find the connection closed
		}
	}
	return why
}

func (c *conversation) copyOut(out io.Writer) error {
	// The buffer is no io.CopyBuffer's: it must be written at once, whatever out can do.
	buf := make([]byte, copyBuffer)
	for {
		n, err := c.tap.r.Read(buf)
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return fmt.Errorf("send output: %w", err)
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read output: %w", err)
		}
	}
}

// copyIn gives what the client types to the process, as soon as there is one. left is closed when nobody wants it.
func (c *conversation) copyIn(in io.Reader, left <-chan struct{}) error {
	if c.tty {
		in = &detachReader{r: in, keys: c.keys}
	}
	buf := make([]byte, copyBuffer)
	for {
		n, err := in.Read(buf)
		select {
		case <-c.tap.ready:
		case <-left:
			return nil
		}
		l := c.tap.live
		if l == nil {
			return nil
		}
		if n > 0 && l.stdin != nil {
			if _, werr := l.stdin.Write(buf[:n]); werr != nil {
				return c.drain(in, left) // the process reads no more; its output goes on
			}
		}
		switch {
		case errors.Is(err, ErrDetached):
			return err
		case err != nil:
			// An error of the connection is an end like EOF: the output's side reports it if it matters.
			if c.closeStdin && !c.tty {
				c.eof(l)
			}
			return nil
		}
	}
}

// drain reads on, for the detach keys and the client's end.
func (c *conversation) drain(in io.Reader, left <-chan struct{}) error {
	buf := make([]byte, copyBuffer)
	for {
		if _, err := in.Read(buf); err != nil {
			if errors.Is(err, ErrDetached) {
				return err
			}
			return nil
		}
		select {
		case <-left:
			return nil
		default:
		}
	}
}
