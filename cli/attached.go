package cli

import (
	"context"
	"errors"

	"skiff/client"
)

// attachedStart starts a container with our streams connected to it, and stays until they are drained and its end is known.
type attachedStart struct {
	id, name   string // name is how the user calls it
	autoRemove bool
	sigProxy   bool
	attach     client.AttachOptions
	session    session // all but the connection
	// wrap gives an error of the daemon its text and status, copyError one of the streams.
	wrap, copyError func(error) error
}

func (s *attachedStart) do(ctx context.Context, cl *client.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	running := func() {}
	if s.sigProxy {
		signals := s.session.proxySignals(ctx, s.id, s.session.tty)
		defer signals.stop()
		running = signals.run
	}
	condition := "next-exit"
	if s.autoRemove {
		condition = "removed"
	}
	conn, wait, err := cl.AttachAndWait(ctx, s.id, s.attach, condition)
	if err != nil {
		return s.wrap(err)
	}
	defer conn.Close()
	s.session.conn = conn
	copyCtx, stop := context.WithCancel(ctx)
	defer stop()
	copied := func() error { return s.session.copy(copyCtx) }
	if s.session.stdin != nil {
		copied = s.copyAside(copyCtx)
	}
	if err := cl.Start(ctx, s.name, ""); err != nil {
		stop()
		if s.session.stdin != nil {
			_ = copied() // the terminal is as it was
		}
		if s.autoRemove {
			_, _ = wait.Result()
		}
		return s.wrap(err)
	}
	running()
	if s.session.tty {
		s.session.followSize(ctx, func(ctx context.Context, h, w uint) error { return cl.Resize(ctx, s.id, h, w) })
	}
	if err := copied(); errors.Is(err, errDetached) {
		return nil // left alone, as the user wished
	} else if err != nil {
		return s.copyError(err)
	}
	code, err := wait.Result()
	if err != nil {
		return &statusError{code: 125, text: err.Error(), err: err}
	}
	return exit(code)
}

// copyAside copies from now on; what it returns waits for the end. Without input of ours that isn't needed: what comes before we
// read it waits in the connection.
func (s *attachedStart) copyAside(ctx context.Context) func() error {
	copied := make(chan error, 1)
	go func() { copied <- s.session.copy(ctx) }()
	return func() error { return <-copied }
}
