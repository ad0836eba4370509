package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// schema are the sets and maps of the table.
type schema struct {
	table     *nftables.Table
	bridges   *nftables.Set // names of our bridges
	subnets   *nftables.Set // subnets that are masqueraded, as intervals
	icc       *nftables.Set // from bridge . to bridge: free traffic
	ports     *nftables.Set // protocol . port → address . port, on any of the host's addresses
	hostPorts *nftables.Set // protocol . address . port → address . port
}

func newSchema(name string) *schema {
	t := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	return &schema{
		table:   t,
		bridges: &nftables.Set{Table: t, ID: 1, Name: "bridges", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian},
		subnets: &nftables.Set{Table: t, ID: 2, Name: "subnets", KeyType: nftables.TypeIPAddr, Interval: true},
		icc: &nftables.Set{
			Table: t, ID: 3, Name: "icc", Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIFName),
		},
		ports: &nftables.Set{
			Table: t, ID: 4, Name: "ports", IsMap: true, Concatenation: true, DataType: target,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
		},
		hostPorts: &nftables.Set{
			Table: t, ID: 5, Name: "hostports", IsMap: true, Concatenation: true, DataType: target,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeInetService),
		},
	}
}

// write queues the messages that replace the table: add (so that it exists), delete, add.
func (s *schema) write(c *nftables.Conn, bridges []Bridge, ports []Port) error {
	c.AddTable(s.table)
	c.DelTable(s.table)
	c.AddTable(s.table)
	var names, nets, icc []nftables.SetElement
	for _, b := range bridges {
		n := ifname(b.Name)
		names = append(names, nftables.SetElement{Key: n})
		if b.ICC {
			icc = append(icc, nftables.SetElement{Key: append(n[:len(n):len(n)], n...)})
		}
		if b.Masquerade {
			nets = append(nets, interval(b.Subnet)...)
		}
	}
	anyAddr, oneAddr := elements(ports)
	for _, set := range []struct {
		set *nftables.Set
		els []nftables.SetElement
	}{{s.bridges, names}, {s.subnets, nets}, {s.icc, icc}, {s.ports, nil}, {s.hostPorts, nil}} {
		if err := c.AddSet(set.set, set.els); err != nil {
			return err
		}
	}
	for set, els := range map[*nftables.Set][]nftables.SetElement{s.ports: anyAddr, s.hostPorts: oneAddr} {
		for len(els) > 0 { // an attribute holds at most 64 KB
			n := min(len(els), 256)
			if err := c.SetAddElements(set, els[:n]); err != nil {
				return err
			}
			els = els[n:]
		}
	}
	s.chains(c)
	return nil
}

func (s *schema) chains(c *nftables.Conn) {
	publish := c.AddChain(&nftables.Chain{Name: "publish", Table: s.table})
	inbound := c.AddChain(&nftables.Chain{Name: "inbound", Table: s.table})
	base := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: s.table, Type: typ, Hooknum: hook, Priority: prio})
	}
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: s.table, Chain: ch, Exprs: all})
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")

	// route_localnet is on for our bridges, so that answers to the host's loopback come back. The answers carry the
	// bridge's own address until conntrack has seen them, which is after this hook; what has a loopback address here is forged.
	raw := base("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	rule(raw, s.fromBridge(), ipv4(offsetDst, loopback), verdict(expr.VerdictDrop))
	rule(raw, s.fromBridge(), ipv4(offsetSrc, loopback), verdict(expr.VerdictDrop))

	// A port that is published on 127.0.0.1 belongs to the host alone, whose own packets go through the output hook. Others
	// could send such packets over the wire, and here is before the kernel throws them away.
	pre := base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	rule(pre, ipv4(offsetDst, loopback), verdict(expr.VerdictReturn))
	rule(pre, toLocal(), jump(publish))
	out := base("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	rule(out, toLocal(), jump(publish))
	rule(publish, s.dnat(s.hostPorts, true))
	rule(publish, s.dnat(s.ports, false))

	post := base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	rule(post, s.toBridge(false), ipv4(offsetSrc, loopback), masquerade())
	rule(post, s.toBridge(false), s.fromSubnet(), ctStatusDNAT(), masquerade())
	rule(post, s.toBridge(true), s.fromSubnet(), masquerade())

	fwd := base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	rule(fwd, s.toBridge(false), jump(inbound))
	rule(inbound, ctStateKnown(), verdict(expr.VerdictAccept))
	rule(inbound, ctStatusDNAT(), verdict(expr.VerdictAccept))
	rule(inbound, s.freeTraffic(), verdict(expr.VerdictAccept))
	rule(inbound, verdict(expr.VerdictDrop))
}

// Registers: NFT_REG_1 and, for keys and values of several parts, the 32-bit registers that it consists of.
const (
	reg1  = unix.NFT_REG_1
	reg32 = unix.NFT_REG32_00
)

// Offsets in the IPv4 header.
const (
	offsetSrc = 12
	offsetDst = 16
)

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }
func masquerade() []expr.Any                { return []expr.Any{&expr.Masq{}} }

func jump(c *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: c.Name}}
}

func isIPv4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

// ipv4 matches an address of the IPv4 header against a prefix.
func ipv4(offset uint32, p netip.Prefix) []expr.Any {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return append(isIPv4(),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: p.Masked().Addr().AsSlice()})
}

func (s *schema) lookup(set *nftables.Set, reg uint32, invert bool) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetID: set.ID, SetName: set.Name, Invert: invert}
}

func (s *schema) fromBridge() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1}, s.lookup(s.bridges, reg1, false)}
}

func (s *schema) toBridge(invert bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg1}, s.lookup(s.bridges, reg1, invert)}
}

func (s *schema) freeTraffic() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg32},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg32 + 4},
		s.lookup(s.icc, reg32, false),
	}
}

func (s *schema) fromSubnet() []expr.Any {
	return append(isIPv4(),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offsetSrc, Len: 4},
		s.lookup(s.subnets, reg1, false))
}

// toLocal matches packets for one of the host's own IPv4 addresses.
func toLocal() []expr.Any {
	return append(isIPv4(),
		&expr.Fib{Register: reg1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)})
}

// dnat looks the packet up in a map and gives it the destination found there.
func (s *schema) dnat(m *nftables.Set, withAddr bool) []expr.Any {
	e := append(isIPv4(), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg32})
	next := uint32(reg32 + 1)
	if withAddr {
		e = append(e, &expr.Payload{DestRegister: next, Base: expr.PayloadBaseNetworkHeader, Offset: offsetDst, Len: 4})
		next++
	}
	return append(e,
		&expr.Payload{DestRegister: next, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg32, DestRegister: reg32, IsDestRegSet: true, SetID: m.ID, SetName: m.Name},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg32, RegProtoMin: reg32 + 1})
}

// Bits of ct state and ct status (linux/netfilter/nf_conntrack_common.h).
const (
	ctEstablished = 1 << 1
	ctRelated     = 1 << 2
	ctDstNAT      = 1 << 5
)

func ctStateKnown() []expr.Any { return ctBits(expr.CtKeySTATE, ctEstablished|ctRelated) }
func ctStatusDNAT() []expr.Any { return ctBits(expr.CtKeySTATUS, ctDstNAT) }

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}
}

func ifname(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

// interval are the elements of an interval set that stand for p: its first address, and the first one behind it.
func interval(p netip.Prefix) []nftables.SetElement {
	p = p.Masked()
	first := binary.BigEndian.Uint32(p.Addr().AsSlice())
	end := first + 1<<(32-p.Bits())
	els := []nftables.SetElement{{Key: p.Addr().AsSlice()}}
	if end != 0 {
		els = append(els, nftables.SetElement{Key: binary.BigEndian.AppendUint32(nil, end), IntervalEnd: true})
	}
	return els
}

// elements are the map elements of ports: those on any address, those on one. Each part is padded to four bytes.
func elements(ports []Port) (anyAddr, oneAddr []nftables.SetElement) {
	for _, p := range ports {
		val := port(p.Container.Addr().AsSlice(), p.Container.Port())
		if p.Host.Addr().IsUnspecified() {
			anyAddr = append(anyAddr, nftables.SetElement{Key: port([]byte{p.Proto, 0, 0, 0}, p.Host.Port()), Val: val})
			continue
		}
		key := append([]byte{p.Proto, 0, 0, 0}, p.Host.Addr().AsSlice()...)
		oneAddr = append(oneAddr, nftables.SetElement{Key: port(key, p.Host.Port()), Val: val})
	}
	return anyAddr, oneAddr
}

func port(key []byte, n uint16) []byte { return append(binary.BigEndian.AppendUint16(key, n), 0, 0) }
