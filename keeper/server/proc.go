package server

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skiff/keeper/logfile"
	"skiff/keeper/wire"
)

const (
	// drainGrace is how long an end is held back while output still flows after it.
	drainGrace = 10 * time.Second
	// eofGrace is how long after that the streams may stay open: somebody else holds them.
	eofGrace = 50 * time.Millisecond
)

// proc is a process in the keeper's books.
type proc struct {
	srv       *Server
	id        string
	pid       int
	start     uint64
	startedAt time.Time
	terminal  bool
	logCfg    logfile.Config
	slot      int // in the ledger, or -1

	pidf  *os.File // pidfd
	pidrc syscall.RawConn
	pumps []*pump
	ready bool // it runs, or ran; under srv.mu

	mu        sync.Mutex
	stdin     int // -1: none or closed
	log       *logfile.Writer
	subs      []*subscriber
	over      bool       // subscribers are turned away
	reaped    *wire.Exit // its status was collected; it is not told yet
	exited    *wire.Exit
	forgotten bool
	lastGripe time.Time
}

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// setPIDFD takes over the process's pidfd.
func (p *proc) setPIDFD(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		closeFD(fd)
		return fmt.Errorf("pidfd of process %d: %w", p.pid, err)
	}
	p.pidf = os.NewFile(uintptr(fd), "pidfd")
	var err error
	p.pidrc, err = p.pidf.SyscallConn()
	return err
}

func (p *proc) pidfd() (fd int) {
	fd = -1
	if p.pidrc == nil { // it ended before this keeper's time
		return fd
	}
	_ = p.pidrc.Control(func(x uintptr) { fd = int(x) })
	return fd
}

// addPumps takes over the keeper's ends of the streams; -1 for none.
func (p *proc) addPumps(stdin, stdout, stderr int) error {
	p.stdin = stdin
	for i, fd := range []int{stdout, stderr} {
		if fd < 0 {
			continue
		}
		pu, err := newPump(p, logfile.Stream(i+1), fd, p.terminal)
		if err != nil {
			return fmt.Errorf("%s of process %s: %w", logfile.Stream(i+1), p.id, err)
		}
		p.pumps = append(p.pumps, pu)
	}
	return nil
}

// begin starts the goroutines of a process that is complete.
func (p *proc) begin() {
	for _, pu := range p.pumps {
		go pu.run()
	}
	go p.watch()
}

// watch waits for the end of the process and tells it.
func (p *proc) watch() {
	_ = p.pidrc.Read(func(fd uintptr) bool { return readable(int(fd)) })
	exit := p.collect()
	p.settle()
	p.srv.ended(p, exit)
}

// collect reaps the process, once.
func (p *proc) collect() *wire.Exit {
	p.srv.chunks.RLock()
	defer p.srv.chunks.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped == nil {
		p.reaped = p.reap()
	}
	return p.reaped
}

// settle waits until the output of a process that ended was handled, and ends the subscriptions.
func (p *proc) settle() {
	for _, pu := range p.pumps {
		pu.exited.Store(true)
		pu.kick()
	}
	limit := time.NewTimer(drainGrace)
	defer limit.Stop()
	for _, pu := range p.pumps {
		select {
		case <-pu.drained:
		case <-limit.C:
			limit.Reset(0)
		}
	}
	grace := time.NewTimer(eofGrace)
	defer grace.Stop()
	for _, pu := range p.pumps {
		select {
		case <-pu.eof:
		case <-grace.C:
			grace.Reset(0)
		}
	}
	p.mu.Lock()
	subs := p.subs
	p.over = true
	p.mu.Unlock()
	for _, s := range subs {
		s.finish()
	}
}

// subscribe adds a subscriber.
func (p *proc) subscribe(s *subscriber) bool {
	s.gone = p.unsubscribe
	p.mu.Lock()
	if p.over || p.forgotten {
		p.mu.Unlock()
		return false
	}
	for _, pu := range p.pumps {
		p.srv.ledger.setDelivered(s.slot, pu.stream, pu.seq)
	}
	p.subs = append(p.subs, s)
	p.mu.Unlock()
	go s.watch()
	return true
}

func (p *proc) unsubscribe(s *subscriber) {
	p.mu.Lock()
	if i := slices.Index(p.subs, s); i >= 0 {
		p.subs = slices.Delete(slices.Clone(p.subs), i, i+1) // audiences keep the old list
	}
	p.mu.Unlock()
	p.srv.ledger.freeSub(s.slot)
	p.srv.push(&wire.Message{Op: wire.OpUnsubs, ID: p.id, Subscriber: &wire.Subscriber{Number: s.number}})
}

// audience is who gets the next chunk of pu. Whoever subscribes after that gets the one after it.
func (p *proc) audience(pu *pump) []*subscriber {
	p.mu.Lock()
	defer p.mu.Unlock()
	pu.seq++
	return p.subs
}

func (p *proc) subscribers() []*subscriber {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.subs
}

// waitForRoom holds a pump back while its only subscriber is full. Of several, one that is full and takes nothing is dropped.
func (p *proc) waitForRoom(pu *pump) {
	for !pu.closed.Load() {
		subs := p.subscribers()
		var wait <-chan struct{}
		for _, s := range subs {
			room, stalled := s.full()
			switch {
			case room == nil:
			case stalled && len(subs) > 1:
				p.srv.log.Warn("a subscriber takes nothing and is dropped", "id", p.id)
				s.drop()
			default:
				wait = room
			}
		}
		if wait == nil {
			return
		}
		select {
		case <-wait:
		case <-time.After(time.Second):
		}
	}
}

func (p *proc) logWriter() *logfile.Writer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log
}

// logFailed complains, but not for each line.
func (p *proc) logFailed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.lastGripe) > time.Minute {
		p.lastGripe = time.Now()
		p.srv.log.Error("output is not in the log", "id", p.id, "error", err)
	}
}

// closeStdin closes the keeper's copy. A terminal has no end of its own for input, it stays.
func (p *proc) closeStdin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.terminal {
		closeFD(p.stdin)
		p.stdin = -1
	}
}

// release frees all that the process holds.
func (p *proc) release() {
	for _, pu := range p.pumps {
		pu.closed.Store(true)
		pu.kick()
	}
	for _, pu := range p.pumps {
		<-pu.eof
	}
	p.mu.Lock()
	subs, log := p.subs, p.log
	p.forgotten, p.over, p.log = true, true, nil
	closeFD(p.stdin)
	p.stdin = -1
	p.mu.Unlock()
	for _, s := range subs {
		s.finish()
	}
	if log != nil {
		_ = log.Close()
	}
	p.srv.ledger.freeProc(p.slot)
	if p.pidf != nil {
		p.pidf.Close()
	}
}

func readable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}
