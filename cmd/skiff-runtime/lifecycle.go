package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"skiff/runtime"
	"skiff/runtime/launch"
	"skiff/runtime/oci"
)

// stdio are our own streams, for processes to have.
func stdio() runtime.Stdio { return runtime.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }

// createFlags adds the flags that create and run share.
func createFlags(cmd *cobra.Command, o *oci.CreateOptions) {
	f := cmd.Flags()
	f.StringVarP(&o.Bundle, "bundle", "b", ".", "folder of the bundle")
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "unix socket that gets the terminal's master")
	f.StringVar(&o.PIDFile, "pid-file", "", "file for the process id")
	f.IntVar(&o.Preserve, "preserve-fds", 0, "how many further descriptors, from 3 on, the process gets")
	f.BoolVar(&o.NoPivot, "no-pivot", false, "don't exchange the roots with pivot_root")
	f.BoolVar(&o.NoKeyring, "no-new-keyring", false, "don't make a session keyring")
}

// listenFDs adds the descriptors of systemd's socket activation to those that are handed on.
func listenFDs(n int) int {
	more, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || more < 0 {
		return n
	}
	return n + more
}

func (a *app) create() *cobra.Command {
	var o oci.CreateOptions
	cmd := &cobra.Command{Use: "create [flags] ID", Short: "create a container", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		o.Stdio, o.Preserve = stdio(), listenFDs(o.Preserve)
		_, _, err := a.rt.Create(args[0], o)
		return err
	}}
	createFlags(cmd, &o)
	return cmd
}

func (a *app) start() *cobra.Command {
	return &cobra.Command{Use: "start ID", Short: "execute the program of a created container", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		return a.rt.Start(args[0])
	}}
}

func (a *app) run() *cobra.Command {
	var o oci.CreateOptions
	var detach, keep bool
	cmd := &cobra.Command{Use: "run [flags] ID", Short: "create and start a container", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		o.Preserve = listenFDs(o.Preserve)
		return a.runContainer(args[0], o, detach, keep)
	}}
	createFlags(cmd, &o)
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "don't wait for the process")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the container when its process has ended")
	cmd.Flags().Bool("no-subreaper", false, "has no effect: nobody is reaped for the container")
	return cmd
}

func (a *app) runContainer(id string, o oci.CreateOptions, detach, keep bool) error {
	var console oci.Terminal
	o.Stdio = stdio()
	if !detach && o.ConsoleSocket == "" {
		o.Console = console.Attach
	}
	_, p, err := a.rt.Create(id, o)
	if err != nil {
		console.Close()
		return err
	}
	stop := forward(p)
	defer stop()
	if err := a.rt.Start(id); err != nil {
		console.Close()
		return errors.Join(err, a.rt.Delete(id, true))
	}
	if detach {
		return nil
	}
	code, err := p.Wait()
	console.Close()
	if !keep {
		err = errors.Join(err, a.rt.Delete(id, true))
	}
	return status(code, err)
}

// status makes an error of an exit code.
func status(code int, err error) error {
	if err == nil && code != 0 {
		return exitStatus(code)
	}
	return err
}

// forward passes our signals on to a process.
func forward(p *launch.Process) (stop func()) {
	c := make(chan os.Signal, 16)
	signal.Notify(c)
	go func() {
		for s := range c {
			sig, ok := s.(unix.Signal)
			if !ok || sig == unix.SIGCHLD || sig == unix.SIGURG || sig == unix.SIGWINCH || sig == unix.SIGPIPE {
				continue
			}
			if err := unix.PidfdSendSignal(int(p.PIDFD.Fd()), sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				slog.Warn("pass a signal on", "signal", sig, "error", err)
			}
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
	}
}

func (a *app) state() *cobra.Command {
	return &cobra.Command{Use: "state ID", Short: "print a container's state", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		c, err := a.rt.Load(args[0])
		if err != nil {
			return err
		}
		return printJSON(c.State())
	}}
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func (a *app) kill() *cobra.Command {
	var all bool
	cmd := &cobra.Command{Use: "kill [flags] ID [SIGNAL]", Short: "send a signal to a container", Args: cobra.RangeArgs(1, 2), RunE: func(_ *cobra.Command, args []string) error {
		name := "TERM"
		if len(args) == 2 {
			name = args[1]
		}
		sig, err := oci.ParseSignal(name)
		if err != nil {
			return err
		}
		return a.rt.Kill(args[0], sig, all)
	}}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "to all processes of the container")
	return cmd
}

func (a *app) delete() *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "delete [flags] ID", Short: "remove a stopped container", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		return a.rt.Delete(args[0], force)
	}}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill it first if it runs; one that does not exist is fine")
	return cmd
}
