package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"

	"skiff/internal/errs"
	"skiff/network/nft"
	"skiff/network/ports"
	"skiff/network/proxy"
)

// published is a host port that leads to a container.
type published struct {
	port  network.Port
	to    netip.AddrPort
	lease *ports.Lease
	proxy *proxy.Proxy // for an IPv6 host address
}

// rule is the firewall's part; IPv6 has none.
func (p *published) rule() (nft.Port, bool) {
	return nft.Port{Proto: p.lease.Proto, Host: p.lease.Host, Container: p.to}, p.lease.Host.Addr().Is4()
}

func rules(all []*published) []nft.Port {
	var r []nft.Port
	for _, p := range all {
		if n, ok := p.rule(); ok {
			r = append(r, n)
		}
	}
	return r
}

// publish takes the host ports of r and leads them to the container's address: all of them, or none.
func (m *Manager) publish(b *bridge, addr netip.Addr, r Request) ([]*published, network.PortMap, error) {
	var got []*published
	fail := func(err error) ([]*published, network.PortMap, error) {
		for _, p := range got {
			p.close()
		}
		return nil, nil, err
	}
	// Chosen ports first, then any: so that a random one is not in the way.
	for _, random := range []bool{false, true} {
		for _, port := range sortedPorts(r.Ports) {
			for _, bind := range r.Ports[port] {
				req, err := m.portRequest(b, port, bind, addr)
				if err != nil {
					return fail(err)
				}
				if random != (req.Ports.First == 0) {
					continue
				}
				req.Owner = owner(r.Name, r.ContainerID)
				leases, err := b.ports.Take(req)
				if err != nil {
					return fail(err)
				}
				for _, l := range leases {
					got = append(got, &published{port: port, to: req.Container, lease: l})
				}
			}
		}
	}
	for _, p := range got {
		if err := p.serve(); err != nil {
			return fail(err)
		}
	}
	if err := b.table.Publish(rules(got)); err != nil {
		return fail(fmt.Errorf("publish ports: %w", err))
	}
	b.forget(got)
	return got, portMap(r.Ports, got), nil
}

// serve starts the proxy of an IPv6 binding.
func (p *published) serve() error {
	if p.lease.Host.Addr().Is4() {
		return nil
	}
	f := p.lease.File()
	if f == nil {
		return nil
	}
	var err error
	if p.lease.Proto == ports.UDP {
		p.proxy, err = proxy.UDP(f, p.to)
	} else {
		p.proxy, err = proxy.TCP(f, p.to)
	}
	return err
}

func (p *published) close() {
	if p.proxy != nil {
		p.proxy.Close()
	}
	p.lease.Release()
}

// portRequest is what one binding asks of the allocator.
func (m *Manager) portRequest(b *bridge, port network.Port, bind network.PortBinding, addr netip.Addr) (ports.Request, error) {
	proto, ok := protocols[port.Proto()]
	if !ok || port.Num() == 0 {
		return ports.Request{}, errs.New(errs.Invalid, "invalid container port %s", port)
	}
	rng, err := hostRange(bind.HostPort)
	if err != nil {
		return ports.Request{}, err
	}
	req := ports.Request{Proto: proto, Ports: rng, Container: netip.AddrPortFrom(addr, port.Num())}
	host := bind.HostIP.Unmap().WithZone("")
	if !bind.HostIP.IsValid() {
		host = m.cfg.HostIP
	}
	switch {
	case !host.IsValid():
		req.Host = []netip.Addr{netip.IPv4Unspecified()}
		if b.ipv6 && proto != ports.SCTP {
			req.Host = append(req.Host, netip.IPv6Unspecified())
		}
	case host.Is6() && proto == ports.SCTP:
		return req, errs.New(errs.NotImplemented, "publishing %s on the IPv6 address %s is not implemented", port, host)
	case host.Is6() && !b.ipv6:
		return req, errs.New(errs.Invalid, "cannot publish %s on %s: the host has no IPv6", port, host)
	default:
		req.Host = []netip.Addr{host}
	}
	return req, nil
}

// hostRange reads a host port: "" or "0" for any, "8080", or "8000-8010".
func hostRange(s string) (ports.Range, error) {
	if s == "" || s == "0" {
		return ports.Range{}, nil
	}
	lo, hi, isRange := strings.Cut(s, "-")
	if !isRange {
		hi = lo
	}
	first, err1 := strconv.ParseUint(lo, 10, 16)
	last, err2 := strconv.ParseUint(hi, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return ports.Range{}, errs.New(errs.Invalid, "invalid host port %q", s)
	}
	return ports.Range{First: uint16(first), Last: uint16(last)}, nil
}

// withdraw takes a container's ports away from it.
func (m *Manager) withdraw(c *connection) error {
	if len(c.published) == 0 {
		return nil
	}
	err := c.br.table.Withdraw(rules(c.published))
	for _, p := range c.published {
		p.close()
	}
	c.br.forget(c.published)
	switch {
	case err != nil && m.ctx.Err() != nil: // the table's connection is closed; the next engine writes the table anew
		return errs.New(errs.Unavailable, "withdraw published ports: the engine is shutting down: %w", err)
	case err != nil:
		return fmt.Errorf("withdraw published ports: %w", err)
	}
	return nil
}

// closeSockets gives up proxies and reservations; the firewall's rules stay.
func (c *connection) closeSockets() {
	for _, p := range c.published {
		p.close()
	}
}

// retake takes the ports of a running container again.
func (m *Manager) retake(b *bridge, owner string, ep Endpoint) ([]*published, error) {
	var all []*published
	var problems []error
	for _, port := range sortedPorts(ep.Ports) {
		for _, bind := range ep.Ports[port] {
			n, err := strconv.ParseUint(bind.HostPort, 10, 16)
			proto := protocols[port.Proto()]
			if err != nil || proto == 0 || !bind.HostIP.IsValid() {
				problems = append(problems, fmt.Errorf("port %s has no usable binding %s %q", port, bind.HostIP, bind.HostPort))
				continue
			}
			l, err := b.ports.Retake(proto, netip.AddrPortFrom(bind.HostIP, uint16(n)), owner)
			problems = append(problems, err)
			p := &published{port: port, to: netip.AddrPortFrom(ep.Address.Addr(), port.Num()), lease: l}
			problems = append(problems, p.serve())
			all = append(all, p)
		}
	}
	return all, errors.Join(problems...)
}

// syncTable makes the firewall exactly what the connections say.
func (m *Manager) syncTable(b *bridge) error {
	var all []nft.Port
	m.mu.Lock()
	for _, c := range m.conns {
		all = append(all, rules(c.published)...)
	}
	m.mu.Unlock()
	return b.table.Sync([]nft.Bridge{m.firewalled(b)}, all)
}

var protocols = map[network.IPProtocol]uint8{network.TCP: ports.TCP, network.UDP: ports.UDP, network.SCTP: ports.SCTP}

func sortedPorts(m network.PortMap) []network.Port {
	var all []network.Port
	for p := range m {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b network.Port) int {
		if a.Num() != b.Num() {
			return int(a.Num()) - int(b.Num())
		}
		return strings.Compare(string(a.Proto()), string(b.Proto()))
	})
	return all
}

// portMap is what inspect shows: the host ports really taken.
func portMap(asked network.PortMap, got []*published) network.PortMap {
	if len(asked) == 0 {
		return nil
	}
	all := network.PortMap{}
	for _, p := range got {
		all[p.port] = append(all[p.port], network.PortBinding{
			HostIP: p.lease.Host.Addr(), HostPort: strconv.Itoa(int(p.lease.Host.Port())),
		})
	}
	return all
}
