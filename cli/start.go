package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"skiff/client"
)

func setupStart(c *command) {
	s := &startCommand{command: c}
	c.flags.BoolVarP(&s.attach, "attach", "a", false, "Attach to the output and send signals on")
	c.flags.BoolVarP(&s.interactive, "interactive", "i", false, "Attach to the input")
	c.flags.StringVar(&s.detachKeys, "detach-keys", "", "Keys that leave the container running alone")
	c.words = c.all(c.containers(stopped))
	c.run = s.run
}

type startCommand struct {
	*command
	attach, interactive bool
	detachKeys          string
}

func (s *startCommand) run(ctx context.Context, args []string) error {
	cl, err := s.client()
	if err != nil {
		return err
	}
	if s.attach || s.interactive {
		if len(args) > 1 {
			return errors.New("you cannot start and attach multiple containers at once")
		}
		return s.attached(ctx, cl, args[0])
	}
	var failed []string
	for _, name := range args {
		if err := cl.Start(ctx, name, ""); err != nil {
			fmt.Fprintln(s.Err, err)
			failed = append(failed, name)
			continue
		}
		fmt.Fprintln(s.Out, name)
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed to start containers: %s", join(failed))
	}
	return nil
}

func join(names []string) string {
	out := ""
	for i, n := range names {
		if i > 0 {
			out += ", "
		}
		out += n
	}
	return out
}

// inspected is what attach and start -a need to know of a container.
type inspected struct {
	ID    string `json:"Id"`
	Image string
	State struct {
		Running, Paused, Restarting bool
		ExitCode                    int
	}
	Config     struct{ Tty, OpenStdin, AttachStdin bool }
	HostConfig struct{ AutoRemove bool }
}

func (a *App) inspectContainer(ctx context.Context, cl *client.Client, name string) (inspected, error) {
	var c inspected
	text, err := cl.InspectContainer(ctx, name, false)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("read what the daemon knows of container %s: %w", name, err)
	}
	return c, nil
}

// attached starts a container whose streams are ours, and stays until it ends.
func (s *startCommand) attached(ctx context.Context, cl *client.Client, name string) error {
	info, err := s.inspectContainer(ctx, cl, name)
	if err != nil {
		return err
	}
	keysText, keys, err := s.keys(s.detachKeys)
	if err != nil {
		return fmt.Errorf("invalid detach keys: %w", err)
	}
	input := s.interactive && info.Config.OpenStdin
	same := func(err error) error { return err }
	as := &attachedStart{
		id: info.ID, name: name, autoRemove: info.HostConfig.AutoRemove, sigProxy: !info.Config.Tty, wrap: same, copyError: same,
		attach: client.AttachOptions{
			Stdin: input, Stdout: true, Stderr: true, DetachKeys: keysText, Framed: !info.Config.Tty,
		},
		session: session{App: s.App, stdout: s.Out, tty: info.Config.Tty, detachKeys: keys},
	}
	if input {
		as.session.stdin = s.In
	}
	if !info.Config.Tty {
		as.session.stderr = s.Err
	}
	return as.do(ctx, cl)
}
