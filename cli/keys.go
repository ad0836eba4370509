package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// errDetached says that the user typed the detach keys.
var errDetached = errors.New("read escape sequence")

// defaultDetachKeys is Docker's sequence.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// parseKeys reads a key sequence: single characters and ctrl-a…ctrl-z, ctrl-@ [ \ ] ^ _, separated by commas.
func parseKeys(s string) ([]byte, error) {
	var keys []byte
	for k := range strings.SplitSeq(s, ",") {
		if len(k) == 1 {
			keys = append(keys, k[0])
			continue
		}
		c, ok := strings.CutPrefix(k, "ctrl-")
		if !ok || len(c) != 1 {
			//lint:ignore ST1005 docker's words
			return nil, fmt.Errorf("Unknown character: '%s'", k)
		}
		switch {
		case c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case strings.Contains("@[\\]^_", c):
			keys = append(keys, c[0]-'@')
		default:
			//lint:ignore ST1005 docker's words
			return nil, fmt.Errorf("Unknown character: '%s'", k)
		}
	}
	return keys, nil
}

// keyReader hands input on until the detach keys are typed; then it ends with errDetached. The first keys of a sequence that
// is not completed are handed on when that is clear.
type keyReader struct {
	r    io.Reader
	keys []byte
	seen int    // keys of the sequence typed so far
	out  []byte // to be handed on
	buf  []byte
	err  error
}

func newKeyReader(r io.Reader, keys []byte) *keyReader {
	return &keyReader{r: r, keys: keys, buf: make([]byte, 32<<10)}
}

func (k *keyReader) Read(p []byte) (int, error) {
	for len(k.out) == 0 {
		if k.err != nil {
			return 0, k.err
		}
		n, err := k.r.Read(k.buf)
		k.scan(k.buf[:n])
		if k.err == nil && err != nil {
			k.out = append(k.out, k.keys[:k.seen]...)
			k.seen, k.err = 0, err
		}
	}
	n := copy(p, k.out)
	k.out = k.out[n:]
	return n, nil
}

func (k *keyReader) scan(in []byte) {
	for _, c := range in {
		if c == k.keys[k.seen] {
			k.seen++
			if k.seen == len(k.keys) {
				k.seen, k.err = 0, errDetached
				return
			}
			continue
		}
		// What was held back was no sequence; its rest may begin one.
		k.out = append(k.out, k.keys[:k.seen]...)
		k.seen = 0
		if c == k.keys[0] {
			k.seen = 1
			if len(k.keys) == 1 {
				k.seen, k.err = 0, errDetached
				return
			}
			continue
		}
		k.out = append(k.out, c)
	}
}
