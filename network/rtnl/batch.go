package rtnl

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Batch collects requests. The zero value is empty and ready.
type Batch struct {
	buf      []byte
	start    []int        // offset of each message
	what     []string     // what each message does, for errors
	optional map[int]bool // messages whose refusal does not matter
}

// Veth describes a pair of virtual Ethernet interfaces: one end on the host, as a port of a bridge, the other end born
// inside another network namespace.
type Veth struct {
	Host   string // name of the host's end
	Master int    // interface index of the bridge, or 0
	MTU    int
	Peer   string           // name of the other end
	MAC    net.HardwareAddr // of the other end
	PeerNS int              // descriptor of the other end's network namespace
}

const ack = unix.NLM_F_REQUEST | unix.NLM_F_ACK

const (
	vethInfoPeer = 1 // VETH_INFO_PEER of linux/veth.h
	addrGenNone  = 1 // IN6_ADDR_GEN_MODE_NONE of linux/if_link.h
)

// NewBridge creates a bridge that is up.
func (b *Batch) NewBridge(name string, mac net.HardwareAddr, mtu int) {
	b.message("create bridge "+name, unix.RTM_NEWLINK, ack|unix.NLM_F_CREATE|unix.NLM_F_EXCL, func() {
		b.link(0, unix.IFF_UP, unix.IFF_UP)
		b.str(unix.IFLA_IFNAME, name)
		b.u32(unix.IFLA_MTU, uint32(mtu))
		b.attr(unix.IFLA_ADDRESS, mac)
		b.nest(unix.IFLA_LINKINFO, func() { b.str(unix.IFLA_INFO_KIND, "bridge") })
	})
}

// NewVeth creates a pair with the host's end up and enslaved. The other end is down: an end can only go up when both
// exist. The host's end gets no IPv6 address: a bridge's port needs none, and finding out that nobody else has it costs
// the kernel as much as the rest.
func (b *Batch) NewVeth(v Veth) {
	b.message("create veth "+v.Host, unix.RTM_NEWLINK, ack|unix.NLM_F_CREATE|unix.NLM_F_EXCL, func() {
		b.link(0, 0, 0)
		b.str(unix.IFLA_IFNAME, v.Host)
		if v.Master != 0 {
			b.u32(unix.IFLA_MASTER, uint32(v.Master))
		}
		b.u32(unix.IFLA_MTU, uint32(v.MTU))
		b.oneQueue()
		b.nest(unix.IFLA_LINKINFO, func() {
			b.str(unix.IFLA_INFO_KIND, "veth")
			b.nest(unix.IFLA_INFO_DATA, func() {
				b.nest(vethInfoPeer, func() {
					b.link(0, 0, 0)
					b.str(unix.IFLA_IFNAME, v.Peer)
					b.attr(unix.IFLA_ADDRESS, v.MAC)
					b.u32(unix.IFLA_MTU, uint32(v.MTU))
					b.u32(unix.IFLA_NET_NS_FD, uint32(v.PeerNS))
					b.oneQueue()
				})
			})
		})
	})
	b.message("switch off IPv6 addresses of "+v.Host, unix.RTM_NEWLINK, ack, func() {
		b.link(0, 0, 0)
		b.str(unix.IFLA_IFNAME, v.Host)
		b.nest(unix.IFLA_AF_SPEC, func() {
			b.nest(unix.AF_INET6, func() { b.attr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenNone}) })
		})
	})
	b.ignoreRefusal() // a kernel without IPv6
	b.message("set interface "+v.Host+" up", unix.RTM_NEWLINK, ack, func() {
		b.link(0, unix.IFF_UP, unix.IFF_UP)
		b.str(unix.IFLA_IFNAME, v.Host)
	})
}

// ignoreRefusal makes the last message one that may be refused.
func (b *Batch) ignoreRefusal() {
	if b.optional == nil {
		b.optional = map[int]bool{}
	}
	b.optional[len(b.what)-1] = true
}

// oneQueue asks for one transmit and one receive queue. A veth uses one anyway, but else allocates one for each possible
// CPU, and creating the pair takes twice as long.
func (b *Batch) oneQueue() {
	b.u32(unix.IFLA_NUM_TX_QUEUES, 1)
	b.u32(unix.IFLA_NUM_RX_QUEUES, 1)
}

// Up sets an interface up.
func (b *Batch) Up(index int) {
	b.message("set interface up", unix.RTM_NEWLINK, ack, func() { b.link(index, unix.IFF_UP, unix.IFF_UP) })
}

// SetMAC changes an interface's address.
func (b *Batch) SetMAC(index int, mac net.HardwareAddr) {
	b.message("change the interface's address", unix.RTM_NEWLINK, ack, func() {
		b.link(index, 0, 0)
		b.attr(unix.IFLA_ADDRESS, mac)
	})
}

// SetMaster makes an interface a port of a bridge.
func (b *Batch) SetMaster(index, master int) {
	b.message("add port to bridge", unix.RTM_NEWLINK, ack, func() {
		b.link(index, 0, 0)
		b.u32(unix.IFLA_MASTER, uint32(master))
	})
}

// Isolate forbids a bridge port the exchange of frames with other isolated ports of the bridge.
func (b *Batch) Isolate(index int) {
	const isolated = 33 // IFLA_BRPORT_ISOLATED
	b.portFlag("isolate bridge port", index, isolated)
}

// Hairpin lets a bridge port send frames back where they came from.
func (b *Batch) Hairpin(index int) {
	const mode = 4 // IFLA_BRPORT_MODE
	b.portFlag("set hairpin mode of bridge port", index, mode)
}

func (b *Batch) portFlag(what string, index int, flag uint16) {
	b.message(what, unix.RTM_SETLINK, ack, func() {
		b.linkFamily(unix.AF_BRIDGE, index, 0, 0)
		b.nest(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, func() { b.attr(flag, []byte{1}) })
	})
}

// DelLink removes an interface, and the other end of a veth.
func (b *Batch) DelLink(index int) {
	b.message("remove interface", unix.RTM_DELLINK, ack, func() { b.link(index, 0, 0) })
}

// AddAddr gives an interface an address; its network is routed there.
func (b *Batch) AddAddr(index int, p netip.Prefix) {
	b.message("add address "+p.String(), unix.RTM_NEWADDR, ack|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, func() { b.addr(index, p) })
}

// DelAddr takes an address from an interface.
func (b *Batch) DelAddr(index int, p netip.Prefix) {
	b.message("remove address "+p.String(), unix.RTM_DELADDR, ack, func() { b.addr(index, p) })
}

// AddDefaultRoute sends everything without another route through a gateway.
func (b *Batch) AddDefaultRoute(index int, gateway netip.Addr) {
	b.message("add default route via "+gateway.String(), unix.RTM_NEWROUTE, ack|unix.NLM_F_CREATE, func() {
		b.buf = append(b.buf, family(gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0)
		b.attr(unix.RTA_GATEWAY, gateway.AsSlice())
		b.u32(unix.RTA_OIF, uint32(index))
	})
}

func (b *Batch) addr(index int, p netip.Prefix) {
	b.buf = append(b.buf, family(p.Addr()), uint8(p.Bits()), 0, 0)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, uint32(index))
	b.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	b.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Addr().Is4() && p.Bits() < 31 {
		b.attr(unix.IFA_BROADCAST, broadcast(p))
	}
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func broadcast(p netip.Prefix) []byte {
	a := p.Addr().As4()
	v := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	return binary.BigEndian.AppendUint32(nil, v)
}

func (b *Batch) reset() {
	b.buf, b.start, b.what = b.buf[:0], b.start[:0], b.what[:0]
	clear(b.optional)
}

// number sets the messages' sequence numbers, from first on.
func (b *Batch) number(first uint32) {
	for i, o := range b.start {
		binary.NativeEndian.PutUint32(b.buf[o+8:], first+uint32(i))
	}
}

func (b *Batch) message(what string, typ, flags uint16, body func()) {
	o := len(b.buf)
	b.start, b.what = append(b.start, o), append(b.what, what)
	b.buf = append(b.buf, make([]byte, unix.SizeofNlMsghdr)...)
	body()
	binary.NativeEndian.PutUint32(b.buf[o:], uint32(len(b.buf)-o))
	binary.NativeEndian.PutUint16(b.buf[o+4:], typ)
	binary.NativeEndian.PutUint16(b.buf[o+6:], flags)
}

func (b *Batch) link(index int, flags, change uint32) {
	b.linkFamily(unix.AF_UNSPEC, index, flags, change)
}

func (b *Batch) linkFamily(family byte, index int, flags, change uint32) {
	b.buf = append(b.buf, family, 0, 0, 0)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, uint32(index))
	b.buf = binary.NativeEndian.AppendUint32(b.buf, flags)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, change)
}

func (b *Batch) attr(typ uint16, data []byte) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(4+len(data)))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = append(b.buf, data...)
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}

func (b *Batch) u32(typ uint16, v uint32) { b.attr(typ, binary.NativeEndian.AppendUint32(nil, v)) }
func (b *Batch) str(typ uint16, s string) { b.attr(typ, append([]byte(s), 0)) }

func (b *Batch) nest(typ uint16, body func()) {
	o := len(b.buf)
	b.buf = append(b.buf, 0, 0, 0, 0)
	body()
	binary.NativeEndian.PutUint16(b.buf[o:], uint16(len(b.buf)-o))
	binary.NativeEndian.PutUint16(b.buf[o+2:], typ)
}
