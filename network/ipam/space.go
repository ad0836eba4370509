package ipam

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"sync"
)

// ErrNoAddress is returned when a Space is used up. The text is Docker's.
var ErrNoAddress = errors.New("no available IPv4 addresses on this network's address pools")

// Space is the set of addresses of a subnet. Addresses are handed out round-robin: one that was given back comes again
// only after all others. It is safe for use by several goroutines.
type Space struct {
	subnet netip.Prefix
	first  uint64 // offset of the first address to hand out
	size   uint64 // how many

	mu     sync.Mutex
	used   []uint64 // bit i: offset first+i is taken
	inUse  uint64
	cursor uint64 // next candidate, below size
}

// NewSpace makes a Space of the addresses of subnet, or of its part within if that is valid. Network and broadcast
// address are left out, and the gateway is taken.
func NewSpace(subnet, within netip.Prefix, gateway netip.Addr) (*Space, error) {
	subnet = subnet.Masked()
	if !subnet.Addr().Is4() || subnet.Bits() > 30 {
		return nil, fmt.Errorf("subnet %s: not an IPv4 subnet with room for containers", subnet)
	}
	part := subnet
	if within.IsValid() {
		part = within.Masked()
		if !subnet.Contains(part.Addr()) || part.Bits() < subnet.Bits() {
			return nil, fmt.Errorf("range %s is not inside the subnet %s", within, subnet)
		}
	}
	all := uint64(1) << (32 - subnet.Bits())
	lo := sub(part.Addr(), subnet.Addr())
	hi := lo + uint64(1)<<(32-part.Bits())
	lo, hi = max(lo, 1), min(hi, all-1)
	if hi <= lo {
		return nil, fmt.Errorf("range %s has no address for a container", part)
	}
	s := &Space{subnet: subnet, first: lo, size: hi - lo, used: make([]uint64, (hi-lo+63)/64)}
	s.Claim(gateway)
	return s, nil
}

// Subnet is the whole subnet.
func (s *Space) Subnet() netip.Prefix { return s.subnet }

// Next hands out an address.
func (s *Space) Next() (netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse >= s.size {
		return netip.Addr{}, ErrNoAddress
	}
	i := s.free(s.cursor)
	s.set(i)
	s.cursor = (i + 1) % s.size
	return add(s.subnet.Addr(), s.first+i), nil
}

// free finds the first free bit from start on, round the end. There is one.
func (s *Space) free(start uint64) uint64 {
	for i := start; ; {
		if i >= s.size {
			i = 0
		}
		word := ^s.used[i/64] >> (i % 64) << (i % 64)
		if n := uint64(bits.TrailingZeros64(word)); word != 0 && i/64*64+n < s.size {
			return i/64*64 + n
		}
		i = (i/64 + 1) * 64
	}
}

// Claim takes an address; it reports whether it was free. Addresses outside are nobody's: true.
func (s *Space) Claim(a netip.Addr) bool {
	i, ok := s.index(a)
	if !ok {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[i/64]&(1<<(i%64)) != 0 {
		return false
	}
	s.set(i)
	return true
}

// Release gives an address back. Free and foreign addresses are no error.
func (s *Space) Release(a netip.Addr) {
	i, ok := s.index(a)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[i/64]&(1<<(i%64)) != 0 {
		s.used[i/64] &^= 1 << (i % 64)
		s.inUse--
	}
}

// Cursor is where the next search starts; SetCursor puts it back after a restart.
func (s *Space) Cursor() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor
}

// SetCursor sets where the next search starts.
func (s *Space) SetCursor(c uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = c % s.size
}

// InUse counts the addresses that are taken.
func (s *Space) InUse() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inUse
}

func (s *Space) set(i uint64) {
	s.used[i/64] |= 1 << (i % 64)
	s.inUse++
}

func (s *Space) index(a netip.Addr) (uint64, bool) {
	if !a.Is4() || !s.subnet.Contains(a) {
		return 0, false
	}
	o := sub(a, s.subnet.Addr())
	if o < s.first || o >= s.first+s.size {
		return 0, false
	}
	return o - s.first, true
}
