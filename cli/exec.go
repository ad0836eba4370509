package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"

	"skiff/client"
)

func setupExec(c *command) {
	e := &execCommand{command: c}
	f := c.flags
	f.SetInterspersed(false)
	f.BoolVarP(&e.detach, "detach", "d", false, "Run in the background")
	f.StringVar(&e.detachKeys, "detach-keys", "", "Keys that leave the process running alone")
	f.VarP(&listValue{p: &e.env, check: envValue(os.LookupEnv)}, "env", "e", "Environment variable")
	f.Var(&listValue{p: &e.envFile}, "env-file", "File of environment variables")
	f.BoolVarP(&e.interactive, "interactive", "i", false, "Attach to the input")
	f.BoolVar(&e.body.Privileged, "privileged", false, "Nearly all rights of the host")
	f.BoolVarP(&e.body.Tty, "tty", "t", false, "Give the process a terminal")
	f.StringVarP(&e.body.User, "user", "u", "", "User name or UID (<name|uid>[:<group|gid>])")
	f.StringVarP(&e.body.WorkingDir, "workdir", "w", "", "Working folder inside the container")
	c.words = func(ctx context.Context, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return c.containers(running)(ctx)
	}
	c.run = e.run
}

type execCommand struct {
	*command
	body                client.ExecBody
	detach, interactive bool
	detachKeys          string
	env, envFile        []string
}

func (e *execCommand) run(ctx context.Context, args []string) error {
	for _, f := range e.envFile {
		lines, err := readEnvFile(f, os.LookupEnv)
		if err != nil {
			return err
		}
		e.body.Env = append(e.body.Env, lines...)
	}
	e.body.Env = append(e.body.Env, e.env...)
	e.body.Cmd = args[1:]
	if !e.detach {
		e.body.AttachStdout, e.body.AttachStderr, e.body.AttachStdin = true, true, e.interactive
		if err := e.checkTTY(e.body.AttachStdin, e.body.Tty); err != nil {
			return err
		}
	}
	keysText, keys, err := e.keys(e.detachKeys)
	if err != nil {
		return err
	}
	e.body.DetachKeys = keysText
	if h, w, ok := e.ttySize(); ok && e.body.Tty {
		e.body.ConsoleSize = &[2]uint{h, w}
	}
	cl, err := e.client()
	if err != nil {
		return err
	}
	if e.detach {
		return e.background(ctx, cl, args[0])
	}
	return e.foreground(ctx, cl, args[0], keys)
}

func (e *execCommand) background(ctx context.Context, cl *client.Client, container string) error {
	id, err := cl.ExecCreate(ctx, container, e.body)
	if err != nil {
		return err
	}
	if id == "" {
		return errors.New("exec ID empty")
	}
	return execError(cl.ExecStartDetached(ctx, id, client.ExecStartBody{Tty: e.body.Tty, ConsoleSize: e.body.ConsoleSize}))
}

func (e *execCommand) foreground(ctx context.Context, cl *client.Client, container string, keys []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	id, conn, err := cl.RunExec(ctx, container, e.body)
	if err != nil {
		return execError(err)
	}
	defer conn.Close()
	s := &session{App: e.App, conn: conn, stdout: e.Out, tty: e.body.Tty, detachKeys: keys}
	if e.interactive {
		s.stdin = e.In
	}
	if e.body.Tty {
		e.followSize(ctx, func(ctx context.Context, h, w uint) error { return cl.ExecResize(ctx, id, h, w) })
	} else {
		s.stderr = e.Err
	}
	if err := s.copy(ctx); err != nil {
		if errors.Is(err, errDetached) {
			return nil
		}
		return err
	}
	if conn.Exit != nil {
		return exit(*conn.Exit)
	}
	state, err := cl.ExecInspect(ctx, id)
	if err != nil {
		var connect *client.ConnectError
		if errors.As(err, &connect) {
			return exit(255) // the daemon went away: docker's status for it
		}
		return err
	}
	if state.ExitCode == nil {
		return nil
	}
	return exit(*state.ExitCode)
}

// execError gives an error of exec its status: 127 for a command that isn't there, 126 for one that can't be run.
func execError(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	var answer *client.Error
	if !errors.As(err, &answer) {
		return err
	}
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		return &statusError{code: 127, text: text, err: err}
	case strings.Contains(text, syscall.EACCES.Error()), strings.Contains(text, syscall.EISDIR.Error()):
		return &statusError{code: 126, text: text, err: err}
	}
	return err
}
