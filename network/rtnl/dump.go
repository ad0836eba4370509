package rtnl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Link is a network interface.
type Link struct {
	Index  int
	Name   string
	Kind   string // "bridge", "veth", "" for hardware
	Master int    // interface index of the bridge it is a port of, or 0
	MTU    int
	MAC    net.HardwareAddr
	Up     bool
}

// Addr is an interface's address with its network's length.
type Addr struct {
	Index  int
	Prefix netip.Prefix
}

// Route is an entry of the main routing table.
type Route struct {
	Index int          // of the outgoing interface, or 0
	Dst   netip.Prefix // the zero value for the default route
}

// Links lists all interfaces.
func (c *Conn) Links() ([]Link, error) {
	var b Batch
	b.message("list interfaces", unix.RTM_GETLINK, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, func() { b.link(0, 0, 0) })
	var all []Link
	err := c.dump(&b, func(p []byte) {
		if len(p) < unix.SizeofIfInfomsg {
			return
		}
		l := Link{Index: int(binary.NativeEndian.Uint32(p[4:])), Up: binary.NativeEndian.Uint32(p[8:])&unix.IFF_UP != 0}
		attrs(p[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
			switch typ {
			case unix.IFLA_IFNAME:
				l.Name = text(v)
			case unix.IFLA_MASTER:
				l.Master = number(v)
			case unix.IFLA_MTU:
				l.MTU = number(v)
			case unix.IFLA_ADDRESS:
				l.MAC = append(net.HardwareAddr(nil), v...)
			case unix.IFLA_LINKINFO:
				attrs(v, func(typ uint16, v []byte) {
					if typ == unix.IFLA_INFO_KIND {
						l.Kind = text(v)
					}
				})
			}
		})
		all = append(all, l)
	})
	return all, err
}

// Running says whether an interface can carry packets: it is up, and so is its other end. The kernel learns of a new
// link's state a little after the fact, in a thread of its own; asking makes it look at once (Linux 6.9).
func (c *Conn) Running(name string) (bool, error) {
	const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	var b Batch
	b.message("look at interface "+name, unix.RTM_GETLINK, unix.NLM_F_REQUEST, func() {
		b.link(0, 0, 0)
		b.str(unix.IFLA_IFNAME, name)
		b.u32(unix.IFLA_EXT_MASK, skipStats)
	})
	running := false
	err := c.ask(&b, func(p []byte) {
		running = len(p) >= unix.SizeofIfInfomsg && binary.NativeEndian.Uint32(p[8:])&unix.IFF_RUNNING != 0
	})
	return running, err
}

// Addrs lists the IPv4 addresses of all interfaces.
func (c *Conn) Addrs() ([]Addr, error) {
	var b Batch
	b.message("list addresses", unix.RTM_GETADDR, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, func() {
		b.buf = append(b.buf, unix.AF_INET, 0, 0, 0, 0, 0, 0, 0)
	})
	var all []Addr
	err := c.dump(&b, func(p []byte) {
		if len(p) < unix.SizeofIfAddrmsg || p[0] != unix.AF_INET {
			return
		}
		bits, index := int(p[1]), int(binary.NativeEndian.Uint32(p[4:]))
		attrs(p[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) {
			if a, ok := netip.AddrFromSlice(v); ok && typ == unix.IFA_LOCAL {
				all = append(all, Addr{index, netip.PrefixFrom(a, bits)})
			}
		})
	})
	return all, err
}

// Routes lists the IPv4 routes of the main table.
func (c *Conn) Routes() ([]Route, error) {
	var b Batch
	b.message("list routes", unix.RTM_GETROUTE, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, func() {
		b.buf = append(b.buf, unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, 0, 0, 0, 0, 0, 0, 0)
	})
	var all []Route
	err := c.dump(&b, func(p []byte) {
		if len(p) < unix.SizeofRtMsg || p[0] != unix.AF_INET || p[4] != unix.RT_TABLE_MAIN {
			return
		}
		bits, r := int(p[1]), Route{}
		attrs(p[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
			switch typ {
			case unix.RTA_DST:
				if a, ok := netip.AddrFromSlice(v); ok {
					r.Dst = netip.PrefixFrom(a, bits)
				}
			case unix.RTA_OIF:
				r.Index = number(v)
			}
		})
		all = append(all, r)
	})
	return all, err
}

func attrs(p []byte, each func(typ uint16, v []byte)) {
	for len(p) >= unix.SizeofRtAttr {
		l := int(binary.NativeEndian.Uint16(p))
		if l < unix.SizeofRtAttr || l > len(p) {
			return
		}
		each(binary.NativeEndian.Uint16(p[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), p[unix.SizeofRtAttr:l])
		p = p[min((l+3)&^3, len(p)):]
	}
}

func text(v []byte) string {
	if n := len(v); n > 0 && v[n-1] == 0 {
		v = v[:n-1]
	}
	return string(v)
}

func number(v []byte) int {
	if len(v) != 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(v))
}

// Index gives the index of the interface with this name, in the Conn's namespace.
func (c *Conn) Index(name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("interface %q: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0, fmt.Errorf("rtnetlink: %w", unix.EBADF)
	}
	if err := unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}
