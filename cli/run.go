package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"skiff/client"
)

func setupRun(c *command) {
	o := &runOptions{}
	r := &runCommand{command: c, o: o}
	o.define(c)
	c.flags.BoolVarP(&r.detach, "detach", "d", false, "Run in the background and print the container's id")
	c.flags.StringVar(&r.detachKeys, "detach-keys", "", "Keys that leave the container running alone")
	c.flags.BoolVar(&r.sigProxy, "sig-proxy", true, "Send signals on to the process")
	c.run = r.run
}

// runCommand is `skiff run`.
type runCommand struct {
	*command
	o                *runOptions
	detach, sigProxy bool
	detachKeys       string
}

func (r *runCommand) run(ctx context.Context, args []string) error {
	if err := r.o.checkPull(); err != nil {
		return withHelp(err, "run", 125)
	}
	body, err := r.o.body(r.command, args)
	if err != nil {
		return withHelp(err, "run", 125)
	}
	if r.detach {
		if len(r.o.attach) > 0 {
			return errors.New("conflicting options: cannot specify both --attach and --detach")
		}
		body.AttachStdin, body.AttachStdout, body.AttachStderr, body.StdinOnce = false, false, false, false
	} else if err := r.checkTTY(body.AttachStdin, body.Tty); err != nil {
		return err
	}
	keysText, keys, err := r.keys(r.detachKeys)
	if err != nil {
		return withHelp(fmt.Errorf("invalid detach keys: %w", err), "run", 125)
	}
	cl, err := r.client()
	if err != nil {
		return withHelp(err, "run", 125)
	}
	if !r.detach {
		r.prepare(ctx, cl)
	}
	id, err := r.create(ctx, r.o, body)
	if err != nil {
		return runError(err)
	}
	if !body.AttachStdin && !body.AttachStdout && !body.AttachStderr {
		return r.background(ctx, cl, id)
	}
	return r.foreground(ctx, cl, id, body, keysText, keys)
}

// prepare opens the connections for attach and wait: the daemon takes them in while it makes the container. Where a connection
// costs a process, that is left for later.
func (r *runCommand) prepare(ctx context.Context, cl *client.Client) {
	if !strings.HasPrefix(cl.Host(), "unix:") {
		return
	}
	cl.Prepare(ctx)
	cl.Prepare(ctx)
}

// background starts the container and prints its id, also if it does not start: it is there then.
func (r *runCommand) background(ctx context.Context, cl *client.Client, id string) error {
	err := cl.Start(ctx, id, "")
	fmt.Fprintln(r.Out, id)
	if err != nil {
		return runError(err)
	}
	return nil
}

// foreground attaches, registers for the end, starts, and stays until the streams are drained and the end is known.
func (r *runCommand) foreground(ctx context.Context, cl *client.Client, id string, body *client.CreateBody, keysText string, keys []byte) error {
	s := &attachedStart{
		id: id, name: id, autoRemove: body.HostConfig.AutoRemove, sigProxy: r.sigProxy,
		attach: client.AttachOptions{
			Stdin: body.AttachStdin, Stdout: body.AttachStdout, Stderr: body.AttachStderr, DetachKeys: keysText, Framed: !body.Tty,
		},
		session: r.session(body, keys), wrap: runError,
		copyError: func(err error) error { return withHelp(err, "run", 125) },
	}
	return s.do(ctx, cl)
}

func (r *runCommand) session(body *client.CreateBody, keys []byte) session {
	s := session{App: r.App, tty: body.Tty, detachKeys: keys}
	if body.AttachStdin {
		s.stdin = r.In
	}
	if body.AttachStdout {
		s.stdout = r.Out
	}
	if body.AttachStderr {
		s.stderr = r.Err
		if body.Tty {
			s.stderr, s.stdout = nil, r.Out
		}
	}
	return s
}

// runError gives an error of run its status: 127 for a command that isn't there, 126 for one that can't be run, else 125.
func runError(err error) error {
	text := err.Error()
	code := 125
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		code = 127
	case strings.Contains(text, syscall.EACCES.Error()), strings.Contains(text, syscall.EISDIR.Error()):
		code = 126
	}
	var connect *client.ConnectError
	if errors.As(err, &connect) {
		code = 125
	}
	return withHelp(err, "run", code)
}
