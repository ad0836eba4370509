package oci

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime"
	"skiff/runtime/launch"
)

// Start lets a created container's process execute its program. It returns when execve has succeeded, or says why it didn't.
func (r *Runtime) Start(id string) error {
	c, err := r.locked(id)
	if err != nil {
		return err
	}
	defer c.release()
	switch s := c.Status(); s {
	case specs.StateCreated:
	case specs.StateStopped:
		return errs.New(errs.Conflict, "cannot start a container that has stopped")
	case specs.StateRunning:
		return errs.New(errs.Conflict, "cannot start an already running container")
	default:
		return errs.New(errs.Conflict, "cannot start a container in the %s state", s)
	}
	if err := c.hooksBeforeStart(); err != nil {
		_ = unix.Kill(c.PID, unix.SIGKILL) // still at the gate: nobody else's pid
		return err
	}
	if err := c.openGate(); err != nil {
		return err
	}
	c.hooksAfterStart()
	return nil
}

func (c *Container) hooksBeforeStart() error {
	if c.Spec.Hooks == nil || len(c.Spec.Hooks.StartContainer) == 0 {
		return nil
	}
	fd, err := c.pidfd()
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	flags, err := runtime.Foreign(c.PID)
	if err != nil {
		return err
	}
	return runHooks("startContainer", c.Spec.Hooks.StartContainer, c.State(), fd, flags)
}

// hooksAfterStart runs the poststart hooks. The container runs: a hook that fails is only told (runtime specification, 1.0.2).
func (c *Container) hooksAfterStart() {
	if c.Spec.Hooks == nil {
		return
	}
	for i := range c.Spec.Hooks.Poststart {
		if err := runHooks("poststart", c.Spec.Hooks.Poststart[i:i+1], c.State(), nil, 0); err != nil {
			slog.Warn(err.Error(), "container", c.ID)
		}
	}
}

// openGate writes the byte that the child waits for and reads what becomes of it.
func (c *Container) openGate() error {
	fd, err := unix.Open(c.file("errors"), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open the fifo for errors: %w", err)
	}
	report := os.NewFile(uintptr(fd), "errors")
	defer func() { _ = report.Close() }() // only read
	gate, err := os.OpenFile(c.file("gate"), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	_, err = gate.Write([]byte{1})
	if err = errors.Join(err, gate.Close()); err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	// From here on the container is no longer created.
	if err := errors.Join(os.Remove(c.file("gate")), os.Remove(c.file("errors"))); err != nil {
		return fmt.Errorf("remove the gate: %w", err)
	}
	records, err := io.ReadAll(report)
	if err != nil {
		return fmt.Errorf("wait for the process to execute: %w", err)
	}
	p, err := c.program()
	if err != nil {
		return err
	}
	if step := p.Failure(records); step != nil {
		return step
	}
	return nil
}

// keepProgram stores the program, for the names of its steps when one fails after the gate.
func (c *Container) keepProgram(p *launch.Program) error {
	b, err := p.MarshalBinary()
	if err != nil {
		return fmt.Errorf("encode the launch program: %w", err)
	}
	if err := os.WriteFile(c.file("program"), b, 0o600); err != nil {
		return fmt.Errorf("store the launch program: %w", err)
	}
	return nil
}

func (c *Container) program() (*launch.Program, error) {
	b, err := os.ReadFile(c.file("program"))
	if err != nil {
		return nil, fmt.Errorf("read the launch program: %w", err)
	}
	p := &launch.Program{}
	if err := p.UnmarshalBinary(b); err != nil {
		return nil, err
	}
	return p, nil
}

// waitGone waits until the container's process has ended.
func (c *Container) waitGone(within time.Duration) bool {
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if !c.alive() {
			return true
		}
	}
	return !c.alive()
}

// hooksAfterStop runs the poststop hooks. Nothing can be undone any more: a hook that fails is only told.
func (c *Container) hooksAfterStop(state *specs.State) {
	if c.Spec.Hooks == nil {
		return
	}
	for i := range c.Spec.Hooks.Poststop {
		if err := runHooks("poststop", c.Spec.Hooks.Poststop[i:i+1], state, nil, 0); err != nil {
			slog.Warn(err.Error(), "container", c.ID)
		}
	}
}
