package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper/logfile"
	"skiff/keeper/wire"
)

// Launcher starts a process. The files stay the caller's, the pidfd becomes his.
type Launcher func(program []byte, files []int) (pid, pidfd int, err error)

// Server is the keeper.
type Server struct {
	cfg    wire.Config
	dir    string // of state files, ledger and spill files
	launch Launcher
	log    *slog.Logger
	ledger *ledger
	pool   *pool  // nil until everything was inherited
	limbo  []pipe // of the keeper before this one
	// The update in place takes both for writing, in this order.
	requests sync.RWMutex // held for reading while a request is answered
	chunks   sync.RWMutex // held for reading while a chunk is handled, a stream closed, an end noted

	mu    sync.Mutex
	procs map[string]*proc
	pids  map[int]bool // of running processes
	stash map[string][]int
	conn  *wire.Conn // to the engine, or nil

	engine  engine
	stop    chan struct{} // closed when the end was asked for
	signals chan os.Signal
	lock    *os.File
	boot    string
}

// newServer makes a keeper that has nothing yet.
func newServer(cfg wire.Config, l Launcher, log *slog.Logger) (*Server, error) {
	s := &Server{
		cfg: cfg, dir: filepath.Join(cfg.ExecRoot, "keeper"), launch: l, log: log,
		procs: map[string]*proc{}, pids: map[int]bool{}, stash: map[string][]int{},
		engine: engine{pidfd: -1}, stop: make(chan struct{}), signals: make(chan os.Signal, 64), boot: bootID(),
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the keeper's folder: %w", err)
	}
	var err error
	s.ledger, err = openLedger(s.dir)
	return s, err
}

// serve handles one engine's connection until it ends.
func (s *Server) serve(c *wire.Conn) error {
	s.mu.Lock()
	s.conn = c
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		if s.conn == c {
			s.conn = nil
		}
		s.mu.Unlock()
		c.Close()
	}()
	for {
		if err := c.Wait(); err != nil {
			return err
		}
		s.requests.RLock()
		m, payload, files, err := c.Recv()
		if err != nil {
			s.requests.RUnlock()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if m.Op == wire.OpLaunch || m.Op == wire.OpForget { // what may take long
			go func() {
				defer s.requests.RUnlock()
				s.request(c, m, payload, files)
			}()
			continue
		}
		s.request(c, m, payload, files)
		s.requests.RUnlock()
	}
}

// request answers one request.
func (s *Server) request(c *wire.Conn, m *wire.Message, payload []byte, files wire.Files) {
	defer wire.CloseAll(files)
	reply := &wire.Message{Seq: m.Seq, Op: m.Op, Reply: true}
	err := m.Err.Classed()
	var out wire.Files
	after := func() {}
	if err == nil {
		switch m.Op {
		case wire.OpHello:
			s.inherit(m, files)
			out = s.hello(reply)
		case wire.OpLaunch:
			out, after, err = s.launchProcess(m, payload, files, reply)
		case wire.OpAdopt:
			err = s.adopt(m, files)
		case wire.OpAdopted:
			err = s.takeOver()
		case wire.OpSubscribe:
			err = s.subscribe(m, files)
			reply.Subscriber = m.Subscriber
		case wire.OpCloseStdin:
			err = s.closeStdin(m.ID)
		case wire.OpList:
			err = s.list(c, m.Seq, reply)
		case wire.OpForget:
			err = s.forget(m.ID)
		case wire.OpStash:
			s.keep(m, files)
		case wire.OpStashed:
			err = s.stashed(c, m.Seq)
		case wire.OpUnstash:
			s.unstash(m.ID)
		case wire.OpPing:
		default:
			err = errs.New(errs.NotImplemented, "the keeper does not know the request %q", m.Op)
		}
	}
	reply.Err = toWire(err)
	if err := c.Send(reply, nil, out); err != nil {
		s.log.Debug("answer the engine", "request", m.Op, "error", err)
	}
	after()
}

// push tells the engine something, if there is one.
func (s *Server) push(m *wire.Message) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c == nil {
		return
	}
	if err := c.Send(m, nil, nil); err != nil {
		s.log.Debug("tell the engine", "what", m.Op, "error", err)
	}
}

// hello tells the engine what its next keeper would need, and gives it the limbo pipes to hold.
func (s *Server) hello(reply *wire.Message) (out wire.Files) {
	cfg := s.cfg
	cfg.PID = os.Getpid()
	reply.Config = &cfg
	if s.pool != nil {
		for _, d := range s.pool.all {
			reply.Limbo = append(reply.Limbo, wire.Pipe{R: out.Add(d.limbo.r), W: out.Add(d.limbo.w)})
		}
	}
	return out
}

// find gives a process of the books.
func (s *Server) find(id string) (*proc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.procs[id]; p != nil {
		return p, nil
	}
	return nil, errs.New(errs.NotFound, "the keeper has no process %s", id)
}

func (s *Server) knows(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pids[pid] || s.engine.pid == pid
}

// launchProcess starts a process. after is to be called when the reply was sent.
func (s *Server) launchProcess(m *wire.Message, payload []byte, files wire.Files, reply *wire.Message) (out wire.Files, after func(), err error) {
	after = func() {}
	if m.Launch == nil || m.ID == "" {
		return nil, after, errs.New(errs.Invalid, "a launch without id or description")
	}
	p := &proc{srv: s, id: m.ID, terminal: m.Launch.Terminal, logCfg: m.Launch.Log, slot: -1, stdin: -1}
	old, err := s.enter(p)
	if err != nil {
		return nil, after, err
	}
	if old != nil { // an ended one, which the engine doesn't need any more
		old.release()
	}
	if err := p.prepare(m.Launch, files); err != nil {
		s.abandon(p)
		return nil, after, err
	}
	fds := make([]int, len(m.Launch.Files))
	for i, x := range m.Launch.Files {
		fds[i] = files.Take(x)
		defer closeFD(fds[i])
	}
	pid, pidfd, err := s.launch(payload, fds)
	if err == nil {
		if err = p.started(pid, pidfd); err != nil { // it would run without anybody's knowledge
			_ = unix.Kill(pid, unix.SIGKILL)
			_ = unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED, nil)
		}
	}
	if err != nil {
		s.abandon(p)
		return nil, after, err
	}
	reply.Process = p.describe(&out, false)
	for _, sub := range p.subs {
		reply.Process.Subscribers = append(reply.Process.Subscribers, wire.Subscriber{Number: sub.number, Slot: sub.slot + 1})
	}
	return out, func() {
		wire.CloseAll(out)
		p.begin()
		p.saveState()
	}, nil
}

// enter puts a new process into the books.
func (s *Server) enter(p *proc) (old *proc, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old = s.procs[p.id]; old != nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		if old.exited == nil {
			return nil, errs.New(errs.Conflict, "process %s runs already (pid %d)", p.id, old.pid)
		}
	}
	s.procs[p.id] = p
	return old, nil
}

// abandon takes back a process that was not started.
func (s *Server) abandon(p *proc) {
	s.mu.Lock()
	delete(s.procs, p.id)
	s.mu.Unlock()
	for _, pu := range p.pumps {
		pu.f.Close()
	}
	closeFD(p.stdin)
	for _, sub := range p.subs {
		sub.mu.Lock()
		sub.sock = false // the other side is not told that there was an end: there was no beginning
		sub.end()
		sub.mu.Unlock()
	}
	if p.log != nil {
		_ = p.log.Close()
	}
	s.ledger.freeProc(p.slot)
}

// prepare opens what the process's output goes to.
func (p *proc) prepare(l *wire.Launch, files wire.Files) error {
	p.slot = p.srv.ledger.allocProc()
	if l.Log.Enabled() {
		w, err := logfile.Open(l.Log)
		if err != nil {
			return fmt.Errorf("log of process %s: %w", p.id, err)
		}
		p.log = w
	}
	err := p.addPumps(files.Take(l.Stdin), files.Take(l.Stdout), files.Take(l.Stderr))
	if err != nil {
		return err
	}
	for i := range l.Subscribers {
		sub, err := p.newSubscriber(&l.Subscribers[i], files)
		if err != nil {
			return err
		}
		p.subscribe(sub)
	}
	return nil
}

// newSubscriber makes a subscriber of its wire form.
func (p *proc) newSubscriber(ws *wire.Subscriber, files wire.Files) (*subscriber, error) {
	sub, err := newSubscriber(files.Take(ws.W), pipe{files.Take(ws.Pipe.R), files.Take(ws.Pipe.W)}, p.terminal, p.srv.dir, p.srv.ledger)
	if err != nil {
		return nil, fmt.Errorf("subscriber of process %s: %w", p.id, err)
	}
	sub.number = ws.Number
	sub.want[logfile.Stdout], sub.want[logfile.Stderr] = ws.Stdout, ws.Stderr
	sub.slot = p.srv.ledger.allocSub(ws.Number)
	return sub, nil
}

// started completes a process that runs.
func (p *proc) started(pid, pidfd int) error {
	p.pid, p.startedAt = pid, time.Now()
	if err := p.setPIDFD(pidfd); err != nil {
		return err
	}
	_, start, _, err := procStat(pid)
	if err != nil {
		return err
	}
	p.start = start
	p.srv.ledger.name(p.slot, pid, start)
	p.srv.mu.Lock()
	p.srv.pids[pid] = true
	p.ready = true
	p.srv.mu.Unlock()
	return nil
}

// describe gives the wire form; streams says whether with the streams' files. The caller closes the files.
func (p *proc) describe(out *wire.Files, streams bool) *wire.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &wire.Process{
		ID: p.id, PID: p.pid, PIDFD: out.Add(dup(p.pidfd())), StartTime: p.start, StartedAt: p.startedAt, Exited: p.exited,
		Terminal: p.terminal, Log: p.logCfg, Slot: p.slot + 1, StdinClosed: p.stdin < 0,
	}
	if streams && p.exited == nil {
		w.Stdin = out.Add(dup(p.stdin))
		for _, pu := range p.pumps {
			_ = pu.rc.Control(func(fd uintptr) {
				if pu.stream == logfile.Stdout {
					w.Stdout = out.Add(dup(int(fd)))
				} else {
					w.Stderr = out.Add(dup(int(fd)))
				}
			})
		}
	}
	return w
}

// ended notes the end of a process and tells it.
func (s *Server) ended(p *proc, e *wire.Exit) {
	s.chunks.RLock()
	defer s.chunks.RUnlock()
	s.mu.Lock()
	p.mu.Lock()
	p.exited = e
	forgotten := p.forgotten
	p.mu.Unlock()
	delete(s.pids, p.pid)
	s.mu.Unlock()
	if forgotten {
		return
	}
	s.push(&wire.Message{Op: wire.OpExit, ID: p.id, Exit: e})
	p.saveState()
}

func (s *Server) subscribe(m *wire.Message, files wire.Files) error {
	p, err := s.find(m.ID)
	if err != nil {
		return err
	}
	if m.Subscriber == nil {
		return errs.New(errs.Invalid, "subscribe to process %s: no subscriber", m.ID)
	}
	sub, err := p.newSubscriber(m.Subscriber, files)
	if err != nil {
		return err
	}
	if !p.subscribe(sub) {
		sub.drop()
		return errs.New(errs.Conflict, "process %s has ended", m.ID)
	}
	m.Subscriber.Slot = sub.slot + 1
	return nil
}

func (s *Server) closeStdin(id string) error {
	p, err := s.find(id)
	if err == nil {
		p.closeStdin()
	}
	return err
}

// forget drops an ended process.
func (s *Server) forget(id string) error {
	s.mu.Lock()
	p := s.procs[id]
	if p == nil {
		s.mu.Unlock()
		return nil // forgotten already
	}
	p.mu.Lock()
	running := p.exited == nil
	p.mu.Unlock()
	if running {
		s.mu.Unlock()
		return errs.New(errs.Conflict, "process %s runs (pid %d)", id, p.pid)
	}
	delete(s.procs, id)
	s.mu.Unlock()
	p.release()
	p.removeState()
	return nil
}

// list sends all processes, some in each message; reply becomes the last.
func (s *Server) list(c *wire.Conn, seq uint64, reply *wire.Message) error {
	s.mu.Lock()
	procs := make([]*proc, 0, len(s.procs))
	for _, p := range s.procs {
		if p.ready {
			procs = append(procs, p)
		}
	}
	s.mu.Unlock()
	const each = wire.MaxFiles / 4
	for len(procs) > 0 {
		n := min(len(procs), each)
		part := &wire.Message{Seq: seq, Op: wire.OpList, Reply: true, More: true}
		var out wire.Files
		for _, p := range procs[:n] {
			part.Processes = append(part.Processes, *p.describe(&out, true))
		}
		procs = procs[n:]
		err := c.Send(part, nil, out)
		wire.CloseAll(out)
		if err != nil {
			return err
		}
	}
	return nil
}

// keep stashes files.
func (s *Server) keep(m *wire.Message, files wire.Files) {
	fds := make([]int, 0, len(files))
	for i := range files {
		fds = append(fds, files.Take(wire.File(i+1)))
	}
	s.mu.Lock()
	old := s.stash[m.ID]
	s.stash[m.ID] = fds
	s.mu.Unlock()
	closeAll(old)
}

// stashed sends all stashed files, each name in a message.
func (s *Server) stashed(c *wire.Conn, seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, fds := range s.stash {
		part := &wire.Message{Seq: seq, Op: wire.OpStashed, Reply: true, More: true, ID: name}
		if err := c.Send(part, nil, fds); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) unstash(name string) {
	s.mu.Lock()
	old := s.stash[name]
	delete(s.stash, name)
	s.mu.Unlock()
	closeAll(old)
}

// dup duplicates a descriptor; -1 for -1, or if there is no room for another.
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

func closeAll(fds []int) {
	for _, fd := range fds {
		closeFD(fd)
	}
}
