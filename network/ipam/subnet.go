package ipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// Pool is a range that is cut into subnets, as dockerd's default-address-pools.
type Pool struct {
	Base netip.Prefix
	Size int // prefix length of the subnets
}

// ErrNoSubnet is returned when every subnet of the pools is routed already.
var ErrNoSubnet = errors.New("all predefined address pools have been fully subnetted")

// DefaultPools are the ranges that Docker takes: the first is the default bridge's.
func DefaultPools() []Pool {
	pools := []Pool{{netip.MustParsePrefix("172.17.0.0/16"), 16}}
	for i := 18; i < 32; i++ {
		pools = append(pools, Pool{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i)}), 16), 16})
	}
	return append(pools, Pool{netip.MustParsePrefix("192.168.0.0/16"), 20})
}

// Validate checks a pool.
func (p Pool) Validate() error {
	switch {
	case !p.Base.IsValid() || !p.Base.Addr().Is4():
		return fmt.Errorf("address pool %s: not an IPv4 range", p.Base)
	case p.Base != p.Base.Masked():
		return fmt.Errorf("address pool %s: bits are set behind the prefix, it should be %s", p.Base, p.Base.Masked())
	case p.Size < p.Base.Bits() || p.Size > 29:
		return fmt.Errorf("address pool %s: size %d is not between %d and 29", p.Base, p.Size, p.Base.Bits())
	}
	return nil
}

// Choose gives the first subnet that overlaps none of used.
func Choose(pools []Pool, used []netip.Prefix) (netip.Prefix, error) {
	for _, pool := range pools {
		if err := pool.Validate(); err != nil {
			return netip.Prefix{}, err
		}
		n := uint64(1) << (pool.Size - pool.Base.Bits())
		step := uint64(1) << (32 - pool.Size)
		for i := range n {
			s := netip.PrefixFrom(add(pool.Base.Addr(), i*step), pool.Size)
			if !Overlaps(s, used) {
				return s, nil
			}
		}
	}
	return netip.Prefix{}, ErrNoSubnet
}

// Overlaps says whether p overlaps one of others. Default routes (length 0) do not count.
func Overlaps(p netip.Prefix, others []netip.Prefix) bool {
	for _, o := range others {
		if o.IsValid() && o.Bits() > 0 && o.Overlaps(p) {
			return true
		}
	}
	return false
}

func add(a netip.Addr, n uint64) netip.Addr {
	b := a.As4()
	v := uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

func sub(a, base netip.Addr) uint64 {
	x, y := a.As4(), base.As4()
	n := func(b [4]byte) uint64 { return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3]) }
	return n(x) - n(y)
}
