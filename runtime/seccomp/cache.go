package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cacheSize bounds how many profiles and filters are remembered. Nearly all containers share one or two; when the bound
// is met everything is forgotten and made again.
const cacheSize = 64

// Cache remembers assembled filters by the content of their profile. The zero value is ready; it may be used by several
// goroutines. Callers must not change what they get.
type Cache struct {
	mu      sync.Mutex
	filters map[[sha256.Size]byte]*Filter
}

// Assemble is the function Assemble, done once for each content.
func (c *Cache) Assemble(s *specs.LinuxSeccomp) (*Filter, error) {
	key := contentHash(s)
	c.mu.Lock()
	f := c.filters[key]
	c.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := Assemble(s)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.filters == nil || len(c.filters) >= cacheSize {
		c.filters = make(map[[sha256.Size]byte]*Filter)
	}
	c.filters[key] = f
	return f, nil
}

// contentHash covers every field of a profile. Strings and lists are preceded by their length, so that no two profiles
// look alike.
func contentHash(s *specs.LinuxSeccomp) (key [sha256.Size]byte) {
	h := hasher{h: sha256.New(), buf: make([]byte, 0, 16<<10)}
	h.str(string(s.DefaultAction))
	h.opt(s.DefaultErrnoRet)
	h.num(uint64(len(s.Architectures)))
	for _, a := range s.Architectures {
		h.str(string(a))
	}
	h.flag(s.Flags == nil)
	h.num(uint64(len(s.Flags)))
	for _, f := range s.Flags {
		h.str(string(f))
	}
	h.str(s.ListenerPath)
	h.str(s.ListenerMetadata)
	h.num(uint64(len(s.Syscalls)))
	for i := range s.Syscalls {
		c := &s.Syscalls[i]
		h.num(uint64(len(c.Names)))
		for _, n := range c.Names {
			h.str(n)
		}
		h.str(string(c.Action))
		h.opt(c.ErrnoRet)
		h.num(uint64(len(c.Args)))
		for _, a := range c.Args {
			h.num(uint64(a.Index))
			h.num(a.Value)
			h.num(a.ValueTwo)
			h.str(string(a.Op))
		}
	}
	h.flush()
	h.h.Sum(key[:0])
	return key
}

// hasher gathers small pieces, since each Write of a hash has a price.
type hasher struct {
	h   hash.Hash
	buf []byte
}

func (h *hasher) flush() {
	_, _ = h.h.Write(h.buf) // a hash's Write never fails
	h.buf = h.buf[:0]
}

func (h *hasher) room(n int) {
	if len(h.buf)+n > cap(h.buf) {
		h.flush()
	}
}

func (h *hasher) num(n uint64) {
	h.room(binary.MaxVarintLen64)
	h.buf = binary.AppendUvarint(h.buf, n)
}

func (h *hasher) str(s string) {
	h.num(uint64(len(s)))
	if h.room(len(s)); len(s) > cap(h.buf) {
		_, _ = io.WriteString(h.h, s)
		return
	}
	h.buf = append(h.buf, s...)
}

func (h *hasher) flag(b bool) {
	if b {
		h.num(1)
	} else {
		h.num(0)
	}
}

// opt tells nil from zero.
func (h *hasher) opt(n *uint) {
	if h.flag(n == nil); n != nil {
		h.num(uint64(*n))
	}
}
