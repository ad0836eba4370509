package server

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper/logfile"
	"skiff/keeper/wire"
)

// adopt takes over processes that another keeper started. They come to life with takeOver.
func (s *Server) adopt(m *wire.Message, files wire.Files) error {
	if s.pool != nil {
		return errs.New(errs.Conflict, "this keeper has taken over already")
	}
	for i := range m.Processes {
		if err := s.adoptProcess(&m.Processes[i], files); err != nil {
			s.log.Error("a process can't be taken over", "id", m.Processes[i].ID, "error", err)
		}
	}
	return nil
}

func (s *Server) adoptProcess(w *wire.Process, files wire.Files) error {
	p := &proc{
		srv: s, id: w.ID, pid: w.PID, start: w.StartTime, startedAt: w.StartedAt, terminal: w.Terminal, logCfg: w.Log,
		exited: w.Exited, slot: w.Slot - 1, stdin: -1, ready: true,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.procs[p.id] != nil {
		return errs.New(errs.Conflict, "process %s is here already", p.id)
	}
	if p.exited != nil { // there may be subscribers who have not read everything yet
		p.slot, p.over = -1, true
		for i := range w.Subscribers {
			p.adoptSubscriber(&w.Subscribers[i], files)
		}
		s.procs[p.id] = p
		return nil
	}
	if err := p.setPIDFD(files.Take(w.PIDFD)); err != nil {
		return err
	}
	if !s.ledger.takeProc(p.slot, p.pid, p.start) {
		p.slot = s.ledger.allocProc()
		s.ledger.name(p.slot, p.pid, p.start)
	}
	if w.Log.Enabled() {
		var err error
		if p.log, err = logfile.Open(w.Log); err != nil {
			p.logFailed(err)
		}
	}
	stdin := files.Take(w.Stdin)
	if w.StdinClosed && !w.Terminal {
		closeFD(stdin)
		stdin = -1
	}
	if err := p.addPumps(stdin, files.Take(w.Stdout), files.Take(w.Stderr)); err != nil {
		return err
	}
	for i := range w.Subscribers {
		p.adoptSubscriber(&w.Subscribers[i], files)
	}
	s.procs[p.id] = p
	s.pids[p.pid] = true
	return nil
}

// adoptSubscriber goes on with a subscriber. One for whom bytes were waiting in the dead keeper's memory has a gap, so it gets an end.
func (p *proc) adoptSubscriber(w *wire.Subscriber, files wire.Files) {
	sub, err := newSubscriber(files.Take(w.W), pipe{files.Take(w.Pipe.R), files.Take(w.Pipe.W)}, p.terminal, p.srv.dir, p.srv.ledger)
	if err != nil {
		p.srv.log.Warn("a subscriber is lost", "id", p.id, "error", err)
		return
	}
	sub.number = w.Number
	sub.want[logfile.Stdout], sub.want[logfile.Stderr] = w.Stdout, w.Stderr
	if p.srv.ledger.takeSub(w.Slot-1, w.Number) {
		sub.slot = w.Slot - 1
	}
	sub.gone = p.unsubscribe
	if sub.slot < 0 || p.srv.ledger.waiting(sub.slot).behind {
		p.srv.log.Warn("a subscriber was behind when the keeper died, and gets an end", "id", p.id)
		sub.drop()
		return
	}
	if sub.pipe.fill() > 0 {
		sub.draining, sub.progress = true, time.Now()
	}
	p.subs = append(p.subs, sub)
}

// inherit takes what the engine says of the dead keeper first of all: with it, and the state files, this keeper can go on even
// if the engine dies before it has handed over everything.
func (s *Server) inherit(m *wire.Message, files wire.Files) {
	if m.Config == nil || s.pool != nil {
		return
	}
	cfg := *m.Config
	cfg.Keeper = s.cfg.Keeper
	s.cfg = cfg
	if m.Engine != nil {
		s.setEngine(m.EnginePID, files.Take(*m.Engine))
	}
	for _, l := range m.Limbo {
		s.limbo = append(s.limbo, pipe{files.Take(l.R), files.Take(l.W)})
	}
}

// takeOver brings to life what was adopted.
func (s *Server) takeOver() error {
	if s.pool != nil {
		return errs.New(errs.Conflict, "this keeper has taken over already")
	}
	s.dismissStrangers()
	return s.beginAll(s.limbo)
}

// beginAll finishes what a former keeper was in the middle of, and starts the pumps.
func (s *Server) beginAll(limbo []pipe) error {
	pool, err := newPool(limbo)
	if err != nil {
		return err
	}
	s.pool = pool
	for _, p := range s.procs {
		for _, pu := range p.pumps {
			if err := pu.recover(len(limbo) > 0); err != nil {
				s.log.Error("output around the end of the former keeper may be missing", "id", p.id, "error", err)
			}
		}
	}
	pool.open()
	for _, p := range s.procs {
		subs := p.subscribers()
		for _, sub := range subs {
			go sub.watch()
			if sub.isDraining() {
				go sub.drain()
			}
			if p.over {
				sub.finish()
			}
		}
		if !p.over {
			p.begin()
			p.saveState()
		}
	}
	return nil
}

// recover completes the chunk that a former keeper was handling when it died. limbo says that its limbo pipes are ours.
func (pu *pump) recover(limbo bool) error {
	led := pu.p.srv.ledger
	rec := led.get(pu.p.slot, pu.stream)
	pu.seq = rec.seq
	if !rec.active {
		return nil
	}
	pu.seq = rec.seq - 1
	defer func() {
		pu.seq = rec.seq
		led.set(pu.p.slot, pu.stream, &record{seq: rec.seq})
	}()
	if rec.limbo >= len(pu.p.srv.pool.all) || rec.n > chunkSize {
		return nil
	}
	d := pu.p.srv.pool.all[rec.limbo]
	work := &desk{number: d.number, limbo: d.limbo, buf: make([]byte, chunkSize)}
	var err error
	if work.scratch, err = newPipe(); err != nil {
		return err
	}
	defer work.scratch.close()
	logged := 0
	if w := pu.p.logWriter(); w != nil && rec.marked {
		if logged, err = w.Logged(rec.mark, pu.stream); err != nil {
			return err
		}
	}
	if rec.moves {
		return pu.recoverMoved(work, &rec, logged)
	}
	return pu.recoverPeeked(work, &rec, logged, limbo)
}

// recoverMoved: what was read from the terminal is in the limbo.
func (pu *pump) recoverMoved(d *desk, rec *record, logged int) error {
	if d.limbo.fill() == 0 {
		return nil
	}
	n, err := d.peek(d.limbo.r)
	if err != nil {
		return err
	}
	pu.recordFrom(d.buf[:n], min(logged, n), rec)
	pu.deliverLate(rec.seq, d.buf[:n])
	return nil
}

// recoverPeeked: the chunk's first bytes may have been taken to the limbo (then log and subscribers have all of it), the
// others are in the pipe.
func (pu *pump) recoverPeeked(d *desk, rec *record, logged int, limbo bool) error {
	taken := 0
	if limbo {
		taken = d.limbo.fill()
	}
	rest := rec.n - taken
	if rest <= 0 {
		return nil
	}
	if taken > 0 {
		return pu.take(d, rest)
	}
	n, err := d.peek(pu.fd)
	same := err == nil && n >= rest && crc32Sum(d.buf[:rest]) == rec.crc
	if !same {
		// Without the limbo it is not known whether the chunk was taken: it was, if something else is in its place.
		if !limbo {
			return nil
		}
		return fmt.Errorf("%s holds %d bytes instead of the %d that were seen there (%w)", pu.stream, n, rest, err)
	}
	if logged < rest {
		pu.recordFrom(d.buf[:rest], logged, rec)
	}
	pu.deliverLate(rec.seq, d.buf[:rest])
	return pu.take(d, rest)
}

// deliverLate gives the chunk to those subscribers who don't have it.
func (pu *pump) deliverLate(seq uint64, b []byte) {
	for _, s := range pu.p.subscribers() {
		if pu.p.srv.ledger.delivered(s.slot, pu.stream) >= seq {
			continue
		}
		w := pu.p.srv.ledger.waiting(s.slot)
		if w.stream == pu.stream && w.seq == seq&lowSeq && s.pipe.fill() > w.fill { // it is in its pipe already
			pu.p.srv.ledger.setDelivered(s.slot, pu.stream, seq)
			continue
		}
		s.deliver(pu.stream, seq, b)
	}
}

// dismissStrangers ends processes that a dead keeper had started without being able to tell the engine: the engine was
// told that their launch failed.
func (s *Server) dismissStrangers() {
	states, err := s.readStates()
	if err != nil {
		s.log.Error("look for processes that the engine doesn't know", "error", err)
	}
	for _, st := range states {
		p := s.procs[st.ID]
		if p != nil && p.pid == st.PID {
			if p.exited == nil {
				continue
			}
			st.Exited = p.exited
		}
		if st.Exited == nil && p == nil {
			if fd, err := openProcess(st.PID, st.StartTime); err == nil {
				s.log.Warn("a half-launched process is ended", "id", st.ID, "pid", st.PID)
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				closeFD(fd)
			}
		}
		if p == nil {
			s.removeState(st.ID)
		}
	}
}

// openProcess opens a pidfd if pid is still the process that was started at start.
func openProcess(pid int, start uint64) (int, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", pid, err)
	}
	if _, now, _, err := procStat(pid); err != nil || now != start {
		closeFD(fd)
		return -1, fmt.Errorf("process %d is another one now (%v)", pid, err)
	}
	return fd, nil
}

// recover finds the processes of a keeper that died together with its engine.
func (s *Server) recover() error {
	states, err := s.readStates()
	if err != nil {
		return err
	}
	for _, st := range states {
		if s.procs[st.ID] != nil { // handed over before the engine died
			continue
		}
		if err := s.recoverProcess(&st); err != nil {
			s.log.Error("a process can't be taken over", "id", st.ID, "error", err)
		}
	}
	return s.beginAll(s.limbo)
}

func (s *Server) recoverProcess(st *saved) error {
	w := st.Process
	var files wire.Files
	defer func() { wire.CloseAll(files) }()
	if w.Exited == nil {
		fd, err := openProcess(w.PID, w.StartTime)
		if err != nil {
			w.Exited = &wire.Exit{ID: w.ID, At: time.Now(), Code: -1}
		} else {
			w.PIDFD = files.Add(fd)
			fds := reopenStreams(w.PID, st.Streams)
			w.Stdin, w.Stdout, w.Stderr = files.Add(fds[0]), files.Add(fds[1]), files.Add(fds[2])
		}
	}
	w.Subscribers = nil
	return s.adoptProcess(&w, files)
}
