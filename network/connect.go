package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"skiff/internal/errs"
	"skiff/network/ipam"
	"skiff/network/netns"
	"skiff/network/rtnl"
)

// connection is what a container holds.
type connection struct {
	br        *bridge
	endpoint  Endpoint // NetNS nil
	name      string
	published []*published
}

// Connect gives a container a network namespace on the default bridge, with its ports published. With a warm pool and
// without ports it makes no system call. A container that is connected already is released first.
func (m *Manager) Connect(ctx context.Context, r Request) (Endpoint, error) {
	ep, err := m.tryConnect(ctx, r)
	switch {
	case err == nil:
		return ep, nil
	case m.ctx.Err() != nil:
		return Endpoint{}, errs.As(errs.Unavailable, fmt.Errorf("the engine is shutting down: %w", err))
	case errors.Is(err, ipam.ErrNoAddress):
		return Endpoint{}, errs.As(errs.Exhausted, err)
	}
	return Endpoint{}, err
}

func (m *Manager) tryConnect(ctx context.Context, r Request) (Endpoint, error) {
	mac, err := parseMAC(r.MAC)
	if err != nil {
		return Endpoint{}, err
	}
	if err := checkSysctls(r.Sysctls); err != nil {
		return Endpoint{}, err
	}
	b, err := m.ready(ctx)
	if err != nil {
		return Endpoint{}, err
	}
	if err := m.Release(ctx, r.ContainerID); err != nil {
		return Endpoint{}, err
	}
	if err := m.activate(b); err != nil {
		return Endpoint{}, err
	}
	p, err := b.pool.Take(ctx)
	if err != nil {
		return Endpoint{}, fmt.Errorf("connect container %s to network bridge: %w", r.ContainerID, err)
	}
	ep, err := m.connect(ctx, b, p, mac, r)
	if err != nil {
		m.drop(b, p)
		return Endpoint{}, err
	}
	return ep, nil
}

func (m *Manager) connect(ctx context.Context, b *bridge, p *prepared, mac net.HardwareAddr, r Request) (Endpoint, error) {
	if err := m.customise(ctx, p, mac, r.Sysctls); err != nil {
		return Endpoint{}, fmt.Errorf("connect container %s to network bridge: %w", r.ContainerID, err)
	}
	ep := Endpoint{
		Interface: ifName, HostVeth: p.veth, MAC: p.mac.String(), ID: randomHex(32),
		Address: netip.PrefixFrom(p.addr, b.gateway.Bits()), Gateway: b.gateway.Addr(),
		NetworkID: m.current().Networks["bridge"].ID,
	}
	c := &connection{br: b, name: r.Name}
	if len(r.Ports) > 0 && bridgedPacketsAreFiltered() {
		// A packet to the container's own published port is then turned round inside the bridge, back to where it came from.
		if err := m.portFlag(p.veth, (*rtnl.Batch).Hairpin); err != nil {
			return Endpoint{}, fmt.Errorf("connect container %s to network bridge: %w", r.ContainerID, err)
		}
	}
	var err error
	if c.published, ep.Ports, err = m.publish(b, p.addr, r); err != nil {
		return Endpoint{}, fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", displayName(r.Name, r.ContainerID), ep.ID, err)
	}
	c.endpoint = ep
	m.mu.Lock()
	if m.closed || m.conns[r.ContainerID] != nil {
		m.mu.Unlock()
		_ = m.withdraw(c)
		return Endpoint{}, errs.New(errs.Conflict, "container %s is being connected already", r.ContainerID)
	}
	m.conns[r.ContainerID] = c
	m.mu.Unlock()
	ep.NetNS = p.ns
	return ep, nil
}

func displayName(name, id string) string {
	if name != "" {
		return name
	}
	return id[:min(12, len(id))]
}

// owner is how a container is named to others who want its port.
func owner(name, id string) string { return "container " + displayName(name, id) }

// Isolated gives a namespace with lo alone.
func (m *Manager) Isolated(ctx context.Context, containerID string, sysctls map[string]string) (*os.File, error) {
	if err := checkSysctls(sysctls); err != nil {
		return nil, err
	}
	ns, err := m.lo.Take(ctx)
	if err != nil {
		return nil, fmt.Errorf("make a network namespace for container %s: %w", containerID, err)
	}
	if own := ownSysctls(sysctls); len(own) > 0 {
		if err := m.inner.Inside(ctx, ns, func() error { return netns.SetSysctls(own) }); err != nil {
			ns.Close()
			return nil, err
		}
	}
	return ns, nil
}

// Release gives back what a container holds. Its namespace ends with its last process; should the interface outlive it
// for some seconds (another container has joined the namespace), it is removed in the background.
func (m *Manager) Release(_ context.Context, containerID string) error {
	m.mu.Lock()
	c := m.conns[containerID]
	delete(m.conns, containerID)
	m.mu.Unlock()
	if c == nil {
		return nil
	}
	err := m.withdraw(c)
	m.reap.add(c.br, c.endpoint.Address.Addr(), c.endpoint.HostVeth)
	if err != nil {
		return fmt.Errorf("release the network of container %s: %w", containerID, err)
	}
	return nil
}

// Adopt takes over what running containers hold, makes the firewall exactly that, and removes other interfaces of ours.
// It is called once, before the first Connect. An error concerns some or all of the containers' connections; they are
// known all the same, and the engine can go on.
func (m *Manager) Adopt(ctx context.Context, held []Held) error {
	b, err := m.ready(ctx)
	if err != nil {
		if len(held) == 0 {
			return nil // reported by New, and again by Connect
		}
		return err
	}
	var problems []error
	keep := map[string]bool{}
	for _, h := range held {
		if !h.Endpoint.Address.IsValid() {
			continue
		}
		c := &connection{br: b, endpoint: h.Endpoint, name: h.Name}
		c.endpoint.NetNS = nil
		if a := h.Endpoint.Address.Addr(); !b.space.Claim(a) {
			problems = append(problems, fmt.Errorf("container %s: address %s is held twice", h.ContainerID, a))
		}
		c.published, err = m.retake(b, owner(h.Name, h.ContainerID), h.Endpoint)
		if err != nil {
			m.log.Warn("a running container's port is not fully taken over", "container", h.ContainerID, "error", err)
		}
		keep[h.Endpoint.HostVeth] = true
		m.mu.Lock()
		m.conns[h.ContainerID] = c
		m.mu.Unlock()
	}
	late := b.isActive()
	links, err := m.host.Links() // before the pool makes more
	problems = append(problems, err)
	if late {
		err = m.syncTable(b)
	} else {
		err = m.activate(b)
	}
	if err != nil && len(held) == 0 {
		m.log.Warn("the default bridge is not available, containers can have --network none or host", "error", err)
		return nil
	}
	problems = append(problems, err, m.tidy(b, links, keep, !late))
	return errors.Join(problems...)
}

// tidy puts the interfaces of running containers back on the bridge, and has the others removed if all is set.
func (m *Manager) tidy(b *bridge, links []rtnl.Link, keep map[string]bool, all bool) error {
	var batch rtnl.Batch
	for _, l := range links {
		switch {
		case !m.isOurs(l):
		case !keep[l.Name]:
			if all {
				m.reap.add(b, netip.Addr{}, l.Name)
			}
		case l.Master != b.currentIndex():
			batch.SetMaster(l.Index, b.currentIndex())
			batch.Up(l.Index)
		}
	}
	return m.host.Do(&batch)
}

// isOurs says that an interface is the host's end of one of our pairs.
func (m *Manager) isOurs(l rtnl.Link) bool {
	return l.Kind == "veth" && strings.HasPrefix(l.Name, m.ids.veth)
}

// parseMAC checks a MAC address that the user chose; "" gives nil.
func parseMAC(s string) (net.HardwareAddr, error) {
	if s == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(s)
	switch {
	case err != nil || len(mac) != 6:
		return nil, errs.New(errs.Invalid, "invalid MAC address %q: not six bytes in hexadecimal", s)
	case mac[0]&1 != 0:
		return nil, errs.New(errs.Invalid, "invalid MAC address %q: it is a multicast address", s)
	case mac.String() == "00:00:00:00:00:00":
		return nil, errs.New(errs.Invalid, "invalid MAC address %q: it is no station's", s)
	}
	return mac, nil
}

func checkSysctls(values map[string]string) error {
	for name := range values {
		if err := netns.CheckSysctl(name); err != nil {
			return errs.As(errs.Invalid, err)
		}
	}
	return nil
}
