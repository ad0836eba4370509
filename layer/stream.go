package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"skiff/internal/errs"
)

// Decompress sniffs the compression of r from its first bytes (gzip, zstd, bzip2, or none) and gives the plain bytes.
// Closing the result ends the decoder, not r.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 0x08}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, errs.New(errs.Invalid, "gzip: %w", err)
		}
		return z, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}): // skippable frame first
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, errs.New(errs.Invalid, "zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(br)), nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, errs.New(errs.NotImplemented, "xz compression is not implemented")
	}
	return io.NopCloser(br), nil
}

// tail reads a file that is still being written: the transfer runs at its own speed, and whoever unpacks follows it
// through the page cache, however far behind.
type tail struct {
	f *os.File

	mu   sync.Mutex
	more sync.Cond
	size int64
	done bool
	err  error

	off  int64             // of the one reader
	read func(total int64) // told after each read; may be nil
}

func newTail(f *os.File) *tail {
	t := &tail{f: f}
	t.more.L = &t.mu
	return t
}

// grow tells that the file has n bytes.
func (t *tail) grow(n int64) {
	t.mu.Lock()
	t.size = n
	t.mu.Unlock()
	t.more.Signal()
}

// end tells that nothing more comes; err, if not nil, is what the reader gets at the end.
func (t *tail) end(err error) {
	t.mu.Lock()
	if !t.done {
		t.done, t.err = true, err
	}
	t.mu.Unlock()
	t.more.Broadcast()
}

func (t *tail) Read(b []byte) (int, error) {
	t.mu.Lock()
	for t.off >= t.size && !t.done {
		t.more.Wait()
	}
	size, done, err := t.size, t.done, t.err
	t.mu.Unlock()
	if done && err != nil {
		return 0, err
	}
	if t.off >= size {
		return 0, io.EOF
	}
	n, err := t.f.ReadAt(b[:min(int64(len(b)), size-t.off)], t.off)
	t.off += int64(n)
	if t.read != nil {
		t.read(t.off)
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// readAhead runs r in a goroutine of its own, so that inflating and writing overlap. stop ends it and waits.
func readAhead(ctx context.Context, r io.Reader) (out io.Reader, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{ctx: ctx, full: make(chan chunk, chunks), free: make(chan []byte, chunks)}
	for range chunks {
		a.free <- make([]byte, chunkSize)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(a.full)
		for {
			var buf []byte
			select {
			case buf = <-a.free:
			case <-ctx.Done():
				return
			}
			n, err := 0, error(nil)
			for n < len(buf) && err == nil {
				var k int
				k, err = r.Read(buf[n:])
				n += k
			}
			select {
			case a.full <- chunk{buf[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	return a, func() { cancel(); wg.Wait() }
}

const (
	chunkSize = 256 << 10
	chunks    = 4
)

type chunk struct {
	b   []byte
	err error
}

// ahead is the reading end of readAhead.
type ahead struct {
	ctx  context.Context
	full chan chunk
	free chan []byte
	cur  []byte // the chunk being read
	rest []byte // of cur
	err  error
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		if a.cur != nil {
			a.free <- a.cur[:chunkSize] // never blocks: there are as many places as chunks
			a.cur = nil
		}
		select {
		case c, ok := <-a.full:
			if !ok {
				return 0, context.Cause(a.ctx)
			}
			a.cur, a.rest, a.err = c.b, c.b, c.err
		case <-a.ctx.Done():
			return 0, context.Cause(a.ctx)
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}
