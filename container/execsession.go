package container

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// ExecStart implements api.Execs.
func (m *Manager) ExecStart(ctx context.Context, id string, opt ExecStartOptions) (Session, error) {
	e, err := m.index.findExec(id)
	if err != nil {
		return nil, err
	}
	if err := canExec(e.o); err != nil {
		return nil, err
	}
	if err := e.claim(); err != nil {
		return nil, err
	}
	if opt.Detach {
		return nil, m.launchExec(context.WithoutCancel(ctx), e, nil, opt.ConsoleSize)
	}
	return &execSession{m: m, e: e, opt: opt}, nil
}

// execSession implements Session.
type execSession struct {
	m    *Manager
	e    *exec
	opt  ExecStartOptions
	once sync.Once
}

// TTY implements Session.
func (s *execSession) TTY() bool { return s.e.req.Tty }

// Close implements Session.
func (s *execSession) Close() error {
	s.once.Do(s.e.unclaim)
	return nil
}

// Run implements Session. When it returns without an error and without a detach, the exit code can be inspected.
func (s *execSession) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	s.once.Do(func() {})
	e := s.e
	t, err := newTap(e.req.AttachStdout || e.req.Tty && e.req.AttachStderr, e.req.AttachStderr && !e.req.Tty)
	if err != nil {
		return s.m.execFailed(e, err)
	}
	defer closeFile(t.r)
	if err := s.m.launchExec(context.WithoutCancel(ctx), e, t, s.opt.ConsoleSize); err != nil {
		t.giveUp()
		return err
	}
	e.mu.Lock()
	l := &live{stdin: e.stdin, master: e.master, ended: e.ended}
	e.mu.Unlock()
	t.started(l)
	c := conversation{
		tap: t, tty: e.req.Tty, keys: e.keys, stdin: s.opt.Stdin && e.req.AttachStdin, closeStdin: true,
		eof: func(l *live) { s.m.closeStdin(execProcessID(e.container, e.id), l) },
	}
	err = c.run(ctx, in, out)
	if errors.Is(err, ErrDetached) {
		s.m.publish(e.o, events.ActionExecDetach, "execID", e.id)
	}
	if err != nil {
		return err
	}
	select {
	case <-e.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ExecResize implements api.Execs.
func (m *Manager) ExecResize(ctx context.Context, id string, height, width uint) error {
	e, err := m.index.findExec(id)
	if err != nil {
		return err
	}
	patience := time.NewTimer(resizePatience)
	defer patience.Stop()
	select {
	case <-e.started:
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
		return errs.New(errs.Internal, "timeout waiting for exec session ready")
	}
	e.mu.Lock()
	master, running := e.master, e.running
	e.mu.Unlock()
	if !running {
		return errs.New(errs.Conflict, "exec %s is not running", id)
	}
	if err := resize(master, height, width); err != nil {
		return errs.New(errs.Of(err), "cannot resize exec %s: %w", id, err)
	}
	return nil
}

// Resize implements api.Containers.
func (m *Manager) Resize(_ context.Context, name string, height, width uint) error {
	o, err := m.index.find(name)
	if err != nil {
		return err
	}
	l := o.handles()
	if l == nil {
		return errs.New(errs.Conflict, "container %s is not running", o.id)
	}
	if err := resize(l.master, height, width); err != nil {
		return errs.New(errs.Of(err), "cannot resize container %s: %w", o.id, err)
	}
	m.publish(o, events.ActionResize, "height", strconv.FormatUint(uint64(height), 10), "width", strconv.FormatUint(uint64(width), 10))
	return nil
}

func resize(master *os.File, height, width uint) error {
	if master == nil {
		return errs.New(errs.Invalid, "it has no terminal")
	}
	const limit = 1<<16 - 1
	if height > limit || width > limit {
		return errs.New(errs.Invalid, "a terminal of %d lines and %d columns is too large", height, width)
	}
	c, err := master.SyscallConn()
	if err != nil {
		return err
	}
	cerr := c.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)})
	})
	if err == nil {
		err = cerr
	}
	return err
}
