package logfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"io"
	"time"
)

// localCodec is the format of the local driver, see the package comment. Reading, it remembers the attributes.
type localCodec struct {
	attrs map[string]string
}

const (
	localSync  = 0x1e
	localHead  = 12
	localTail  = 4
	kindAttrs  = 3
	maxLocal   = 16 << 20 // of a body; more is garbage
	localStamp = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c *localCodec) header(attrs map[string]string) []byte {
	if len(attrs) == 0 {
		return nil
	}
	b, err := json.Marshal(attrs)
	if err != nil { // a map of strings can't fail
		return nil
	}
	return localFrame(nil, kindAttrs, nil, b)
}

func (c *localCodec) add(dst []byte, t time.Time, s Stream, p []byte) []byte {
	var stamp [localStamp]byte
	binary.LittleEndian.PutUint64(stamp[:], uint64(t.UnixNano()))
	return localFrame(dst, byte(s), stamp[:], p)
}

func localFrame(dst []byte, kind byte, a, b []byte) []byte {
	n := uint32(len(a) + len(b))
	start := len(dst)
	dst = append(dst, localSync, kind)
	dst = binary.LittleEndian.AppendUint32(dst, n)
	crc := crc32.Update(0, castagnoli, dst[start+1:])
	dst = binary.LittleEndian.AppendUint16(dst, uint16(crc))
	crc = crc32.Update(crc, castagnoli, a)
	crc = crc32.Update(crc, castagnoli, b)
	dst = binary.LittleEndian.AppendUint32(dst, crc)
	dst = append(append(dst, a...), b...)
	return binary.LittleEndian.AppendUint32(dst, n)
}

// localSize is the length of the frame that b begins with: 0 if b is too short to tell, -1 if it is no frame.
func localSize(b []byte) int {
	if len(b) > 0 && b[0] != localSync {
		return -1
	}
	if len(b) < localHead {
		return 0
	}
	n := binary.LittleEndian.Uint32(b[2:])
	if uint16(crc32.Checksum(b[1:6], castagnoli)) != binary.LittleEndian.Uint16(b[6:]) {
		return -1
	}
	if b[1] == 0 || b[1] > kindAttrs || n > maxLocal || b[1] != kindAttrs && n < localStamp {
		return -1
	}
	return localHead + int(n) + localTail
}

// localValid checks the frame that b is.
func localValid(b []byte) bool {
	body := b[localHead : len(b)-localTail]
	crc := crc32.Update(0, castagnoli, b[1:6])
	return crc32.Update(crc, castagnoli, body) == binary.LittleEndian.Uint32(b[8:]) &&
		binary.LittleEndian.Uint32(b[len(b)-localTail:]) == uint32(len(body))
}

func (c *localCodec) next(b []byte, e *Entry) (n int, ok bool) {
	n = localSize(b)
	if n == 0 || n > len(b) {
		return 0, false
	}
	if n < 0 || !localValid(b[:n]) { // garbage: on to the next byte that may begin a frame
		if i := bytes.IndexByte(b[1:], localSync); i >= 0 {
			return i + 1, false
		}
		return len(b), false
	}
	body := b[localHead : n-localTail]
	if b[1] == kindAttrs {
		c.attrs = nil
		_ = json.Unmarshal(body, &c.attrs) // attributes that can't be read are none
		return n, false
	}
	*e = Entry{
		Time:   time.Unix(0, int64(binary.LittleEndian.Uint64(body))).UTC(),
		Stream: Stream(b[1]),
		Line:   body[localStamp:],
		Attrs:  c.attrs,
	}
	return n, true
}

func (c *localCodec) prev(b []byte) int {
	if len(b) < localHead+localTail {
		return -1
	}
	n := binary.LittleEndian.Uint32(b[len(b)-localTail:])
	if n > maxLocal {
		return -1
	}
	return max(len(b)-localHead-localTail-int(n), -1)
}

// whole trusts the last frame if it is intact, and else reads the file from its beginning.
func (c *localCodec) whole(at readerAt, size int64) (int64, error) {
	var tail [localTail]byte
	if size >= localHead+localTail {
		if _, err := at.ReadAt(tail[:], size-localTail); err != nil {
			return 0, err
		}
		n := int64(binary.LittleEndian.Uint32(tail[:])) + localHead + localTail
		if n <= size && n <= maxLocal {
			b := make([]byte, n)
			if _, err := at.ReadAt(b, size-n); err != nil {
				return 0, err
			}
			if localSize(b) == len(b) && localValid(b) {
				return size, nil
			}
		}
	}
	return localScan(io.NewSectionReader(at, 0, size))
}

// localScan gives the end of the last intact frame of r.
func localScan(r io.Reader) (int64, error) {
	var whole, at int64
	var buf []byte
	c, e := new(localCodec), new(Entry)
	for eof := false; ; {
		n, ok := c.next(buf, e)
		switch {
		case n > 0:
			intact := ok || buf[0] == localSync && localSize(buf) == n && localValid(buf[:n])
			at += int64(n)
			if intact {
				whole = at
			}
			buf = buf[n:]
		case eof && len(buf) > 0: // a torn frame hides nothing but what its own length covers
			buf = buf[1:]
			at++
		case eof:
			return whole, nil
		default:
			more := make([]byte, len(buf)+64<<10)
			k := copy(more, buf)
			m, err := io.ReadFull(r, more[k:])
			buf = more[:k+m]
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				eof = true
			} else if err != nil {
				return 0, err
			}
		}
	}
}
