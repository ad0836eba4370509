package keeper

import (
	"context"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper/wire"
)

// holding is what the client holds of one process. It is under Client.mu once it is in the vault.
type holding struct {
	p                            wire.Process // its file indexes mean nothing here
	pidfd, stdin, stdout, stderr int
	subs                         []*heldSub
	unwanted                     bool // forget it when it has ended
}

// heldSub is a subscriber's file.
type heldSub struct {
	number         uint64
	fd             int // -1: it is done
	pipe           [2]int
	slot           int
	stdout, stderr bool
}

// holdStreams duplicates the streams of a process to be.
func holdStreams(r LaunchRequest) *holding {
	return &holding{
		p:     wire.Process{ID: r.ID, Terminal: r.Terminal},
		pidfd: -1, stdin: dup(fdOf(r.Stdin)), stdout: dup(fdOf(r.Stdout)), stderr: dup(fdOf(r.Stderr)),
	}
}

// learn completes a holding with what the keeper said.
func (h *holding) learn(p *wire.Process, subs []*heldSub) {
	h.p = *p
	h.subs = subs
	for i := range p.Subscribers {
		for _, s := range subs {
			if s.number == p.Subscribers[i].Number {
				s.slot = p.Subscribers[i].Slot
			}
		}
	}
	h.p.Subscribers = nil
}

func (h *holding) close() {
	for _, fd := range []*int{&h.pidfd, &h.stdin, &h.stdout, &h.stderr} {
		closeFD(*fd)
		*fd = -1
	}
}

// learn takes a process that the keeper had before this engine's time. The caller holds c.mu.
func (c *Client) learn(p *wire.Process, files wire.Files) {
	h := &holding{p: *p, pidfd: files.Take(p.PIDFD), stdin: files.Take(p.Stdin), stdout: files.Take(p.Stdout), stderr: files.Take(p.Stderr)}
	if old := c.vault[p.ID]; old != nil { // it ended meanwhile
		old.close()
	}
	c.vault[p.ID] = h
	if p.Exited != nil {
		h.close()
		c.exits.add(*exitFrom(p.Exited))
	}
}

// noteExit takes the end of a process. The caller holds c.mu.
func (c *Client) noteExit(e *wire.Exit) {
	h := c.vault[e.ID]
	if h != nil {
		if h.p.Exited != nil {
			return // told by a keeper that died since
		}
		h.p.Exited = e
		h.close()
		if h.unwanted {
			go func() { _ = c.Forget(context.Background(), e.ID) }()
			return
		}
	}
	c.exits.add(*exitFrom(e))
}

func exitFrom(e *wire.Exit) *Exit {
	if e == nil {
		return nil
	}
	return &Exit{ID: e.ID, At: e.At, Code: e.Code, Signal: e.Signal}
}

// letGo removes a process from the vault. The caller holds c.mu.
func (c *Client) letGo(id string) {
	h := c.vault[id]
	if h == nil {
		return
	}
	delete(c.vault, id)
	h.close()
	for _, s := range h.subs {
		c.dropSub(s.number)
	}
}

// holdSub duplicates a subscriber's file and numbers it.
func (c *Client) holdSub(s Subscriber) (*heldSub, error) {
	if s.W == nil {
		return nil, errs.New(errs.Invalid, "a subscriber without a file")
	}
	fd := dup(fdOf(s.W))
	if fd < 0 {
		return nil, errs.New(errs.Exhausted, "no descriptor is free for a subscriber")
	}
	p, err := pipe()
	if err != nil {
		closeFD(fd)
		return nil, errs.As(errs.Exhausted, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	h := &heldSub{number: c.number, fd: fd, pipe: p, stdout: s.Stdout, stderr: s.Stderr}
	c.subs[h.number] = h
	return h, nil
}

// dropSub lets a subscriber's file go. The caller holds c.mu.
func (c *Client) dropSub(number uint64) {
	h := c.subs[number]
	if h == nil {
		return
	}
	delete(c.subs, number)
	closeFD(h.fd)
	closeAll(h.pipe[:])
	h.fd, h.pipe = -1, [2]int{-1, -1}
	for _, v := range c.vault {
		if i := slices.Index(v.subs, h); i >= 0 {
			v.subs = slices.Delete(v.subs, i, i+1)
			return
		}
	}
}

// wire is the subscriber on its way to a keeper; the files are the holder's own.
func (h *heldSub) wire(files *wire.Files) wire.Subscriber {
	return wire.Subscriber{
		Number: h.number, W: files.Add(h.fd), Pipe: wire.Pipe{R: files.Add(h.pipe[0]), W: files.Add(h.pipe[1])},
		Stdout: h.stdout, Stderr: h.stderr, Slot: h.slot,
	}
}

func (c *Client) releaseSubs(subs []*heldSub) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range subs {
		c.dropSub(s.number)
	}
}

// fdOf gives a file's descriptor without changing its mode, as Fd does; -1 for nil. The caller keeps the file open.
func fdOf(f *os.File) int {
	if f == nil {
		return -1
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return -1
	}
	n := -1
	_ = rc.Control(func(fd uintptr) { n = int(fd) })
	return n
}

func file(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

func dup(fd int) int {
	if fd < 0 {
		return -1
	}
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return n
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		closeFD(fd)
	}
}

// takeAll takes all files of a message.
func takeAll(files wire.Files) []int {
	out := make([]int, len(files))
	for i := range files {
		out[i] = files.Take(wire.File(i + 1))
	}
	return out
}
