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

	mu       sync.Mutex
	mem      []byte // the oldest bytes of the backlog
	spill    *spill // what came after them
	draining bool
	closing  bool // when the backlog is written, it is done
	dead     bool
	progress time.Time     // when it last took something
	room     chan struct{} // closed and renewed when the backlog shrinks
}

// newSubscriber takes over fd.
func newSubscriber(fd int, raw bool, dir string, l *ledger) (*subscriber, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		closeFD(fd)
		return nil, err
	}
	s := &subscriber{raw: raw, dir: dir, ledger: l, slot: -1, sock: st.Mode&unix.S_IFMT == unix.S_IFSOCK, room: make(chan struct{})}
	if !s.sock { // a description of our own, whose flags nobody else changes
		if own, err := unix.Open(procFD(fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0); err == nil {
			closeFD(fd)
			fd = own
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		closeFD(fd)
		return nil, err
	}
	s.f = os.NewFile(uintptr(fd), "subscriber")
	var err error
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
	s.f.Close()
	go s.gone(s) // it takes locks that our caller may hold
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
	if s.draining {
		s.queue(head)
		s.queue(p)
	} else {
		s.direct(head, p)
	}
	s.ledger.setDelivered(s.slot, stream, seq)
}

// direct writes at once what can be written at once.
func (s *subscriber) direct(head, p []byte) {
	n, err := s.write(head, p)
	if err != nil {
		s.end()
		return
	}
	if n == len(head)+len(p) {
		return
	}
	s.ledger.setBehind(s.slot, true)
	s.draining = true
	s.progress = time.Now()
	if n < len(head) {
		s.queue(head[n:])
		n = len(head)
	}
	s.queue(p[n-len(head):])
	go s.drain()
}

// write never blocks; 0 if there is no room.
func (s *subscriber) write(head, p []byte) (n int, err error) {
	bufs := [][]byte{p}
	if len(head) > 0 {
		bufs = [][]byte{head, p}
	}
	cerr := s.rc.Control(func(fd uintptr) {
		for {
			if s.sock {
				n, err = unix.SendmsgBuffers(int(fd), bufs, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			} else {
				n, err = unix.Writev(int(fd), bufs)
			}
			if err != unix.EINTR {
				return
			}
		}
	})
	if errors.Is(err, unix.EAGAIN) {
		return 0, nil
	}
	return max(n, 0), errors.Join(err, cerr)
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

// drain writes the backlog as the other side takes it.
func (s *subscriber) drain() {
	err := s.rc.Write(func(uintptr) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for !s.dead {
			if len(s.mem) == 0 && s.spill != nil {
				s.refill()
				continue
			}
			if len(s.mem) == 0 {
				s.mem, s.draining = nil, false
				s.ledger.setBehind(s.slot, false)
				if s.closing {
					s.end()
				}
				return true
			}
			n, err := s.write(nil, s.mem)
			if err != nil {
				s.end()
			} else if n == 0 {
				return false
			} else {
				s.mem = s.mem[n:]
				s.took()
			}
		}
		return true
	})
	if err != nil {
		s.mu.Lock()
		s.end()
		s.mu.Unlock()
	}
}

// took notes that the backlog shrank. The caller holds s.mu.
func (s *subscriber) took() {
	s.progress = time.Now()
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
