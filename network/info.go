package network

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"

	"skiff/internal/errs"
)

// List describes the networks, by name.
func (m *Manager) List(_ context.Context) ([]network.Summary, error) {
	st := m.current()
	var all []network.Summary
	for _, name := range []string{"bridge", "host", "none"} {
		all = append(all, network.Summary{Network: m.describe(st, name)})
	}
	return all, nil
}

// Inspect describes one network, found by name, id or unique id prefix, with its endpoints.
func (m *Manager) Inspect(_ context.Context, nameOrID string) (network.Inspect, error) {
	st := m.current()
	name, err := st.find(nameOrID)
	if err != nil {
		return network.Inspect{}, err
	}
	in := network.Inspect{Network: m.describe(st, name), Containers: map[string]network.EndpointResource{}}
	if name != "bridge" {
		return in, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, c := range m.conns {
		mac, _ := net.ParseMAC(c.endpoint.MAC)
		in.Containers[id] = network.EndpointResource{
			Name: c.name, EndpointID: c.endpoint.ID, MacAddress: network.HardwareAddr(mac), IPv4Address: c.endpoint.Address,
		}
	}
	return in, nil
}

// NetworkID gives the stable id of bridge, host or none; "" for another name.
func (m *Manager) NetworkID(name string) string { return m.current().Networks[name].ID }

func (s state) find(nameOrID string) (string, error) {
	if _, ok := s.Networks[nameOrID]; ok {
		return nameOrID, nil
	}
	var found []string
	for name, n := range s.Networks {
		if nameOrID != "" && strings.HasPrefix(n.ID, nameOrID) {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return "", errs.New(errs.NotFound, "network %s not found", nameOrID)
	case 1:
		return found[0], nil
	}
	slices.Sort(found)
	return "", errs.New(errs.Invalid, "network %s is ambiguous (%d matches found: %s)", nameOrID, len(found), strings.Join(found, ", "))
}

func (m *Manager) describe(st state, name string) network.Network {
	n := network.Network{
		Name: name, ID: st.Networks[name].ID, Created: st.Networks[name].Created, Scope: "local", Driver: name,
		EnableIPv4: true, IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{},
	}
	switch name {
	case "none":
		n.Driver = "null"
	case "bridge":
		if st.Gateway.IsValid() {
			n.IPAM.Config = append(n.IPAM.Config, network.IPAMConfig{
				Subnet: st.Gateway.Masked(), IPRange: m.cfg.FixedCIDR, Gateway: st.Gateway.Addr(),
			})
		}
		host := "0.0.0.0"
		if m.cfg.HostIP.IsValid() {
			host = m.cfg.HostIP.String()
		}
		n.Options = map[string]string{
			"com.docker.network.bridge.default_bridge":       "true",
			"com.docker.network.bridge.enable_icc":           strconv.FormatBool(!m.cfg.NoICC),
			"com.docker.network.bridge.enable_ip_masquerade": strconv.FormatBool(!m.cfg.NoMasquerade),
			"com.docker.network.bridge.host_binding_ipv4":    host,
			"com.docker.network.bridge.name":                 m.ids.bridge,
			"com.docker.network.driver.mtu":                  strconv.Itoa(m.shownMTU()),
		}
	}
	return n
}

func (m *Manager) shownMTU() int {
	m.bridgeMu.Lock()
	defer m.bridgeMu.Unlock()
	if m.bridge != nil {
		return m.bridge.mtu
	}
	if m.cfg.MTU > 0 {
		return m.cfg.MTU
	}
	return 1500
}
