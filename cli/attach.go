package cli

import (
	"context"
	"errors"
	"fmt"

	"skiff/client"
)

func setupAttach(c *command) {
	var noStdin, proxy bool
	var detachKeys string
	c.flags.BoolVar(&noStdin, "no-stdin", false, "Don't attach to the input")
	c.flags.BoolVar(&proxy, "sig-proxy", true, "Send signals on to the process")
	c.flags.StringVar(&detachKeys, "detach-keys", "", "Keys that leave the container running alone")
	c.words = func(ctx context.Context, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return c.containers(running)(ctx)
	}
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		info, err := c.inspectContainer(ctx, cl, args[0])
		if err != nil {
			return err
		}
		switch {
		case !info.State.Running:
			return errors.New("cannot attach to a stopped container, start it first")
		case info.State.Paused:
			return errors.New("cannot attach to a paused container, unpause it first")
		case info.State.Restarting:
			return errors.New("cannot attach to a restarting container, wait until it is running")
		}
		stdin := !noStdin && info.Config.OpenStdin
		if err := c.checkTTY(stdin, info.Config.Tty); err != nil {
			return err
		}
		keysText, keys, err := c.keys(detachKeys)
		if err != nil {
			return fmt.Errorf("invalid detach keys: %w", err)
		}
		return c.attachTo(ctx, cl, info, stdin, proxy && !info.Config.Tty, keysText, keys)
	}
}

// attachTo stays attached until the container ends or the user detaches.
func (a *App) attachTo(ctx context.Context, cl *client.Client, info inspected, stdin, proxy bool, keysText string, keys []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if proxy {
		signals := a.proxySignals(ctx, info.ID, false)
		defer signals.stop()
		signals.run()
	}
	conn, wait, err := cl.AttachAndWait(ctx, info.ID, client.AttachOptions{
		Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: keysText, Framed: !info.Config.Tty,
	}, "")
	if err != nil {
		return err
	}
	defer conn.Close()
	s := &session{App: a, conn: conn, stdout: a.Out, tty: info.Config.Tty, detachKeys: keys}
	if stdin {
		s.stdin = a.In
	}
	if info.Config.Tty {
		// A full-screen program draws itself again when the size changes: change it and change it back.
		if h, w, ok := a.ttySize(); ok {
			_ = cl.Resize(ctx, info.ID, h+1, w+1)
		}
		a.followSize(ctx, func(ctx context.Context, h, w uint) error { return cl.Resize(ctx, info.ID, h, w) })
	} else {
		s.stderr = a.Err
	}
	if err := s.copy(ctx); err != nil {
		return err // "read escape sequence" for detached, as docker says
	}
	code, err := wait.Result()
	if err != nil {
		return err
	}
	return exit(code)
}
