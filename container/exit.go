package container

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"skiff/keeper"
)

// codeUnknown is the exit code of a container whose end nobody saw. dockerd shows the same.
const codeUnknown = 255

// destroyTimeout is for processes that the kernel can't end, because they wait for a disk for example.
const destroyTimeout = 10 * time.Second

// exited takes the end of a container's process in. It is one of the object's commands. Whoever waits is told when the
// ports and the address are free again; the control group and the keeper's memory go in the background.
func (m *Manager) exited(ctx context.Context, o *object, e keeper.Exit) {
	s := o.status()
	if !s.alive() {
		m.forgetProcess(e.ID) // told again after a restart
		return
	}
	o.mu.Lock()
	l := o.live
	if l != nil && l.pidfd != nil && !ended(l.pidfd) {
		o.mu.Unlock()
		m.log.Info("the end of a former run was told again", "container", shortID(o.id), "at", e.At)
		return
	}
	o.live = nil
	o.mu.Unlock()
	oom := false
	if l != nil && l.group != nil {
		var err error
		oom, err = l.group.OOMKilled()
		m.warn("ask for an out-of-memory kill", o.id, err)
	}
	next, err := s.after(changeExit, func(st *status) { st.end(e, oom) })
	if err != nil {
		m.log.Error("a container ended in a wrong state", "container", shortID(o.id), "error", err)
		return
	}
	m.warn("release the network", o.id, m.cfg.Networks.Release(ctx, o.id))
	d := o.def()
	if !d.HostConfig.AutoRemove {
		m.warn("record an exit", o.id, m.store.state(d, next))
	}
	m.warn("drop the record of a run", o.id, m.store.ended(o.id, o.startedExecs()))
	o.set(next)
	m.sweep(o, l, e.ID)
	if oom {
		m.publish(o, events.ActionOOM)
	}
	m.publishNetwork(o, s.Endpoint, events.ActionDisconnect)
	m.publish(o, events.ActionDie, "exitCode", strconv.Itoa(next.ExitCode),
		"execDuration", strconv.Itoa(int(next.FinishedAt.Sub(next.StartedAt).Seconds())))
	o.tell(WaitNotRunning, WaitNextExit)
	if l != nil {
		close(l.ended)
		l.close()
	}
	if d.HostConfig.AutoRemove && !o.keep {
		m.warn("remove a container that ended", o.id, m.remove(ctx, o))
	}
}

// ended asks the kernel whether a process has ended: its pidfd is readable then. The keeper tells each end at least once, so
// that the end of a former run of the same name may come again.
func ended(pidfd *os.File) bool {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return true
	}
	n := 0
	cerr := c.Control(func(fd uintptr) {
		for {
			if n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != unix.EINTR {
				return
			}
		}
	})
	return n > 0 || err != nil || cerr != nil
}

// end fills an exit in.
func (s *status) end(e keeper.Exit, oom bool) {
	s.PID, s.StartTime, s.Endpoint = 0, 0, nil
	s.ExitCode, s.OOMKilled, s.FinishedAt = e.Code, oom, e.At.UTC()
	if e.Code < 0 {
		s.ExitCode = codeUnknown
		s.Error = "the exit code is not known: the supervisor was not running when the container ended"
	}
	if s.FinishedAt.IsZero() || s.FinishedAt.Before(s.StartedAt) {
		s.FinishedAt = time.Now().UTC()
	}
}

// sweep removes in the background what a run left. The keeper forgets the exit last, so that it is told again if we die
// before; a new run must wait for all of it, because it uses the same names.
func (m *Manager) sweep(o *object, l *live, process string) {
	done := make(chan struct{})
	o.cleanup = done
	m.work.post(func() {
		defer close(done)
		ctx := context.Background()
		if l != nil && l.group != nil {
			m.warn("remove the control group", o.id, destroy(ctx, l.group))
		}
		m.warn("have the keeper forget", o.id, m.cfg.Keeper.Forget(ctx, process))
	})
}

// destroy kills what is left in a control group (with a pid namespace of its own nothing is) and removes it.
func destroy(ctx context.Context, g Group) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
	defer cancel()
	return errors.Join(g.Kill(ctx), g.Remove(ctx))
}
