package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

const (
	defaultStopTimeout = 10               // seconds
	killTimeout        = 10 * time.Second // until a killed process must be gone
)

// signal sends a signal to the first process of a container. It is one of the object's commands. A paused container is
// thawed by a signal that ends it: it could not obey else.
func (m *Manager) signal(ctx context.Context, o *object, sig unix.Signal) error {
	l := o.handles()
	if s := o.status(); l == nil || !s.alive() {
		return errs.New(errs.Conflict, "container %s is not running", o.id)
	}
	err := m.cfg.kill(l.pidfd, sig)
	if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended and the news is on its way
		return fmt.Errorf("send signal %d to container %s: %w", sig, o.id, err)
	}
	m.publish(o, events.ActionKill, "signal", strconv.Itoa(int(sig)))
	stop, serr := stopSignal("", o.def().Config.StopSignal)
	if o.status().Phase == api.StatePaused && (sig == unix.SIGKILL || serr == nil && sig == stop) {
		return m.thaw(ctx, o)
	}
	return nil
}

// sendSignal is kill(2) by a pidfd.
func sendSignal(pidfd *os.File, sig unix.Signal) error {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var kerr error
	if err := c.Control(func(fd uintptr) { kerr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	return kerr
}

// Kill implements api.Containers. SIGKILL returns when the container has ended.
func (m *Manager) Kill(ctx context.Context, name, signal string) error {
	sig := unix.SIGKILL
	if signal != "" {
		var err error
		if sig, err = parseSignal(signal); err != nil {
			return err
		}
	}
	o, err := m.index.find(name)
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		bounded, cancel := context.WithTimeout(ctx, killTimeout)
		defer cancel()
		err = m.killAndWait(bounded, o)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = errs.New(errs.Internal, "tried to kill container, but did not receive an exit event")
		}
	} else {
		err = o.queue.do(ctx, func(ctx context.Context) error { return m.signal(ctx, o, sig) })
	}
	if err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", name, err)
	}
	return nil
}

// Stop implements api.Containers. It goes on when the caller leaves: a container half-way to its end is stopped.
func (m *Manager) Stop(ctx context.Context, name string, opt StopOptions) error {
	o, err := m.index.find(name)
	if err != nil {
		return err
	}
	if !o.status().alive() {
		return errs.New(errs.NotModified, "container %s is not running", o.id)
	}
	if err := m.stopObject(context.WithoutCancel(ctx), o, opt); err != nil {
		return fmt.Errorf("cannot stop container: %s: %w", name, err)
	}
	return nil
}

// stopObject asks a container to end, waits, and ends it by force. One that has ended by itself is no error.
func (m *Manager) stopObject(ctx context.Context, o *object, opt StopOptions) error {
	sig, err := stopSignal(opt.Signal, o.def().Config.StopSignal)
	if err != nil {
		return err
	}
	ended := o.wait(ctx, WaitNotRunning)
	err = o.queue.do(ctx, func(ctx context.Context) error { return m.signal(ctx, o, sig) })
	if err != nil && !errs.Is(err, errs.Conflict) {
		return err
	}
	if !m.endsWithin(ended, m.stopTimeout(o, opt)) {
		bounded, cancel := context.WithTimeout(ctx, killTimeout)
		defer cancel()
		if err := m.killAndWait(bounded, o); err != nil && !errs.Is(err, errs.Conflict) {
			if errors.Is(err, context.DeadlineExceeded) {
				return errs.New(errs.Internal, "tried to kill container, but did not receive an exit event")
			}
			return err
		}
	}
	m.publish(o, events.ActionStop)
	return nil
}

// stopTimeout is how long a container may take to end; negative: for ever.
func (m *Manager) stopTimeout(o *object, opt StopOptions) time.Duration {
	seconds := m.cfg.Defaults.StopTimeout
	if t := o.def().Config.StopTimeout; t != nil {
		seconds = *t
	}
	if opt.Timeout != nil {
		seconds = *opt.Timeout
	}
	return time.Duration(seconds) * time.Second
}

func (m *Manager) endsWithin(ended <-chan WaitResult, d time.Duration) bool {
	if d < 0 {
		<-ended
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ended:
		return true
	case <-t.C:
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
}

// Restart implements api.Containers: stop, if it runs, and start. A container that is removed when it ends is kept.
func (m *Manager) Restart(ctx context.Context, name string, opt StopOptions) error {
	o, err := m.index.find(name)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	keep := func(on bool) error {
		return o.queue.do(ctx, func(ctx context.Context) error {
			o.keep = on
			return nil
		})
	}
	if err := keep(true); err != nil {
		return err
	}
	err = func() error {
		if o.status().alive() {
			if err := m.stopObject(ctx, o, opt); err != nil {
				return err
			}
		}
		return o.queue.do(ctx, func(ctx context.Context) error { return m.start(ctx, o) })
	}()
	if kerr := keep(false); err == nil {
		err = kerr
	}
	if err != nil {
		return fmt.Errorf("cannot restart container %s: %w", name, err)
	}
	m.publish(o, events.ActionRestart)
	return nil
}
