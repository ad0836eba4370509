package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"skiff/client"
)

func setupStop(c *command) {
	signal, timeout := stopFlags(c)
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		return c.eachAtOnce(ctx, args, func(ctx context.Context, name string) error {
			return cl.Stop(ctx, name, *signal, timeout())
		})
	}
}

func setupRestart(c *command) {
	signal, timeout := stopFlags(c)
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		return c.each(ctx, args, func(ctx context.Context, name string) error {
			if err := cl.Restart(ctx, name, *signal, timeout()); err != nil {
				return err
			}
			fmt.Fprintln(c.Out, name)
			return nil
		})
	}
	c.words = c.all(c.containers(anyState))
}

// stopFlags defines --signal and --timeout, which was --time.
func stopFlags(c *command) (signal *string, timeout func() *int) {
	signal = c.flags.StringP("signal", "s", "", "Signal that asks to stop")
	var seconds int
	c.flags.IntVarP(&seconds, "timeout", "t", 0, "Seconds until what does not stop is killed")
	c.flags.IntVar(&seconds, "time", 0, "Seconds until what does not stop is killed")
	_ = c.flags.MarkHidden("time")
	c.choices("signal", signalNames()...)
	c.words = c.all(c.containers(running))
	return signal, func() *int {
		if c.changed("timeout") || c.changed("time") {
			return &seconds
		}
		return nil
	}
}

func setupKill(c *command) {
	signal := c.flags.StringP("signal", "s", "", "Signal to send, KILL without one")
	c.choices("signal", signalNames()...)
	c.words = c.all(c.containers(running))
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		return c.eachAtOnce(ctx, args, func(ctx context.Context, name string) error { return cl.Kill(ctx, name, *signal) })
	}
}

func setupRm(c *command) {
	var opt client.RemoveOptions
	c.flags.BoolVarP(&opt.Force, "force", "f", false, "Kill a running container first")
	c.flags.BoolVarP(&opt.Link, "link", "l", false, "Remove the link, not the container")
	c.flags.BoolVarP(&opt.Volumes, "volumes", "v", false, "Remove its anonymous volumes too")
	c.words = c.all(func(ctx context.Context) []string {
		if opt.Force {
			return c.containers(anyState)(ctx)
		}
		return c.containers(stopped)(ctx)
	})
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		return c.eachAtOnce(ctx, args, func(ctx context.Context, name string) error {
			name = strings.Trim(name, "/")
			if name == "" {
				//lint:ignore ST1005 docker's words
				return errors.New("Container name cannot be empty")
			}
			err := cl.Remove(ctx, name, opt)
			if opt.Force && client.IsNotFound(err) {
				return &forgiven{err} // a container that is not there is as good as removed
			}
			return err
		})
	}
}

// forgiven is an error that is reported and does not make the command fail.
type forgiven struct{ error }

func setupWait(c *command) {
	c.words = c.all(c.containers(running))
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		return c.each(ctx, args, func(ctx context.Context, name string) error {
			w, err := cl.Wait(ctx, name, "")
			if err != nil {
				return err
			}
			code, err := w.Result()
			if err != nil {
				return err
			}
			fmt.Fprintln(c.Out, code)
			return nil
		})
	}
}

func setupTop(c *command) {
	c.flags.SetInterspersed(false)
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
		top, err := cl.TopProcesses(ctx, args[0], strings.Join(args[1:], " "))
		if err != nil {
			return err
		}
		t := newTable(c.Out, 20)
		t.row(top.Titles...)
		for _, p := range top.Processes {
			t.row(p...)
		}
		return t.flush()
	}
}
