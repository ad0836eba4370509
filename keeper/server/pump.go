package server

import (
	"errors"
	"hash/crc32"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skiff/keeper/logfile"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pump moves one stream of a process to its log and its subscribers. The order for a pipe is: look at a chunk (tee),
// store in the ledger what comes, write the log, deliver, take the chunk out of the pipe into a limbo pipe, store that it is done.
// A keeper that is killed between any two of these leaves its successor enough to go on without a gap or a repetition.
// A terminal's bytes can't be looked at, so they are moved to the limbo first.
type pump struct {
	p      *proc
	stream logfile.Stream
	f      *os.File
	fd     int
	rc     syscall.RawConn
	tty    bool
	seq    uint64 // of the last chunk that was given to subscribers; written under p.mu by the pump alone

	exited  atomic.Bool   // the process is gone: what is there now is the rest
	closed  atomic.Bool   // stop at once
	drained chan struct{} // closed when the stream was seen empty after the process's end, or ended
	eof     chan struct{} // closed when the pump is through
}

// newPump takes over fd.
func newPump(p *proc, stream logfile.Stream, fd int, tty bool) (*pump, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		closeFD(fd)
		return nil, err
	}
	pu := &pump{
		p: p, stream: stream, fd: fd, tty: tty, f: os.NewFile(uintptr(fd), stream.String()),
		drained: make(chan struct{}), eof: make(chan struct{}),
	}
	var err error
	pu.rc, err = pu.f.SyscallConn()
	return pu, err
}

// kick makes the pump look at its flags.
func (pu *pump) kick() { _ = pu.f.SetReadDeadline(time.Unix(1, 0)) }

// run is the pump's goroutine.
func (pu *pump) run() {
	defer func() {
		pu.setDrained()
		close(pu.eof)
		pu.p.srv.chunks.RLock()
		defer pu.p.srv.chunks.RUnlock()
		pu.f.Close()
	}()
	for {
		ready, end := pu.wait()
		if end {
			return
		}
		if !ready {
			continue
		}
		pu.p.waitForRoom(pu)
		if !pu.handle() {
			return
		}
	}
}

func (pu *pump) setDrained() {
	select {
	case <-pu.drained:
	default:
		close(pu.drained)
	}
}

// wait waits for bytes or the end of the stream.
func (pu *pump) wait() (ready, end bool) {
	err := pu.rc.Read(func(fd uintptr) bool {
		ready, end = pu.look(fd)
		return ready || end
	})
	if errors.Is(err, os.ErrDeadlineExceeded) { // kicked
		if pu.closed.Load() {
			return false, true
		}
		_ = pu.f.SetReadDeadline(time.Time{})
		return false, false
	}
	if err != nil && !ready {
		return false, true
	}
	return ready, end
}

// look polls the stream. A pipe without writers is at its end. A terminal without users is that only when its process is
// gone: before, the process may open it again.
func (pu *pump) look(fd uintptr) (ready, end bool) {
	if pu.closed.Load() {
		return false, true
	}
	exited := pu.exited.Load() // before the look: what is not there now won't come from the process
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, 0); n <= 0 || err != nil {
		if exited {
			pu.setDrained()
		}
		return false, false
	}
	if p[0].Revents&unix.POLLIN != 0 {
		return true, false
	}
	if pu.tty && !exited {
		return false, false
	}
	return false, true
}

// handle handles one chunk. It is false at the stream's end.
func (pu *pump) handle() bool {
	pu.p.srv.chunks.RLock()
	defer pu.p.srv.chunks.RUnlock()
	d, err := pu.p.srv.pool.get()
	if err != nil {
		pu.p.srv.log.Error("no pipes to handle output with", "id", pu.p.id, "error", err)
		time.Sleep(100 * time.Millisecond)
		return true
	}
	defer pu.p.srv.pool.put(d)
	if pu.tty {
		err = pu.handleTerminal(d)
	} else {
		err = pu.handlePipe(d)
	}
	switch {
	case err == nil || errors.Is(err, unix.EAGAIN):
		return true
	case errors.Is(err, unix.EIO) && pu.tty: // nobody has it open
		return !pu.exited.Load()
	case !errors.Is(err, io.EOF):
		pu.p.srv.log.Error("output is lost from here on", "id", pu.p.id, "stream", pu.stream.String(), "error", err)
	}
	return false
}

func (pu *pump) handlePipe(d *desk) error {
	n, err := d.peek(pu.fd)
	if err != nil {
		return err
	}
	if n == len(d.buf) { // more is to come at once: then no character is cut in two
		n = logfile.Split(d.buf[:n])
	}
	b := d.buf[:n]
	rec := record{active: true, limbo: d.number, n: n, seq: pu.seq + 1, crc: crc32.Checksum(b, castagnoli)}
	pu.record(b, &rec)
	pu.deliver(b)
	if err := pu.take(d, n); err != nil {
		return err
	}
	pu.p.srv.ledger.set(pu.p.slot, pu.stream, &record{seq: pu.seq})
	return nil
}

// take moves n bytes, which are known to be there, to the limbo.
func (pu *pump) take(d *desk, n int) error {
	for n > 0 {
		k, err := d.move(pu.fd, n)
		if err != nil {
			return err
		}
		if k == 0 {
			return io.ErrUnexpectedEOF
		}
		n -= k
	}
	return nil
}

func (pu *pump) handleTerminal(d *desk) error {
	rec := record{active: true, moves: true, limbo: d.number, seq: pu.seq + 1}
	pu.p.srv.ledger.set(pu.p.slot, pu.stream, &rec)
	defer func() { pu.p.srv.ledger.set(pu.p.slot, pu.stream, &record{seq: pu.seq}) }()
	n, err := d.move(pu.fd, len(d.buf))
	if errors.Is(err, unix.EINVAL) { // Linux before 5.11 can't splice from a terminal
		n, err = unix.Read(pu.fd, d.buf)
		if err == nil && n > 0 {
			pu.record(d.buf[:n], &rec)
			pu.deliver(d.buf[:n])
		}
		return err
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return unix.EIO
	}
	if n, err = d.peek(d.limbo.r); err != nil {
		return err
	}
	rec.n = n
	pu.record(d.buf[:n], &rec)
	pu.deliver(d.buf[:n])
	return nil
}

// record writes the log, and before each write the ledger. A log that can't be written doesn't stop the container.
func (pu *pump) record(b []byte, rec *record) { pu.recordFrom(b, 0, rec) }

// recordFrom is record for a chunk whose first skip bytes are in the log already.
func (pu *pump) recordFrom(b []byte, skip int, rec *record) {
	led, slot := pu.p.srv.ledger, pu.p.slot
	w := pu.p.logWriter()
	if w == nil {
		led.set(slot, pu.stream, rec)
		return
	}
	err := w.Append(time.Now(), pu.stream, b[skip:], func(m logfile.Mark) {
		m.Done += skip
		rec.marked, rec.mark = true, m
		led.set(slot, pu.stream, rec)
	})
	if err != nil {
		pu.p.logFailed(err)
	}
}

// deliver gives the chunk to the subscribers.
func (pu *pump) deliver(b []byte) {
	for _, s := range pu.p.audience(pu) {
		s.deliver(pu.stream, pu.seq, b)
	}
}

func crc32Sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
