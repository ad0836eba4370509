package server

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skiff/keeper/logfile"
)

const (
	memoryQueue  = 256 << 10 // bytes of a subscriber's backlog in memory; more goes to a file
	spillCap     = 256 << 20 // bytes of a backlog at all
	stallTimeout = 10 * time.Second
)

// subscriber gets the output of a process. Writing to it never blocks: what the other side does not take waits in a queue.
//
// All bytes pass through a pipe that the engine holds too: a frame is written to the pipe, then it is stored in the ledger that
// it was delivered, then the pipe is spliced to the other side. So a keeper that follows a killed one finds there what is
// still to be passed on, and if the store is missing it sees by the pipe's fill whether the frame was written.
type subscriber struct {
	number uint64
	slot   int // in the ledger
	want   [3]bool
	raw    bool // no frames
	dir    string
	ledger *ledger
	gone   func(*subscriber) // called once, when it is done

	f    *os.File
	rc   syscall.RawConn
	sock bool
	pipe pipe

	mu       sync.Mutex
	mem      []byte // the backlog's bytes that come after those in the pipe
	spill    *spill // what comes after them
	draining bool   // something waits in the pipe, in mem or in spill; the goroutine of drain is at work
	closing  bool   // when the backlog is written, it is done
	dead     bool
	progress time.Time     // when it last took something
	room     chan struct{} // closed and renewed when the backlog shrinks
}

const pipeSlots = 64 // pages that a subscriber's pipe holds

// newSubscriber takes over fd and the pipe.
func newSubscriber(fd int, through pipe, raw bool, dir string, l *ledger) (*subscriber, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && through.r < 0 {
		through, err = newPipe()
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(through.w), unix.F_SETPIPE_SZ, pipeSlots*4096)
	}
	if err != nil {
		closeFD(fd)
		through.close()
		return nil, err
	}
	_, _ = unix.SetNonblock(through.r, true), unix.SetNonblock(through.w, true)
	s := &subscriber{raw: raw, dir: dir, ledger: l, slot: -1, sock: st.Mode&unix.S_IFMT == unix.S_IFSOCK, pipe: through, room: make(chan struct{})}
	if !s.sock { // a description of our own, whose flags nobody else changes
		if own, err := unix.Open(procFD(fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0); err == nil {
			closeFD(fd)
			fd = own
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		closeFD(fd)
		through.close()
		return nil, err
	}
	s.f = os.NewFile(uintptr(fd), "subscriber")
	if s.rc, err = s.f.SyscallConn(); err != nil {
		s.f.Close()
		return nil, err
	}
	return s, nil
}

// watch returns when the other side has closed its end.
func (s *subscriber) watch() {
	_ = s.rc.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		return err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
}

// end is the end: of the file, the backlog, and for the process. The caller holds s.mu.
func (s *subscriber) end() {
	if s.dead {
		return
	}
	s.dead = true
	s.mem = nil
	if s.spill != nil {
		s.spill.close()
		s.spill = nil
	}
	close(s.room)
	if s.sock { // the engine holds a duplicate: only this tells the other side
		_ = s.rc.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
	}
	s.pipe.close()
	s.pipe = pipe{-1, -1}
	go func() { // Close waits for the callbacks of rc, one of which may be our caller; gone takes locks
		s.f.Close()
		s.gone(s)
	}()
}

// finish lets it end as soon as it was given everything.
func (s *subscriber) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	if !s.draining {
		s.end()
	}
}

// deliver gives it a chunk of a stream.
func (s *subscriber) deliver(stream logfile.Stream, seq uint64, p []byte) {
	if !s.want[stream] || len(p) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.closing {
		return
	}
	var head []byte
	if !s.raw {
		head = make([]byte, 8)
		head[0] = byte(stream)
		binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
	}
	inPipe := 0
	if s.draining {
		inPipe = s.pipe.fill()
	}
	// Room for all of it, however it falls on the pages: of two neighbouring ones at least half is used.
	direct := len(s.mem) == 0 && s.spill == nil && inPipe/2048+(len(head)+len(p))/4096+4 <= pipeSlots
	if direct {
		s.ledger.setWaiting(s.slot, waiting{fill: inPipe, stream: stream, seq: seq})
		direct = s.enter(head, p)
	}
	if !direct && !s.dead {
		s.ledger.setWaiting(s.slot, waiting{behind: true})
		s.queue(head)
		s.queue(p)
	}
	s.ledger.setDelivered(s.slot, stream, seq)
	if s.draining || s.dead {
		return
	}
	if done, err := s.pass(); err != nil {
		s.end()
	} else if !done || !direct {
		s.draining, s.progress = true, time.Now()
		go s.drain()
	}
}

// enter writes a frame to the pipe. It is false if it went elsewhere.
func (s *subscriber) enter(head, p []byte) bool {
	n, err := writev(s.pipe.w, head, p)
	if err == unix.EAGAIN {
		return false
	}
	if err != nil {
		s.end()
		return true
	}
	if n < len(head)+len(p) { // can't be
		s.ledger.setWaiting(s.slot, waiting{behind: true})
		s.queue(append(head[:len(head):len(head)], p...)[n:])
	}
	return true
}

func writev(fd int, head, p []byte) (int, error) {
	bufs := [][]byte{p}
	if len(head) > 0 {
		bufs = [][]byte{head, p}
	}
	for {
		n, err := unix.Writev(fd, bufs)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// pass moves from the pipe to the other side what that takes. done: the pipe is empty.
func (s *subscriber) pass() (done bool, err error) {
	cerr := s.rc.Control(func(fd uintptr) {
		if s.sock { // the engine has the same description, and Go's Fd makes it blocking
			if flags, ferr := unix.FcntlInt(fd, unix.F_GETFL, 0); ferr == nil && flags&unix.O_NONBLOCK == 0 {
				_ = unix.SetNonblock(int(fd), true)
			}
		}
		for {
			var n int64
			n, err = unix.Splice(s.pipe.r, nil, int(fd), nil, pipeSlots*4096, unix.SPLICE_F_NONBLOCK)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				done, err = s.pipe.fill() == 0, nil
				return
			case err != nil:
				return
			case n == 0:
				done = true
				return
			}
			s.progress = time.Now()
		}
	})
	return done, errors.Join(err, cerr)
}

// queue appends to the backlog. The caller holds s.mu.
func (s *subscriber) queue(p []byte) {
	if s.spill == nil && len(s.mem)+len(p) <= memoryQueue {
		s.mem = append(s.mem, p...)
		return
	}
	if s.spill == nil {
		var err error
		if s.spill, err = newSpill(s.dir); err != nil {
			s.end()
			return
		}
	}
	if err := s.spill.add(p); err != nil { // no disk: it can't have everything any more, so it gets an end
		s.end()
	}
}

// drain passes the backlog on as the other side takes it.
func (s *subscriber) drain() {
	err := s.rc.Write(func(uintptr) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for !s.dead {
			done, err := s.pass()
			if err != nil {
				s.end()
				return true
			}
			if !done {
				return false
			}
			if len(s.mem) == 0 && s.spill != nil {
				s.refill()
			}
			if len(s.mem) == 0 {
				s.mem, s.draining = nil, false
				if s.closing {
					s.end()
				}
				return true
			}
			n, err := writev(s.pipe.w, nil, s.mem[:min(len(s.mem), chunkSize)])
			if err != nil {
				s.end()
				return true
			}
			s.mem = s.mem[n:]
			s.took()
		}
		return true
	})
	if err != nil {
		s.mu.Lock()
		s.end()
		s.mu.Unlock()
	}
}

func (s *subscriber) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// took notes that the backlog shrank. The caller holds s.mu.
func (s *subscriber) took() {
	if len(s.mem) == 0 && s.spill == nil {
		s.ledger.setWaiting(s.slot, waiting{}) // what the pipe holds survives
	}
	if s.backlog() < spillCap {
		close(s.room)
		s.room = make(chan struct{})
	}
}

// refill reads from the file into memory. The caller holds s.mu.
func (s *subscriber) refill() {
	b := s.mem[:0]
	if cap(b) < chunkSize {
		b = make([]byte, 0, chunkSize)
	}
	b, err := s.spill.take(b[:chunkSize])
	if err != nil {
		s.end()
		return
	}
	s.mem = b
	if s.spill.size() == 0 {
		s.spill.close()
		s.spill = nil
	}
}

// backlog is how many bytes wait. The caller holds s.mu.
func (s *subscriber) backlog() int64 {
	n := int64(len(s.mem))
	if s.spill != nil {
		n += s.spill.size()
	}
	return n
}

// full gives a channel that is closed when there is room again; nil if there is room.
func (s *subscriber) full() (room <-chan struct{}, stalled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.backlog() < spillCap {
		return nil, false
	}
	return s.room, time.Since(s.progress) > stallTimeout
}

// drop ends it at once.
func (s *subscriber) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

// spill is a queue of bytes in an unlinked file.
type spill struct {
	f        *os.File
	from, to int64
}

func newSpill(dir string) (*spill, error) {
	f, err := os.CreateTemp(dir, ".spill-*")
	if err != nil {
		return nil, err
	}
	return &spill{f: f}, os.Remove(f.Name())
}

func (s *spill) size() int64 { return s.to - s.from }

func (s *spill) add(p []byte) error {
	n, err := s.f.WriteAt(p, s.to)
	s.to += int64(n)
	return err
}

func (s *spill) take(b []byte) ([]byte, error) {
	b = b[:min(int64(len(b)), s.size())]
	n, err := s.f.ReadAt(b, s.from)
	s.from += int64(n)
	if n == len(b) {
		err = nil
	}
	const hole = 4 << 20
	if s.from%hole < int64(n) { // give back the disk that was read, now and then
		_ = unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, s.from)
	}
	return b[:n], err
}

func (s *spill) close() { s.f.Close() }
