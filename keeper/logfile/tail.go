package logfile

import (
	"bytes"
)

// tailReach is how far before the lines that were asked for the beginning of the first of them is looked for.
const tailReach = 1 << 20

// tailState is what the walk backwards has found out.
type tailState struct {
	r       *Reader
	left    int // lines still wanted
	cut     bool
	cutDist int64
	begun   [3]bool // an entry of the stream that belongs to the wanted lines was met
	settled [3]bool // where its first wanted line begins is known
}

// seekTail finds where the last n lines begin.
func (r *Reader) seekTail(n int) error {
	t := &tailState{r: r, left: n}
	end := position{len(r.segs) - 1, 0}
	if len(r.segs) > 0 {
		f, err := r.segs[end.seg].random()
		if err != nil {
			return err
		}
		if end.off, err = r.segs[end.seg].size(r.codec, f); err != nil {
			return err
		}
	} else {
		end.seg = 0
	}
	r.limit = [3]position{end, end, end}
	i := len(r.segs) - 1
	for ; i >= 0; i-- {
		stop, err := t.walk(i)
		if err != nil {
			return err
		}
		if stop {
			break
		}
	}
	if !t.cut { // the log is shorter than n lines
		r.limit = [3]position{}
	}
	// Segments before the first that is needed are not read at all.
	first := r.limit[Stdout]
	if r.limit[Stderr].before(first) {
		first = r.limit[Stderr]
	}
	for ; r.index < first.seg && len(r.segs) > 1; r.index++ {
		r.segs[0].close()
		r.segs = r.segs[1:]
	}
	return nil
}

// size is how many bytes of a segment are whole records.
func (s *segment) size(c codec, f readerAt) (int64, error) {
	st, err := s.f.Stat()
	if err != nil {
		return 0, err
	}
	if s.plain != nil {
		if st, err = s.plain.Stat(); err != nil {
			return 0, err
		}
	}
	return c.whole(f, st.Size())
}

// walk goes backwards through segment i. stop: no earlier entry matters.
func (t *tailState) walk(i int) (stop bool, err error) {
	s := t.r.segs[i]
	f, err := s.random()
	if err != nil {
		return false, err
	}
	end, err := s.size(t.r.codec, f)
	if err != nil {
		return false, err
	}
	block := int64(64 << 10)
	for end > 0 {
		start := max(end-block, 0)
		b := make([]byte, end-start)
		if _, err := f.ReadAt(b, start); err != nil {
			return false, err
		}
		used := int64(0)
		for len(b) > 0 {
			p := t.r.codec.prev(b)
			if p < 0 && start > 0 || p == 0 && start > 0 { // it may begin earlier
				break
			}
			p = max(p, 0)
			var e Entry
			if _, ok := t.r.codec.next(b[p:], &e); ok && t.entry(&e, position{i, start + int64(p)}, int64(len(b)-p)) {
				return true, nil
			}
			used += int64(len(b) - p)
			b = b[:p]
		}
		if used == 0 {
			block *= 2
		}
		end -= used
	}
	return false, nil
}

// entry takes the next earlier entry at p, n bytes long. stop: all is known.
func (t *tailState) entry(e *Entry, p position, n int64) (stop bool) {
	s := e.Stream
	if s != Stdout && s != Stderr || t.settled[s] || !t.r.matches(e) {
		return false
	}
	ends := bytes.HasSuffix(e.Line, []byte{'\n'})
	switch {
	case t.cut:
		t.cutDist += n
		if !t.begun[s] || ends || t.cutDist > tailReach {
			t.settled[s] = true
		} else {
			t.r.limit[s] = p
		}
	case ends || !t.begun[s]: // the last piece of a line
		if t.left == 0 {
			t.cut = true
			t.settled[s] = true
			break
		}
		t.left--
		fallthrough
	default:
		t.begun[s] = true
		t.r.limit[s] = p
	}
	other := Stdout + Stderr - s
	return t.cut && (t.settled[other] || !t.begun[other] || !t.r.streamWanted(other))
}

func (r *Reader) streamWanted(s Stream) bool {
	return s == Stdout && r.opt.Stdout || s == Stderr && r.opt.Stderr
}
