package logfile

import (
	"bytes"
	"context"
	"io"
	"time"
)

// Options select what a Reader gives.
type Options struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: open
	Tail           int       // the last n lines of those that the other options select; < 0: all
	// Follow goes on at the end with what is written from then on, until Ended is closed (and everything before that was given).
	Follow bool
	Ended  <-chan struct{} // nil: never
}

// Reader reads a log, rotated files included, oldest entry first. It is used by one goroutine.
type Reader struct {
	cfg   Config
	opt   Options
	codec codec

	segs  []*segment // open files still to be read; segs[0] is being read
	cur   *forward
	limit [3]position // by stream: entries before it are left out
	index int         // number of segs[0] since the beginning, for limit

	open, skip [3]bool // by stream: in the middle of a line; that line is left out
	watch      *watcher
	done       bool
}

// position is a place in the log: a segment's number and an offset in it (of the inflated file).
type position struct {
	seg int
	off int64
}

func (p position) before(q position) bool { return p.seg < q.seg || p.seg == q.seg && p.off < q.off }

// NewReader opens a log for reading. A log that isn't there is empty.
func NewReader(cfg Config, opt Options) (*Reader, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c, err := newCodec(cfg.Driver, nil)
	if err != nil {
		return nil, err
	}
	r := &Reader{cfg: cfg, opt: opt, codec: c}
	if opt.Follow { // before the files are opened: nothing is missed between
		r.watch = newWatcher(cfg.Path)
	}
	if r.segs, err = openSegments(cfg.Path, c, nil); err == nil && opt.Tail >= 0 {
		err = r.seekTail(opt.Tail)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close frees the reader's files.
func (r *Reader) Close() error {
	for _, s := range r.segs {
		s.close()
	}
	r.segs, r.cur, r.done = nil, nil, true
	if r.watch != nil {
		r.watch.close()
		r.watch = nil
	}
	return nil
}

// Next gives the next entry, valid until the following call; io.EOF at the end.
func (r *Reader) Next(ctx context.Context) (*Entry, error) {
	for !r.done {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		e, at, err := r.raw(ctx)
		if err != nil {
			return nil, err
		}
		if e == nil {
			break
		}
		if use, last := r.selects(e, at); last {
			break
		} else if use {
			return e, nil
		}
	}
	r.done = true
	return nil, io.EOF
}

// selects completes e and decides on it. last: it and all that follow are too new.
func (r *Reader) selects(e *Entry, at position) (use, last bool) {
	s := e.Stream
	e.Start = !r.open[s]
	e.Partial = !bytes.HasSuffix(e.Line, []byte{'\n'})
	r.open[s] = e.Partial
	if e.Start {
		r.skip[s] = !r.matches(e)
		if r.skip[s] && !r.opt.Until.IsZero() && e.Time.After(r.opt.Until) {
			return false, true
		}
	}
	return !r.skip[s] && !at.before(r.limit[s]), false
}

// matches says whether a line that begins with e is wanted.
func (r *Reader) matches(e *Entry) bool {
	if e.Stream == Stdout && !r.opt.Stdout || e.Stream == Stderr && !r.opt.Stderr {
		return false
	}
	return !e.Time.Before(r.opt.Since) && (r.opt.Until.IsZero() || !e.Time.After(r.opt.Until))
}

// raw gives the next entry of the files and its place; nil at the end.
func (r *Reader) raw(ctx context.Context) (*Entry, position, error) {
	for {
		if len(r.segs) == 0 {
			more, err := r.wait(ctx)
			if err != nil || !more {
				return nil, position{}, err
			}
			continue
		}
		if r.cur == nil {
			cur, err := r.segs[0].reader(r.codec, r.start(r.index))
			if err != nil {
				return nil, position{}, err
			}
			r.cur = cur
		}
		at := position{r.index, r.cur.off}
		e, err := r.cur.next()
		if err != nil {
			return nil, position{}, err
		}
		if e != nil {
			return e, at, nil
		}
		if len(r.segs) > 1 {
			r.advance()
			continue
		}
		more, err := r.wait(ctx)
		if err != nil || !more {
			return nil, position{}, err
		}
	}
}

// start is where reading of segment n begins.
func (r *Reader) start(n int) int64 {
	first := r.limit[Stdout]
	if r.limit[Stderr].before(first) {
		first = r.limit[Stderr]
	}
	if first.seg != n {
		return 0
	}
	return first.off
}

// advance goes to the next segment.
func (r *Reader) advance() {
	r.segs[0].close()
	r.segs, r.cur = r.segs[1:], nil
	r.index++
}
