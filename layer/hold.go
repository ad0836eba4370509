package layer

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// Hold keeps what passes through it from being collected until Release: the blobs and layers of a pull that no image
// names yet.
type Hold struct {
	s    *Store
	once sync.Once
	keys map[string]bool // guarded by s.mu
}

func heldBlob(d digest.Digest) string  { return "b" + string(d) }
func heldDiff(name string) string      { return "d" + name }
func heldChain(d digest.Digest) string { return "c" + string(d) }

// Hold begins one. Every Hold must be released.
func (s *Store) Hold() *Hold { return &Hold{s: s, keys: map[string]bool{}} }

// keep is called with s.mu held.
func (h *Hold) keep(key string) {
	if !h.keys[key] {
		h.keys[key] = true
		h.s.held[key]++
	}
}

// Release ends the hold. It may be called more than once.
func (h *Hold) Release() {
	h.once.Do(func() {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		for k := range h.keys {
			if h.s.held[k]--; h.s.held[k] == 0 {
				delete(h.s.held, k)
			}
		}
	})
}

// Keep holds a blob that is there, and tells whether it is.
func (h *Hold) Keep(d digest.Digest) bool {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	_, ok := h.s.blobs[d]
	if ok {
		h.keep(heldBlob(d))
	}
	return ok
}

// KeepChain holds a chain with its layers, and tells whether it is there.
func (h *Hold) KeepChain(id digest.Digest) bool {
	if id == "" {
		return true
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	_, ok := h.s.chains[id]
	if ok {
		h.keep(heldChain(id))
	}
	return ok
}
