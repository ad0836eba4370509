package server

import (
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	chunkSize = 64 << 10 // what a pipe holds by default
	desks     = 16       // chunks that are handled at the same moment
)

// pipe is a pipe of our own, non-blocking.
type pipe struct{ r, w int }

func newPipe() (pipe, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{-1, -1}, fmt.Errorf("make a pipe: %w", err)
	}
	return pipe{p[0], p[1]}, nil
}

func (p pipe) close() {
	closeFD(p.r)
	closeFD(p.w)
}

// fill is how many bytes are in the pipe.
func (p pipe) fill() int {
	n, err := unix.IoctlGetInt(p.r, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// desk is what handling a chunk needs: a scratch pipe to look at bytes without taking them, a limbo pipe to take them to, memory.
// The limbo pipes are known to the engine too, and outlive the keeper.
type desk struct {
	number  int
	limbo   pipe
	scratch pipe
	buf     []byte
}

// pool lends desks.
type pool struct {
	null int // /dev/null, to splice to
	free chan *desk
	all  []*desk
	bufs sync.Pool
}

// newPool makes a pool with the given limbo pipes, or new ones if there are none.
func newPool(limbo []pipe) (*pool, error) {
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	p := &pool{null: null, free: make(chan *desk, desks), bufs: sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}}
	for i := range desks {
		d := &desk{number: i, limbo: pipe{-1, -1}, scratch: pipe{-1, -1}}
		if i < len(limbo) {
			d.limbo = limbo[i]
		} else if d.limbo, err = newPipe(); err != nil {
			return nil, err
		}
		p.all = append(p.all, d)
	}
	return p, nil
}

// open lends the desks from now on; what a former keeper left in the limbo pipes is dropped.
func (p *pool) open() {
	for _, d := range p.all {
		_ = p.drop(d.limbo)
		p.free <- d
	}
}

// get waits for a free desk.
func (p *pool) get() (*desk, error) {
	d := <-p.free
	if d.scratch.r < 0 {
		var err error
		if d.scratch, err = newPipe(); err != nil {
			p.free <- d
			return nil, err
		}
	}
	d.buf = *p.bufs.Get().(*[]byte)
	return d, nil
}

// put takes a desk back and empties its pipes.
func (p *pool) put(d *desk) {
	if d.scratch.fill() > 0 && p.drop(d.scratch) != nil {
		d.scratch.close()
		d.scratch = pipe{-1, -1}
	}
	_ = p.drop(d.limbo)
	buf := d.buf // not &d.buf: the field is empty below
	d.buf = nil
	p.bufs.Put(&buf)
	p.free <- d
}

// drop empties a pipe.
func (p *pool) drop(x pipe) error {
	for {
		n, err := unix.Splice(x.r, nil, p.null, nil, 1<<20, unix.SPLICE_F_NONBLOCK)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN || err == nil && n == 0:
			return nil
		case err != nil:
			return fmt.Errorf("empty a pipe: %w", err)
		}
	}
}

// peek copies what is in the pipe from into d.buf without taking it: io.EOF at its end, EAGAIN if it is empty.
func (d *desk) peek(from int) (int, error) {
	for {
		n, err := unix.Tee(from, d.scratch.w, len(d.buf), unix.SPLICE_F_NONBLOCK)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return int(n), d.readScratch(int(n))
	}
}

func (d *desk) readScratch(n int) error {
	for got := 0; got < n; {
		k, err := unix.Read(d.scratch.r, d.buf[got:n])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("read the scratch pipe: %w", err)
		case k == 0:
			return io.ErrUnexpectedEOF
		}
		got += k
	}
	return nil
}

// move takes up to n bytes from a stream to the limbo.
func (d *desk) move(from, n int) (int, error) {
	for {
		k, err := unix.Splice(from, nil, d.limbo.w, nil, n, unix.SPLICE_F_NONBLOCK)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		}
		return int(k), nil
	}
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
