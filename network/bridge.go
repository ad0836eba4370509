package network

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/network/ipam"
	"skiff/network/netns"
	"skiff/network/nft"
	"skiff/network/ports"
	"skiff/network/rtnl"
)

// bridge is the default network while it is set up.
type bridge struct {
	name    string
	gateway netip.Prefix // the bridge's address and subnet
	mtu     int
	ipv6    bool // the host has IPv6 addresses that ports can be published on
	space   *ipam.Space
	table   *nft.Table
	ports   *ports.Allocator
	pool    *netns.Pool[*prepared]

	activation sync.Mutex
	active     bool // see activate

	mu    sync.Mutex
	index int // interface index of the bridge
}

// setUp makes the bridge and prepares the rest, which activate starts.
func (m *Manager) setUp(ctx context.Context) (*bridge, error) {
	b := &bridge{name: m.ids.bridge}
	if err := m.setUpLink(b); err != nil {
		return nil, err
	}
	space, err := ipam.NewSpace(b.gateway, m.cfg.FixedCIDR, b.gateway.Addr())
	if err != nil {
		return nil, err
	}
	b.space = space
	b.space.SetCursor(m.current().Cursor)
	b.ports = ports.New(dynamicPorts())
	b.ipv6 = hostHasIPv6()
	if b.table, err = nft.Open(m.ids.table, m.log); err != nil {
		return nil, err
	}
	b.pool = netns.NewPool(netns.Limits{Min: 0, Max: m.cfg.PoolMax, Idle: poolIdle},
		func(ctx context.Context) (*prepared, error) { return m.prepare(ctx, b) },
		func(p *prepared) { m.drop(b, p) })
	return b, nil
}

// activate writes the firewall's table, with the ports of the connections that are known by now, watches it, and starts
// the pools. It is done by Adopt, or by the first Connect, not before: until the running containers are known, the table
// in the kernel keeps their ports open, and any address may be theirs.
func (m *Manager) activate(b *bridge) error {
	b.activation.Lock()
	defer b.activation.Unlock()
	if b.active {
		return nil
	}
	err := m.syncTable(b)
	if err == nil {
		err = b.table.Watch()
	}
	if err != nil {
		return errs.As(errs.Unavailable, fmt.Errorf("network bridge is not available: %w", err))
	}
	b.active = true
	m.work.Go(func() { m.warnOfDrops(b) })
	b.pool.SetMin(m.cfg.PoolMin)
	m.lo.SetMin(min(2, m.cfg.PoolMin))
	return nil
}

// warnOfDrops tells the user of foreign firewalls that drop what containers send.
func (m *Manager) warnOfDrops(b *bridge) {
	chains, err := b.table.ForwardDrops()
	if err != nil {
		m.log.Debug("other firewalls could not be looked at", "error", err)
		return
	}
	for _, c := range chains {
		m.log.Warn("a firewall chain of another program drops forwarded packets: containers reach the outside, and are reached, only as its rules allow",
			"chain", c, "bridge", b.name)
	}
}

func (b *bridge) isActive() bool {
	b.activation.Lock()
	defer b.activation.Unlock()
	return b.active
}

func (m *Manager) firewalled(b *bridge) nft.Bridge {
	return nft.Bridge{Name: b.name, Subnet: b.gateway.Masked(), Masquerade: !m.cfg.NoMasquerade, ICC: !m.cfg.NoICC}
}

// setUpLink makes the interface with its address, or takes the one that is there, and sets the kernel's parameters.
func (m *Manager) setUpLink(b *bridge) error {
	links, err := m.host.Links()
	if err != nil {
		return err
	}
	addrs, err := m.host.Addrs()
	if err != nil {
		return err
	}
	routes, err := m.host.Routes()
	if err != nil {
		return err
	}
	link, exists := find(links, b.name)
	if exists && link.Kind != "bridge" {
		return fmt.Errorf("interface %s is there already and is no bridge", b.name)
	}
	st := m.current()
	foreign := exists && m.cfg.Bridge != "" && st.Bridge != b.name
	b.mtu = m.mtu(links, routes)
	var has []netip.Prefix
	var used []netip.Prefix
	for _, a := range addrs {
		if exists && a.Index == link.Index {
			has = append(has, a.Prefix)
		} else {
			used = append(used, a.Prefix)
		}
	}
	for _, r := range routes {
		if !exists || r.Index != link.Index {
			used = append(used, r.Dst)
		}
	}
	if b.gateway, err = m.chooseGateway(st, foreign, has, used); err != nil {
		return err
	}
	if !exists {
		if err := m.makeLink(b); err != nil {
			return err
		}
	} else {
		b.index = link.Index
	}
	if err := m.address(b, foreign, has); err != nil {
		return err
	}
	own := b.name
	if foreign {
		own = ""
	}
	if st.Gateway != b.gateway || st.Bridge != own {
		if err := m.update(true, func(s *state) { s.Gateway, s.Bridge = b.gateway, own }); err != nil {
			return err
		}
	}
	if st.Bridge != "" && st.Bridge != b.name {
		m.removeOldBridge(links, st.Bridge)
	}
	return m.sysctls(b)
}

// chooseGateway decides the bridge's address: the configured one, that of a foreign bridge, the one of last time, or the
// first of a subnet that the host does not route yet.
func (m *Manager) chooseGateway(st state, foreign bool, has, used []netip.Prefix) (netip.Prefix, error) {
	switch {
	case m.cfg.BIP.IsValid():
		return m.cfg.BIP, nil
	case foreign && len(has) > 0:
		return has[0], nil
	case st.Gateway.IsValid() && st.Gateway.Addr().Is4() && !ipam.Overlaps(st.Gateway, used) && m.inPools(st.Gateway):
		return st.Gateway, nil
	}
	s, err := ipam.Choose(m.pools(), used)
	if err != nil {
		return s, err
	}
	return netip.PrefixFrom(s.Addr().Next(), s.Bits()), nil
}

func (m *Manager) pools() []ipam.Pool {
	if len(m.cfg.Pools) > 0 {
		return m.cfg.Pools
	}
	return ipam.DefaultPools()
}

func (m *Manager) inPools(p netip.Prefix) bool {
	for _, pool := range m.pools() {
		if pool.Base.Contains(p.Addr()) && pool.Size == p.Bits() {
			return true
		}
	}
	return false
}

func (m *Manager) makeLink(b *bridge) error {
	mac := randomMAC()
	var batch rtnl.Batch
	batch.NewBridge(b.name, mac, b.mtu)
	if err := m.host.Do(&batch); err != nil {
		return err
	}
	index, err := m.host.Index(b.name)
	b.index = index
	return err
}

// address gives the bridge its address and takes away others that it had from us.
func (m *Manager) address(b *bridge, foreign bool, has []netip.Prefix) error {
	var batch rtnl.Batch
	there := false
	for _, p := range has {
		if p == b.gateway {
			there = true
		} else if !foreign {
			batch.DelAddr(b.index, p)
		}
	}
	if !there {
		batch.AddAddr(b.index, b.gateway)
	}
	batch.Up(b.index)
	return m.host.Do(&batch)
}

// removeOldBridge removes a bridge that we made under another name; containers on it lost their engine's support.
func (m *Manager) removeOldBridge(links []rtnl.Link, name string) {
	l, ok := find(links, name)
	if !ok || l.Kind != "bridge" {
		return
	}
	m.log.Info("removing the bridge of an earlier configuration", "bridge", name)
	var batch rtnl.Batch
	batch.DelLink(l.Index)
	if err := m.host.Do(&batch); err != nil {
		m.log.Warn("an old bridge could not be removed", "bridge", name, "error", err)
	}
}

// sysctls sets what the bridge needs of the kernel.
func (m *Manager) sysctls(b *bridge) error {
	dir := "net/ipv4/conf/" + b.name
	if err := setIfDifferent(dir+"/route_localnet", "1"); err != nil {
		return err
	}
	// The network has no IPv6: the host must not talk IPv6 with containers either, nor believe their router advertisements.
	if err := setIfDifferent("net/ipv6/conf/"+b.name+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("IPv6 stays on for the bridge", "bridge", b.name, "error", err)
	}
	if m.cfg.NoForward {
		return nil
	}
	old, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		return fmt.Errorf("read sysctl net.ipv4.ip_forward: %w", err)
	}
	if was := strings.TrimSpace(string(old)); was != "1" {
		if err := netns.SetSysctl("net.ipv4.ip_forward", "1"); err != nil {
			return err
		}
		m.log.Info("net.ipv4.ip_forward was switched on, containers need it to reach the outside", "was", was)
		return m.update(false, func(s *state) { s.IPForward = was })
	}
	return nil
}

// setIfDifferent spares a machine whose /proc/sys is read-only but right.
func setIfDifferent(name, value string) error {
	p, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return fmt.Errorf("read sysctl %s: %w", name, err)
	}
	if strings.TrimSpace(string(p)) == value {
		return nil
	}
	return netns.SetSysctl(name, value)
}

// mtu is the configured MTU, or the usual one unless the way out is narrower.
func (m *Manager) mtu(links []rtnl.Link, routes []rtnl.Route) int {
	if m.cfg.MTU > 0 {
		return m.cfg.MTU
	}
	const usual, least = 1500, 1280
	mtu := usual
	for _, r := range routes {
		for _, l := range links {
			if !r.Dst.IsValid() && l.Index == r.Index && l.MTU >= least {
				mtu = min(mtu, l.MTU)
			}
		}
	}
	return mtu
}

// dynamicPorts is the range of ports that the kernel gives to programs that name none.
func dynamicPorts() ports.Range {
	r := ports.Range{First: 32768, Last: 60999}
	p, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return r
	}
	var first, last uint16
	if n, _ := fmt.Sscan(string(p), &first, &last); n == 2 && first > 0 && first <= last {
		return ports.Range{First: first, Last: last}
	}
	return r
}

// hostHasIPv6 says whether IPv6 addresses can be bound.
func hostHasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}) == nil
}

func find(links []rtnl.Link, name string) (rtnl.Link, bool) {
	for _, l := range links {
		if l.Name == name {
			return l, true
		}
	}
	return rtnl.Link{}, false
}

// randomMAC is a random locally administered unicast address.
func randomMAC() net.HardwareAddr {
	mac := net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	_, _ = rand.Read(mac[2:])
	return mac
}
