package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"skiff/network/netns"
	"skiff/network/rtnl"
)

// ifName is the interface's name inside a container.
const ifName = "eth0"

// prepared is a namespace with an interface on the bridge that waits for its container: addressed, up, routed.
type prepared struct {
	ns   *os.File
	veth string // name of the host's end
	addr netip.Addr
	mac  net.HardwareAddr
}

// cursorStep is how many addresses are handed out between two writes of the cursor.
const cursorStep = 64

// prepare makes a namespace for the pool.
func (m *Manager) prepare(ctx context.Context, b *bridge) (*prepared, error) {
	p, err := m.tryPrepare(ctx, b)
	if err == nil || ctx.Err() != nil {
		return p, err
	}
	if index, ierr := m.host.Index(b.name); ierr == nil && index == b.currentIndex() {
		return nil, err
	}
	// Somebody removed the bridge: make it anew.
	m.log.Warn("the bridge is gone, it is made anew", "bridge", b.name)
	if rerr := m.restoreLink(b); rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	return m.tryPrepare(ctx, b)
}

func (b *bridge) currentIndex() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.index
}

func (m *Manager) tryPrepare(ctx context.Context, b *bridge) (*prepared, error) {
	addr, err := m.nextAddress(b)
	if err != nil {
		return nil, err
	}
	p := &prepared{addr: addr, mac: derivedMAC(addr)}
	// With bridgedPacketsAreFiltered the table does it, and knows published ports.
	isolate := m.cfg.NoICC && !bridgedPacketsAreFiltered()
	for range 3 { // a name may be taken, one in millions
		p.veth = m.ids.veth + randomHex(4)[:min(8, maxIfName-len(m.ids.veth))]
		p.ns, err = m.maker.New(ctx, func(ns *os.File) error { return m.furnish(b, p, ns, isolate) })
		if !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil {
		b.space.Release(addr)
		return nil, fmt.Errorf("make a network namespace with interface %s: %w", p.veth, err)
	}
	m.awaitLink(ctx, b.name)
	m.awaitLink(ctx, p.veth)
	return p, nil
}

// awaitLink waits until packets can go through an interface of the host: what is sent before is lost, and sent again only
// after a second.
func (m *Manager) awaitLink(ctx context.Context, name string) {
	const patience, pause = 100 * time.Millisecond, 200 * time.Microsecond
	for end := time.Now().Add(patience); ctx.Err() == nil && time.Now().Before(end); time.Sleep(pause) {
		if ok, err := m.host.Running(name); ok || err != nil {
			return
		}
	}
}

// furnish makes the interface of a new namespace; it runs inside. All but the sysctl is two system calls in the kernel's
// rtnetlink: one on the host's socket, one on the namespace's.
func (m *Manager) furnish(b *bridge, p *prepared, ns *os.File, isolate bool) error {
	in, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	var batch rtnl.Batch
	batch.NewVeth(rtnl.Veth{
		Host: p.veth, Master: b.currentIndex(), MTU: b.mtu, Peer: ifName, MAC: p.mac, PeerNS: int(ns.Fd()),
	})
	if err := m.host.Do(&batch); err != nil {
		return err
	}
	if isolate {
		if err := m.portFlag(p.veth, (*rtnl.Batch).Isolate); err != nil {
			return err
		}
	}
	index, err := in.Index(ifName)
	if err != nil {
		return err
	}
	if err := netns.SetSysctl("net/ipv6/conf/"+ifName+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := netns.SetSysctls(defaultSysctls); err != nil {
		return err
	}
	batch.Up(netns.Loopback)
	batch.Up(index)
	batch.AddAddr(index, netip.PrefixFrom(p.addr, b.gateway.Bits()))
	batch.AddDefaultRoute(index, b.gateway.Addr())
	if err := in.Do(&batch); err != nil {
		return err
	}
	_, err = in.Running(ifName) // makes the kernel look; its other end is waited for
	return err
}

// defaultSysctls are set in every namespace, as Docker does: low ports and ping need no privilege in a container.
var defaultSysctls = map[string]string{
	"net.ipv4.ip_unprivileged_port_start": "0",
	"net.ipv4.ping_group_range":           "0 2147483647",
}

// furnishIsolated sets up a namespace with lo alone; it runs inside.
func furnishIsolated(*os.File) error {
	if err := netns.SetSysctls(defaultSysctls); err != nil {
		return err
	}
	return netns.LoopbackUp()
}

// ownSysctls leaves out what every namespace has already.
func ownSysctls(values map[string]string) map[string]string {
	own := map[string]string{}
	for name, value := range values {
		if have, ok := defaultSysctls[name]; !ok || have != value {
			own[name] = value
		}
	}
	return own
}

// portFlag sets a flag of a host end as port of the bridge.
func (m *Manager) portFlag(veth string, set func(b *rtnl.Batch, index int)) error {
	index, err := m.host.Index(veth)
	if err != nil {
		return err
	}
	var batch rtnl.Batch
	set(&batch, index)
	return m.host.Do(&batch)
}

// bridgedPacketsAreFiltered says whether IPv4 packets between two ports of a bridge pass the firewall (br_netfilter), in
// the calling thread's network namespace.
func bridgedPacketsAreFiltered() bool {
	var buf [2]byte
	fd, err := unix.Open("/proc/sys/net/bridge/bridge-nf-call-iptables", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	n, _ := unix.Read(fd, buf[:])
	return n > 0 && buf[0] != '0'
}

// drop gives back a namespace that nobody took.
func (m *Manager) drop(b *bridge, p *prepared) {
	p.ns.Close()
	m.reap.add(b, p.addr, p.veth)
}

// nextAddress takes an address, and notes now and then how far the round has come.
func (m *Manager) nextAddress(b *bridge) (netip.Addr, error) {
	a, err := b.space.Next()
	if err != nil && m.reap.hurry() {
		a, err = b.space.Next()
	}
	if err != nil {
		return a, err
	}
	c := b.space.Cursor()
	if limit := m.current().Cursor; c > limit || limit-c > cursorStep {
		if err := m.update(false, func(s *state) { s.Cursor = c + cursorStep }); err != nil {
			m.log.Warn("network state", "error", err)
		}
	}
	return a, nil
}

// derivedMAC makes a MAC address of an IPv4 address, as Docker does: 02:42 and the address.
func derivedMAC(a netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0x42}, a.AsSlice()...)
}

// customise gives a prepared namespace the container's own MAC address and sysctls.
func (m *Manager) customise(ctx context.Context, p *prepared, mac net.HardwareAddr, sysctls map[string]string) error {
	sysctls = ownSysctls(sysctls)
	if mac == nil && len(sysctls) == 0 {
		return nil
	}
	return m.inner.Inside(ctx, p.ns, func() error {
		if mac != nil {
			if err := setMAC(mac); err != nil {
				return fmt.Errorf("set MAC address %s: %w", mac, err)
			}
			p.mac = mac
		}
		return netns.SetSysctls(sysctls)
	})
}

// setMAC changes the address of the container's interface. A veth allows that while it is up. With arp_notify it is
// announced, in case somebody remembers another one for this IP address.
func setMAC(mac net.HardwareAddr) error {
	if err := netns.SetSysctl("net/ipv4/conf/"+ifName+"/arp_notify", "1"); err != nil {
		return err
	}
	in, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	index, err := in.Index(ifName)
	if err != nil {
		return err
	}
	var batch rtnl.Batch
	batch.SetMAC(index, mac)
	return in.Do(&batch)
}

// restoreLink makes a bridge that somebody removed anew, and puts the interfaces of running containers back on it.
func (m *Manager) restoreLink(b *bridge) error {
	m.bridgeMu.Lock()
	defer m.bridgeMu.Unlock()
	if err := m.makeLink(b); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	index, err := m.host.Index(b.name)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.index = index
	b.mu.Unlock()
	if err := m.address(b, false, nil); err != nil {
		return err
	}
	if err := m.sysctls(b); err != nil {
		return err
	}
	return m.enslave(b)
}

// enslave puts all our host ends onto the bridge.
func (m *Manager) enslave(b *bridge) error {
	links, err := m.host.Links()
	if err != nil {
		return err
	}
	var batch rtnl.Batch
	index := b.currentIndex()
	for _, l := range links {
		if m.isOurs(l) && l.Master != index {
			batch.SetMaster(l.Index, index)
			batch.Up(l.Index)
		}
	}
	return m.host.Do(&batch)
}
