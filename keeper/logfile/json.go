package logfile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"time"
	"unicode/utf8"
)

// jsonCodec is Docker's json-file format. It is safe for use by several goroutines if only add or only next is used.
type jsonCodec struct {
	attrs []byte // `"attrs":{…},` or nothing
}

func newJSONCodec(attrs map[string]string) *jsonCodec {
	c := new(jsonCodec)
	if len(attrs) > 0 {
		if b, err := json.Marshal(attrs); err == nil { // a map of strings can't fail
			c.attrs = append(append([]byte(`"attrs":`), b...), ',')
		}
	}
	return c
}

func (c *jsonCodec) header(map[string]string) []byte { return nil }

func (c *jsonCodec) add(dst []byte, t time.Time, s Stream, p []byte) []byte {
	dst = append(dst, `{"log":"`...)
	dst, exact := appendJSONText(dst, p)
	dst = append(dst, `","stream":"`...)
	dst = append(dst, s.String()...)
	dst = append(dst, `",`...)
	if !exact {
		dst = append(dst, `"raw":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, p)
		dst = append(dst, `",`...)
	}
	dst = append(dst, c.attrs...)
	dst = append(dst, `"time":"`...)
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, "\"}\n"...)
}

const hexDigits = "0123456789abcdef"

// plain tells which ASCII bytes stand for themselves in a JSON string.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := byte(' '); c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != 0x7f
	}
	return t
}()

// appendJSONText appends p as the inside of a JSON string. exact is false if p holds bytes that are no UTF-8; those
// became U+FFFD.
func appendJSONText(dst, p []byte) (out []byte, exact bool) {
	exact = true
	start := 0
	for i := 0; i < len(p); {
		c := p[i]
		if c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			dst = append(dst, p[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRune(p[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(append(dst, p[start:i]...), `\ufffd`...)
			exact = false
			start = i + 1
		case r == '\u2028' || r == '\u2029': // valid JSON, but no valid JavaScript: escaped as Docker does
			dst = append(append(dst, p[start:i]...), `\u202`...)
			dst = append(dst, hexDigits[r&15])
			start = i + n
		}
		i += n
	}
	return append(dst, p[start:]...), exact
}

// jsonRecord is a record as it is read.
type jsonRecord struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Raw    []byte            `json:"raw"`
	Attrs  map[string]string `json:"attrs"`
	Time   time.Time         `json:"time"`
}

func (c *jsonCodec) next(b []byte, e *Entry) (n int, ok bool) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return 0, false
	}
	n = end + 1
	if quickJSON(b[:end], e) {
		return n, true
	}
	var r jsonRecord
	if json.Unmarshal(b[:end], &r) != nil || r.Time.IsZero() && r.Log == "" && r.Stream == "" {
		return n, false
	}
	*e = Entry{Time: r.Time, Stream: Stdout, Attrs: r.Attrs, Line: []byte(r.Log)}
	if r.Stream == "stderr" {
		e.Stream = Stderr
	}
	if r.Raw != nil {
		e.Line = r.Raw
	}
	return n, true
}

// quickJSON decodes the records that nearly all are: those that this package or Docker wrote, without attributes, raw
// bytes or escapes other than \n, \t, \r, \" and \\. Whatever else it finds it leaves to encoding/json.
func quickJSON(b []byte, e *Entry) bool {
	rest, ok := bytes.CutPrefix(b, []byte(`{"log":"`))
	if !ok {
		return false
	}
	line := make([]byte, 0, len(rest))
	for {
		i := bytes.IndexAny(rest, `"\`)
		if i < 0 || i+1 >= len(rest) {
			return false
		}
		line = append(line, rest[:i]...)
		if rest[i] == '"' {
			rest = rest[i+1:]
			break
		}
		switch rest[i+1] {
		case 'n':
			line = append(line, '\n')
		case 't':
			line = append(line, '\t')
		case 'r':
			line = append(line, '\r')
		case '"', '\\':
			line = append(line, rest[i+1])
		default:
			return false
		}
		rest = rest[i+2:]
	}
	stream := Stdout
	if after, ok := bytes.CutPrefix(rest, []byte(`,"stream":"stdout","time":"`)); ok {
		rest = after
	} else if after, ok := bytes.CutPrefix(rest, []byte(`,"stream":"stderr","time":"`)); ok {
		rest, stream = after, Stderr
	} else {
		return false
	}
	stamp, ok := bytes.CutSuffix(rest, []byte(`"}`))
	if !ok || !utf8.Valid(line) {
		return false
	}
	var t time.Time
	if t.UnmarshalText(stamp) != nil {
		return false
	}
	*e = Entry{Time: t, Stream: stream, Line: line}
	return true
}

func (c *jsonCodec) prev(b []byte) int {
	if len(b) == 0 {
		return -1
	}
	return bytes.LastIndexByte(b[:len(b)-1], '\n') + 1 // 0 may be the middle of a record: the caller knows
}

// whole finds the last newline.
func (c *jsonCodec) whole(at readerAt, size int64) (int64, error) {
	buf := make([]byte, 4096)
	for end := size; end > 0; {
		n := min(int64(len(buf)), end)
		if _, err := at.ReadAt(buf[:n], end-n); err != nil && err != io.EOF {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
		if len(buf) < 1<<20 {
			buf = make([]byte, 2*len(buf))
		}
	}
	return 0, nil
}
