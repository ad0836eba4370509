package logfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// batchSize is how many encoded bytes are written at once.
const batchSize = 128 << 10

// Writer appends to a log. Its methods may be called from several goroutines.
type Writer struct {
	cfg   Config
	codec codec

	mu     sync.Mutex
	f      *os.File
	closed bool

	packing chan struct{} // not nil: a compression is under way; closed at its end
	stop    chan struct{} // closed by Close
}

// Mark is a place in a log where a batch of bytes is about to be written. With it, somebody who finds the log after
// a crash learns from Logged what was written.
type Mark struct {
	Inode  uint64 // of the file
	Offset int64  // of the batch in it
	Done   int    // bytes of the chunk that were written before this batch
	Len    int    // bytes of the chunk in this batch
}

// Open opens a log for appending, makes it if need be, and cuts off a torn record at its end.
func Open(cfg Config) (*Writer, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c, err := newCodec(cfg.Driver, cfg.Attrs)
	if err != nil {
		return nil, err
	}
	w := &Writer{cfg: cfg, codec: c, stop: make(chan struct{})}
	fresh, err := w.create()
	if err == nil && !fresh {
		if err = w.reopen(); err == nil {
			w.tidy()
		}
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// create makes the log if there is none, which needs no look at what a former writer left behind.
func (w *Writer) create() (fresh bool, err error) {
	f, err := os.OpenFile(w.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o640)
	if err != nil {
		return false, nil // reopen says why
	}
	w.f = f
	return true, w.begin()
}

// begin writes what a new file begins with.
func (w *Writer) begin() error {
	h := w.codec.header(w.cfg.Attrs)
	if len(h) == 0 {
		return nil
	}
	if _, err := w.f.Write(h); err != nil {
		return fmt.Errorf("begin log file %s: %w", w.cfg.Path, err)
	}
	return nil
}

// reopen opens the current file and repairs its end.
func (w *Writer) reopen() error {
	f, err := os.OpenFile(w.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(w.cfg.Path), 0o710); err == nil {
			f, err = os.OpenFile(w.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
		}
	}
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log file: %w", err)
	}
	size := st.Size()
	if size > 0 {
		whole, err := w.codec.whole(f, size)
		if err == nil && whole < size {
			err = f.Truncate(whole)
		}
		if err != nil {
			f.Close()
			return fmt.Errorf("repair the end of log file %s: %w", w.cfg.Path, err)
		}
		size = whole
	}
	if w.f != nil {
		w.f.Close()
	}
	w.f = f
	if size == 0 {
		return w.begin()
	}
	return nil
}

var batches = sync.Pool{New: func() any { b := make([]byte, 0, batchSize+4096); return &b }}

// Append records p, an entry for each line; a last line without newline is recorded without one. before, if not nil, is called
// just before each write to the file. When Append fails a part of p may have been recorded: Done bytes, for the caller
// who kept the last Mark. Nothing half-written stays behind.
func (w *Writer) Append(t time.Time, s Stream, p []byte, before func(Mark)) error {
	buf := batches.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= 4*batchSize {
			batches.Put(buf)
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	for done := 0; done < len(p); {
		st, err := w.stat()
		if err != nil {
			return err
		}
		b, n := w.batch((*buf)[:0], st.Size, t, s, p[done:])
		*buf = b
		if n == 0 { // the next entry has no room
			if err := w.rotate(); err != nil {
				return err
			}
			t = t.Add(1) // no two files begin with the same entry: that is how a reader tells them apart
			continue
		}
		if before != nil {
			before(Mark{Inode: st.Ino, Offset: st.Size, Done: done, Len: n})
		}
		if err := w.write(b, st.Size); err != nil {
			return err
		}
		done += n
	}
	return nil
}

// batch encodes as many entries as have room in a file of the given size, at least one if the file is empty.
func (w *Writer) batch(dst []byte, size int64, t time.Time, s Stream, p []byte) ([]byte, int) {
	done := 0
	for done < len(p) && len(dst) < batchSize {
		end := len(p)
		if i := bytes.IndexByte(p[done:], '\n'); i >= 0 {
			end = done + i + 1
		}
		before := len(dst)
		dst = w.codec.add(dst, t, s, p[done:end])
		if w.cfg.MaxSize > 0 && size+int64(len(dst)) > w.cfg.MaxSize && size+int64(before) > w.head() {
			return dst[:before], done
		}
		done = end
	}
	return dst, done
}

// head is the size of a file without entries.
func (w *Writer) head() int64 { return int64(len(w.codec.header(w.cfg.Attrs))) }

// stat looks at the current file; one that somebody removed is made anew.
func (w *Writer) stat() (unix.Stat_t, error) {
	var st unix.Stat_t
	if w.closed {
		return st, fmt.Errorf("write log file %s: %w", w.cfg.Path, os.ErrClosed)
	}
	for range 2 {
		if err := unix.Fstat(int(w.f.Fd()), &st); err != nil {
			return st, fmt.Errorf("look at log file %s: %w", w.cfg.Path, err)
		}
		if st.Nlink > 0 {
			return st, nil
		}
		if err := w.reopen(); err != nil {
			return st, err
		}
	}
	return st, nil
}

func (w *Writer) write(b []byte, at int64) error {
	n, err := w.f.Write(b)
	if err == nil {
		return nil
	}
	if n > 0 { // a full disk: no torn record stays
		_ = w.f.Truncate(at)
	}
	return fmt.Errorf("write log file: %w", err)
}

// Logged tells how many bytes of the chunk that m is a mark of are in the log, of those that stream s wrote. It is right
// if nothing was appended for s since m but the chunk itself.
func (w *Writer) Logged(m Mark, s Stream) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logged(m, s)
}

func (w *Writer) logged(m Mark, s Stream) (int, error) {
	st, err := w.stat()
	if err != nil {
		return 0, err
	}
	if st.Ino != m.Inode { // rotated since, so the batch was written
		return m.Done + m.Len, nil
	}
	found := 0
	r := newForward(w.f, m.Offset, w.codec)
	for found < m.Len {
		e, err := r.next()
		if err != nil || e == nil {
			return m.Done + found, err
		}
		if e.Stream == s {
			found += len(e.Line)
		}
	}
	return m.Done + min(found, m.Len), nil
}

// Config is what the writer was opened with.
func (w *Writer) Config() Config { return w.cfg }

// Close ends the writer. A compression under way is given up; the next writer of this log does it.
func (w *Writer) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	close(w.stop)
	packing := w.packing
	err := w.f.Close()
	w.mu.Unlock()
	if packing != nil {
		<-packing
	}
	return err
}

// Split gives the length of the part of p that can be recorded without cutting a UTF-8 sequence in two: less than len(p)
// only if p ends with an unfinished one.
func Split(p []byte) int {
	for i := 1; i <= 3 && i < len(p); i++ {
		if c := p[len(p)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(p[len(p)-i:]) {
				return len(p) - i
			}
			break
		}
	}
	return len(p)
}
