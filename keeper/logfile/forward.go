package logfile

import (
	"io"
)

// forward reads entries one after the other. At the end of a file that grows it can be asked again.
type forward struct {
	r     io.Reader
	codec codec
	off   int64 // of buf[0] in the file
	buf   []byte
	store []byte
	entry Entry
}

// atReader reads a file from an offset on.
type atReader struct {
	at  readerAt
	off int64
}

func (r *atReader) Read(p []byte) (int, error) {
	n, err := r.at.ReadAt(p, r.off)
	r.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// newForward reads from the record that begins at off.
func newForward(at readerAt, off int64, c codec) *forward {
	if l, ok := c.(*localCodec); ok {
		c = &localCodec{attrs: l.attrs}
		if off > 0 { // the attributes stand at the file's beginning
			(&forward{r: &atReader{at: at}, codec: c}).prime()
		}
	}
	return &forward{r: &atReader{at: at, off: off}, codec: c, off: off}
}

// newStream reads all of r.
func newStream(r io.Reader, c codec) *forward { return &forward{r: r, codec: c} }

// prime reads the first record, for what the codec remembers of it.
func (f *forward) prime() {
	for {
		if n, _ := f.codec.next(f.buf, &f.entry); n > 0 {
			return
		}
		if n, err := f.fill(); n == 0 || err != nil {
			return
		}
	}
}

// next gives the next entry, nil at the end of what is there. The entry is valid until the following call.
func (f *forward) next() (*Entry, error) {
	for {
		for len(f.buf) > 0 {
			n, ok := f.codec.next(f.buf, &f.entry)
			if n == 0 {
				break
			}
			f.buf = f.buf[n:]
			f.off += int64(n)
			if ok {
				return &f.entry, nil
			}
		}
		n, err := f.fill()
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, nil
		}
	}
}

// fill reads more behind what is in the buffer; 0 at the end.
func (f *forward) fill() (int, error) {
	const chunk = 64 << 10
	if cap(f.buf)-len(f.buf) < chunk/2 {
		if cap(f.store) >= len(f.buf)+chunk {
			f.store = f.store[:cap(f.store)]
		} else {
			f.store = make([]byte, 2*len(f.buf)+chunk)
		}
		f.buf = f.store[:copy(f.store, f.buf)]
	}
	n, err := f.r.Read(f.buf[len(f.buf):cap(f.buf)])
	f.buf = f.buf[:len(f.buf)+n]
	if err == io.EOF || err == io.ErrUnexpectedEOF { // a cut gzip file ends where it was cut
		err = nil
	}
	return n, err
}
