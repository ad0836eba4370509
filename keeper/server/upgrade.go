package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper/wire"
)

// stateVersion is the version of heritage. A program that doesn't say that it knows the same is not executed.
const stateVersion = "skiff-keeper state 1"

// heritage is what the keeper's old program leaves to the new one. The descriptors keep their numbers.
type heritage struct {
	Config    wire.Config
	Processes []wire.Process
	Stash     []wire.Stashed
	Limbo     []wire.Pipe
	Backlogs  []backlog
	Reaped    []*wire.Exit // of processes that have no Exited yet
	Files     []int        // what wire.File means
	Conn      int          // to the engine, -1: none
	Lock      int
	EnginePID int
	EngineFD  int
	Started   time.Time // the engine
	Stopping  bool
	Signals   []int // that came meanwhile
}

// backlog is what waits for a subscriber.
type backlog struct {
	Number   uint64
	Closing  bool
	Memory   []byte
	Spill    wire.File
	From, To int64
}

// upgrade executes the keeper's program anew. If it can't, the old one goes on.
func (s *Server) upgrade() {
	if err := s.tryUpgrade(); err != nil {
		s.log.Error("the keeper was not updated and goes on as it is", "error", err)
	}
}

func (s *Server) tryUpgrade() error {
	if err := probe(s.cfg.Keeper); err != nil {
		return err
	}
	s.requests.Lock()
	defer s.requests.Unlock()
	if s.pool == nil {
		return errs.New(errs.Unavailable, "it has not taken over everything yet")
	}
	s.chunks.Lock()
	defer s.chunks.Unlock()
	h, unlock := s.bequeath()
	defer unlock()
	defer holdSignals()()
	for more := true; more; {
		select {
		case sig := <-s.signals:
			if n, ok := sig.(syscall.Signal); ok && n != unix.SIGUSR2 { // that is being done
				h.Signals = append(h.Signals, int(n))
			}
		default:
			more = false
		}
	}
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("describe the keeper's state: %w", err)
	}
	mem, err := unix.MemfdCreate("keeper state", 0)
	if err != nil {
		return fmt.Errorf("make a place for the keeper's state: %w", err)
	}
	defer closeFD(mem)
	f := os.NewFile(uintptr(dup(mem)), "state")
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("write the keeper's state: %w", err)
	}
	fds := append([]int{h.Conn, h.Lock, h.EngineFD}, h.Files...)
	inherit(fds, true)
	s.log.Info("the keeper executes its program anew", "path", s.cfg.Keeper)
	args := []string{s.cfg.Keeper, "--exec-root", s.cfg.ExecRoot, "--resume", strconv.Itoa(mem)}
	if s.cfg.Debug {
		args = append(args, "--debug")
	}
	err = syscall.Exec(s.cfg.Keeper, args, os.Environ())
	inherit(fds, false)
	for _, n := range h.Signals {
		select {
		case s.signals <- syscall.Signal(n):
		default:
		}
	}
	return fmt.Errorf("execute %s: %w", s.cfg.Keeper, err)
}

// forwarded are the signals that the keeper handles.
var forwarded = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2}

// holdSignals makes signals wait through execve, until the new program is ready for them: before, they would end it.
func holdSignals() (release func()) {
	runtime.LockOSThread() // the calling thread's mask is the one that stays
	var set, old unix.Sigset_t
	for _, sig := range forwarded {
		n := uint(sig.(syscall.Signal)) - 1
		set.Val[n/64] |= 1 << (n % 64)
	}
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old)
	return func() {
		_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
		runtime.UnlockOSThread()
	}
}

// withoutMask runs f on a thread that blocks no signal: what f starts must not inherit what holdSignals left behind.
func withoutMask(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var none, old unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &none, &old)
	f()
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
}

// probe asks a program whether it could go on from here.
func probe(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--check-state").Output()
	if err != nil {
		return fmt.Errorf("ask %s for the state it knows: %w", path, err)
	}
	if got := string(bytes.TrimSpace(out)); got != stateVersion {
		return fmt.Errorf("%s knows %q, not %q", path, got, stateVersion)
	}
	return nil
}

// inherit sets whether descriptors go through execve.
func inherit(fds []int, yes bool) {
	flag := unix.FD_CLOEXEC
	if yes {
		flag = 0
	}
	for _, fd := range fds {
		if fd >= 0 {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
		}
	}
}

// bequeath describes everything. What could change is locked until unlock is called.
func (s *Server) bequeath() (h *heritage, unlock func()) {
	var held []*sync.Mutex
	hold := func(m *sync.Mutex) {
		m.Lock()
		held = append(held, m)
	}
	hold(&s.mu)
	h = &heritage{
		Config: s.cfg, Conn: -1, Lock: int(s.lock.Fd()), EnginePID: s.engine.pid, EngineFD: s.engine.pidfd, Started: s.engine.started,
		Stopping: s.stopping(),
	}
	files := (*wire.Files)(&h.Files)
	if s.conn != nil {
		_ = s.conn.FD(func(fd int) { h.Conn = fd })
	}
	for _, p := range s.procs {
		if !p.ready {
			continue
		}
		hold(&p.mu)
		w := p.bequeath(files)
		for _, sub := range p.subs {
			hold(&sub.mu)
			if ws, b, ok := sub.bequeath(files); ok {
				w.Subscribers = append(w.Subscribers, ws)
				h.Backlogs = append(h.Backlogs, b)
			}
		}
		h.Processes = append(h.Processes, w)
		if p.exited == nil && p.reaped != nil {
			h.Reaped = append(h.Reaped, p.reaped)
		}
	}
	for name, fds := range s.stash {
		st := wire.Stashed{Name: name}
		for _, fd := range fds {
			st.Files = append(st.Files, files.Add(fd))
		}
		h.Stash = append(h.Stash, st)
	}
	for _, d := range s.pool.all {
		h.Limbo = append(h.Limbo, wire.Pipe{R: files.Add(d.limbo.r), W: files.Add(d.limbo.w)})
	}
	return h, func() {
		for i := len(held) - 1; i >= 0; i-- {
			held[i].Unlock()
		}
	}
}

// bequeath is describe with the keeper's own descriptors. The caller holds p.mu.
func (p *proc) bequeath(files *wire.Files) wire.Process {
	w := wire.Process{
		ID: p.id, PID: p.pid, StartTime: p.start, StartedAt: p.startedAt, Exited: p.exited, Terminal: p.terminal, Log: p.logCfg,
		Slot: p.slot + 1, StdinClosed: p.stdin < 0,
	}
	if p.exited != nil {
		return w
	}
	w.PIDFD = files.Add(p.pidfd())
	w.Stdin = files.Add(p.stdin)
	for _, pu := range p.pumps {
		_ = pu.rc.Control(func(fd uintptr) {
			if pu.stream == 1 {
				w.Stdout = files.Add(int(fd))
			} else {
				w.Stderr = files.Add(int(fd))
			}
		})
	}
	return w
}

// bequeath describes a subscriber. The caller holds s.mu.
func (s *subscriber) bequeath(files *wire.Files) (w wire.Subscriber, b backlog, ok bool) {
	if s.dead {
		return w, b, false
	}
	w = wire.Subscriber{Number: s.number, Stdout: s.want[1], Stderr: s.want[2], Slot: s.slot + 1}
	_ = s.rc.Control(func(fd uintptr) { w.W = files.Add(int(fd)) })
	w.Pipe = wire.Pipe{R: files.Add(s.pipe.r), W: files.Add(s.pipe.w)}
	b = backlog{Number: s.number, Closing: s.closing, Memory: s.mem}
	if s.spill != nil {
		b.Spill, b.From, b.To = files.Add(int(s.spill.f.Fd())), s.spill.from, s.spill.to
	}
	return w, b, true
}

// resume is the life of a keeper whose former program executed this one.
func resume(f *flags, l Launcher, log *slog.Logger) (int, error) {
	h, err := readHeritage(f.resume)
	if err != nil {
		return 1, err
	}
	fds := append([]int{h.Conn, h.Lock, h.EngineFD}, h.Files...)
	inherit(fds, false)
	s, err := newServer(h.Config, l, log)
	if err != nil {
		return 1, err
	}
	s.lock = os.NewFile(uintptr(h.Lock), "lock")
	s.engine = engine{pid: h.EnginePID, pidfd: h.EngineFD, started: h.Started}
	if h.Stopping {
		close(s.stop)
	}
	for _, sig := range h.Signals {
		s.signals <- syscall.Signal(sig)
	}
	var conn *wire.Conn
	if h.Conn >= 0 {
		if conn, err = wire.NewConn(h.Conn); err != nil {
			return 1, err
		}
		s.conn = conn // ends may be told before serve begins
	}
	files := wire.Files(h.Files)
	for i := range h.Processes {
		for j := range h.Processes[i].Subscribers { // what waits for them comes along
			s.ledger.setWaiting(h.Processes[i].Subscribers[j].Slot-1, waiting{})
		}
		if err := s.adoptProcess(&h.Processes[i], files); err != nil {
			log.Error("a process is lost", "id", h.Processes[i].ID, "error", err)
		}
	}
	for _, e := range h.Reaped {
		if p := s.procs[e.ID]; p != nil {
			p.reaped = e
		}
	}
	for _, st := range h.Stash {
		for _, x := range st.Files {
			s.stash[st.Name] = append(s.stash[st.Name], files.Take(x))
		}
	}
	s.restoreBacklogs(h.Backlogs, files)
	var limbo []pipe
	for _, p := range h.Limbo {
		limbo = append(limbo, pipe{files.Take(p.R), files.Take(p.W)})
	}
	if err := s.beginAll(limbo); err != nil {
		return 1, err
	}
	if conn == nil && s.engine.pid > 0 { // it is between its connection's end and its own
		code, killed := s.awaitEngine()
		if !killed && (code == 0 || code == ExitConfig) || s.stopping() {
			return code, nil
		}
	}
	return s.live(conn), nil
}

func readHeritage(fd int) (*heritage, error) {
	f := os.NewFile(uintptr(fd), "state")
	defer f.Close()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the former program's state: %w", err)
	}
	h := new(heritage)
	if err := json.NewDecoder(f).Decode(h); err != nil {
		return nil, fmt.Errorf("read the former program's state: %w", err)
	}
	return h, nil
}

// restoreBacklogs gives the subscribers what waited for them.
func (s *Server) restoreBacklogs(list []backlog, files wire.Files) {
	byNumber := map[uint64]*backlog{}
	for i := range list {
		byNumber[list[i].Number] = &list[i]
	}
	for _, p := range s.procs {
		for _, sub := range p.subs {
			b := byNumber[sub.number]
			if b == nil {
				continue
			}
			sub.mu.Lock()
			sub.mem, sub.closing = b.Memory, b.Closing
			if fd := files.Take(b.Spill); fd >= 0 {
				sub.spill = &spill{f: os.NewFile(uintptr(fd), "spill"), from: b.From, to: b.To}
			}
			if len(sub.mem) > 0 || sub.spill != nil {
				sub.draining, sub.progress = true, time.Now()
				s.ledger.setWaiting(sub.slot, waiting{behind: true})
			}
			sub.mu.Unlock()
		}
	}
}
