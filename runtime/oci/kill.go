package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
)

// ParseSignal reads a signal's number or name, with or without SIG.
func ParseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, errs.New(errs.Invalid, "unknown signal %q", s)
		}
		return unix.Signal(n), nil
	}
	if n := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")); n != 0 {
		return n, nil
	}
	return 0, errs.New(errs.Invalid, "unknown signal %q", s)
}

// harmless are the signals that do not end a process that has no handler for them.
var harmless = []unix.Signal{unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}

// Kill sends a signal to the container's first process, or to all its processes.
func (r *Runtime) Kill(id string, sig unix.Signal, all bool) error {
	c, err := r.Load(id)
	if err != nil {
		return err
	}
	if all {
		return c.killAll(sig)
	}
	if c.Status() == specs.StateStopped {
		return errs.New(errs.Conflict, "container not running")
	}
	fd, err := c.pidfd()
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	// The process at the gate has no handlers, and the first process of a pid namespace is spared then. The signal would end it
	// anywhere else, so it does here.
	if c.Status() == specs.StateCreated && c.ownPIDs() && !slices.Contains(harmless, sig) {
		sig = unix.SIGKILL
	}
	if err := unix.PidfdSendSignal(int(fd.Fd()), sig, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return errs.New(errs.Conflict, "container not running")
		}
		return fmt.Errorf("send signal %d to container %s: %w", int(sig), id, err)
	}
	return nil
}

// killAll signals what is in the container's cgroup. A container without processes is fine.
func (c *Container) killAll(sig unix.Signal) error {
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("send signal %d to process %d: %w", int(sig), pid, err)
		}
	}
	return nil
}

// endWithin bounds how long delete waits for what it has killed.
const endWithin = 10 * time.Second

// Delete removes a container that has stopped, or one that was created and never started. With force it is killed first, and one that
// does not exist is fine.
func (r *Runtime) Delete(id string, force bool) error {
	c, err := r.locked(id)
	if errs.Is(err, errs.NotFound) && force {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.release()
	switch s := c.Status(); {
	case s == specs.StateStopped, s == specs.StateCreating:
	case s == specs.StateCreated, force:
		if err := c.end(); err != nil {
			return err
		}
	default:
		return errs.New(errs.Conflict, "cannot delete container %s that is not stopped: %s", id, s)
	}
	return c.remove()
}

// end kills the first process and waits until it is gone.
func (c *Container) end() error {
	fd, err := c.pidfd()
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	if err := unix.PidfdSendSignal(int(fd.Fd()), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill container %s: %w", c.ID, err)
	}
	if !c.waitGone(endWithin) {
		return errs.New(errs.Internal, "container %s init still running %v after it was killed", c.ID, endWithin)
	}
	return nil
}

// remove removes the cgroup with all that may still be in it (a container without a pid namespace), runs the poststop hooks, and
// removes the folder.
func (c *Container) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	g, err := c.cgroup()
	if err != nil {
		return err
	}
	if g != nil {
		if err := removeCgroup(ctx, g); err != nil {
			return err
		}
	}
	if err := c.detachRoot(); err != nil {
		return err
	}
	state := c.State()
	state.Status = specs.StateStopped
	state.Pid = 0
	if err := os.RemoveAll(c.file("")); err != nil {
		return fmt.Errorf("remove the container's folder: %w", err)
	}
	c.hooksAfterStop(state)
	return nil
}

// detachRoot takes away what a container without a mount namespace has mounted on its root's path, in the host's.
func (c *Container) detachRoot() error {
	if c.Spec.Root == nil || c.Spec.Linux == nil || slices.ContainsFunc(c.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace }) {
		return nil
	}
	err := unix.Unmount(c.Spec.Root.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // not mounted, or gone with the bundle
		return fmt.Errorf("detach the root file system %s: %w", c.Spec.Root.Path, err)
	}
	return nil
}

func removeCgroup(ctx context.Context, g *cgroup.Cgroup) error {
	if err := g.Kill(ctx); err != nil {
		return err
	}
	return g.Remove(ctx)
}
