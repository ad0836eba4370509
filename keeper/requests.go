package keeper

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper/logfile"
	"skiff/keeper/wire"
)

// Launch starts a process. A step of the program that failed is a *launch.StepError in the error's chain. If ctx ends before the
// answer came, the process is ended should it start nevertheless.
func (c *Client) Launch(ctx context.Context, r LaunchRequest) (Process, error) {
	l := &wire.Launch{Terminal: r.Terminal, Log: logfile.Config(r.Log)}
	var files wire.Files
	for i, f := range r.Files {
		if f == nil {
			return Process{}, errs.New(errs.Invalid, "launch %s: file %d is nil", r.ID, i)
		}
		l.Files = append(l.Files, files.Add(fdOf(f)))
	}
	l.Stdin, l.Stdout, l.Stderr = files.Add(fdOf(r.Stdin)), files.Add(fdOf(r.Stdout)), files.Add(fdOf(r.Stderr))
	var subs []*heldSub
	for _, s := range r.Subscribers {
		h, err := c.holdSub(s)
		if err != nil {
			c.releaseSubs(subs)
			return Process{}, fmt.Errorf("launch %s: %w", r.ID, err)
		}
		subs = append(subs, h)
		l.Subscribers = append(l.Subscribers, h.wire(&files))
	}
	if len(files) > wire.MaxFiles {
		c.releaseSubs(subs)
		return Process{}, errs.New(errs.Invalid, "launch %s: %d files are too many", r.ID, len(files))
	}
	held := holdStreams(r)
	var p Process
	var started, abandoned bool // under c.mu
	conn, err := c.current(ctx)
	if err != nil {
		held.close()
		c.releaseSubs(subs)
		return Process{}, fmt.Errorf("launch %s: %w", r.ID, err)
	}
	k := &call{conn: conn, fails: held.close, part: func(m *wire.Message, files wire.Files) {
		if m.Process == nil {
			return
		}
		started = true
		held.pidfd = files.Take(m.Process.PIDFD)
		held.learn(m.Process, subs)
		c.vault[r.ID] = held
		if abandoned {
			held.dismiss()
			return
		}
		p = Process{ID: r.ID, PID: m.Process.PID, PIDFD: file(dup(held.pidfd), "pidfd"), StartTime: m.Process.StartTime, StartedAt: m.Process.StartedAt}
	}}
	err = c.do(ctx, k, &wire.Message{Op: wire.OpLaunch, ID: r.ID, Launch: l}, r.Program, files)
	if err == nil {
		return p, nil
	}
	c.mu.Lock()
	abandoned = true
	if started { // but it took too long
		held.dismiss()
		p.PIDFD.Close()
	}
	c.mu.Unlock()
	c.releaseSubs(subs)
	return Process{}, fmt.Errorf("launch %s: %w", r.ID, err)
}

// dismiss ends a process that nobody wants. The caller holds Client.mu.
func (h *holding) dismiss() {
	h.unwanted = true
	_ = unix.PidfdSendSignal(h.pidfd, unix.SIGKILL, nil, 0)
}

// Subscribe adds a subscriber to a running process; errs.Conflict if it has ended.
func (c *Client) Subscribe(ctx context.Context, id string, s Subscriber) error {
	h, err := c.holdSub(s)
	if err != nil {
		return fmt.Errorf("subscribe to process %s: %w", id, err)
	}
	var files wire.Files
	ws := h.wire(&files)
	err = c.request(ctx, &wire.Message{Op: wire.OpSubscribe, ID: id, Subscriber: &ws}, nil, files, func(m *wire.Message, _ wire.Files) {
		if m.Subscriber != nil {
			h.slot = m.Subscriber.Slot
		}
		if v := c.vault[id]; v != nil {
			v.subs = append(v.subs, h)
		}
	})
	if err != nil {
		c.releaseSubs([]*heldSub{h})
		return fmt.Errorf("subscribe to process %s: %w", id, err)
	}
	return nil
}

// CloseStdin closes the keeper's copy of the process's stdin. The end is there when the caller's own copies are closed too. With a
// terminal it does nothing.
func (c *Client) CloseStdin(ctx context.Context, id string) error {
	c.mu.Lock()
	if v := c.vault[id]; v != nil && !v.p.Terminal {
		closeFD(v.stdin)
		v.stdin, v.p.StdinClosed = -1, true
	}
	c.mu.Unlock()
	if err := c.request(ctx, &wire.Message{Op: wire.OpCloseStdin, ID: id}, nil, nil, nil); err != nil {
		return fmt.Errorf("close stdin of process %s: %w", id, err)
	}
	return nil
}

// List tells all processes that were not forgotten.
func (c *Client) List(ctx context.Context) ([]State, error) {
	var out []State
	err := c.request(ctx, &wire.Message{Op: wire.OpList}, nil, nil, func(m *wire.Message, files wire.Files) {
		for i := range m.Processes {
			p := &m.Processes[i]
			st := State{
				Process:  Process{ID: p.ID, PID: p.PID, PIDFD: file(files.Take(p.PIDFD), "pidfd"), StartTime: p.StartTime, StartedAt: p.StartedAt},
				Exited:   exitFrom(p.Exited),
				Stdin:    file(files.Take(p.Stdin), "stdin"),
				Stdout:   file(files.Take(p.Stdout), "stdout"),
				Stderr:   file(files.Take(p.Stderr), "stderr"),
				Terminal: p.Terminal,
			}
			out = append(out, st)
		}
	})
	if err != nil {
		for i := range out {
			out[i].close()
		}
		return nil, fmt.Errorf("list the keeper's processes: %w", err)
	}
	return out, nil
}

func (s *State) close() {
	for _, f := range []*os.File{s.PIDFD, s.Stdin, s.Stdout, s.Stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// Forget drops an ended process. Its log may be removed after that. An unknown process is no error.
func (c *Client) Forget(ctx context.Context, id string) error {
	err := c.request(ctx, &wire.Message{Op: wire.OpForget, ID: id}, nil, nil, func(*wire.Message, wire.Files) { c.letGo(id) })
	if err != nil {
		return fmt.Errorf("forget process %s: %w", id, err)
	}
	return nil
}

// Stash gives the keeper duplicates of files to hold under a name until Unstash, through this process's death. What it held under
// that name is dropped.
func (c *Client) Stash(ctx context.Context, name string, files []*os.File) error {
	var fds wire.Files
	for _, f := range files {
		if f == nil {
			return errs.New(errs.Invalid, "stash %s: a file is nil", name)
		}
		fds.Add(fdOf(f))
	}
	err := c.request(ctx, &wire.Message{Op: wire.OpStash, ID: name}, nil, fds, func(*wire.Message, wire.Files) {
		closeAll(c.stash[name])
		var own []int
		for _, fd := range fds {
			own = append(own, dup(fd))
		}
		c.stash[name] = own
	})
	if err != nil {
		return fmt.Errorf("stash %s: %w", name, err)
	}
	return nil
}

// Stashed gives duplicates of all stashed files by name; the caller closes them.
func (c *Client) Stashed(ctx context.Context) (map[string][]*os.File, error) {
	out := map[string][]*os.File{}
	err := c.request(ctx, &wire.Message{Op: wire.OpStashed}, nil, nil, func(m *wire.Message, files wire.Files) {
		if m.ID == "" {
			return
		}
		for _, fd := range takeAll(files) {
			out[m.ID] = append(out[m.ID], file(fd, m.ID))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the stashed files: %w", err)
	}
	return out, nil
}

// Unstash drops what is held under a name.
func (c *Client) Unstash(ctx context.Context, name string) error {
	err := c.request(ctx, &wire.Message{Op: wire.OpUnstash, ID: name}, nil, nil, func(*wire.Message, wire.Files) {
		closeAll(c.stash[name])
		delete(c.stash, name)
	})
	if err != nil {
		return fmt.Errorf("unstash %s: %w", name, err)
	}
	return nil
}

// Ping asks the keeper whether it is there.
func (c *Client) Ping(ctx context.Context) error {
	return c.request(ctx, &wire.Message{Op: wire.OpPing}, nil, nil, nil)
}
