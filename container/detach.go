package container

import (
	"errors"
	"io"
	"strings"

	"skiff/internal/errs"
)

// ErrDetached is what Session.Run returns when the client left by typing the detach keys.
var ErrDetached = errors.New("detached by the detach keys")

// defaultDetachKeys are ctrl-p, ctrl-q.
var defaultDetachKeys = []byte{16, 17}

// parseDetachKeys reads a comma-separated list of single characters and "ctrl-" with one of a to z, @ [ \ ] ^ or _.
// An empty one means the default.
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return defaultDetachKeys, nil
	}
	var keys []byte
	for part := range strings.SplitSeq(s, ",") {
		c, ctrl := strings.CutPrefix(part, "ctrl-")
		switch {
		case len(c) != 1 || c[0] >= 0x80:
			return nil, errs.New(errs.Invalid, "Invalid detach keys (%s) provided: unknown character: %q", s, part)
		case !ctrl:
			keys = append(keys, c[0])
		case c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case c[0] == '@':
			keys = append(keys, 0)
		case c[0] >= '[' && c[0] <= '_':
			keys = append(keys, c[0]-'['+27)
		default:
			return nil, errs.New(errs.Invalid, "Invalid detach keys (%s) provided: unknown character: %q", s, part)
		}
	}
	return keys, nil
}

// detachReader passes r on until the keys were typed in a row, and then returns ErrDetached. Keys typed so far are held
// back, and follow if the next one doesn't belong to the sequence.
type detachReader struct {
	r     io.Reader
	keys  []byte
	typed int    // how many of keys have been seen
	out   []byte // to be handed out
	err   error  // to be returned after out
}

// Read implements io.Reader.
func (d *detachReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(d.out) == 0 && d.err == nil {
		buf := make([]byte, len(p))
		n, err := d.r.Read(buf)
		for _, c := range buf[:n] {
			if d.feed(c) {
				d.err = ErrDetached
				break
			}
		}
		if err != nil && d.err == nil {
			d.out = append(d.out, d.keys[:d.typed]...)
			d.typed, d.err = 0, err
		}
	}
	if len(d.out) > 0 {
		n := copy(p, d.out)
		d.out = d.out[n:]
		return n, nil
	}
	return 0, d.err
}

// feed takes one byte and tells whether the sequence is complete.
func (d *detachReader) feed(c byte) bool {
	for {
		if c == d.keys[d.typed] {
			d.typed++
			return d.typed == len(d.keys)
		}
		if d.typed == 0 {
			d.out = append(d.out, c)
			return false
		}
		// The longest end of what was typed that is a beginning of the sequence stays held back.
		held := d.keys[:d.typed]
		keep := d.typed - 1
		for keep > 0 && string(held[d.typed-keep:]) != string(d.keys[:keep]) {
			keep--
		}
		d.out = append(d.out, held[:d.typed-keep]...)
		d.typed = keep
	}
}
