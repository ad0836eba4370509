package container

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"

	"skiff/internal/errs"
	"skiff/network"
)

// connect takes a network namespace as the network mode says, and writes the files that name hosts.
func (s *startup) connect(ctx context.Context) error {
	h, id := s.d.HostConfig, s.o.id
	mode := h.NetworkMode
	sysctls := netSysctls(h.Sysctls)
	switch {
	case s.d.Config.NetworkDisabled, mode.IsNone():
		ns, err := s.m.cfg.Networks.Isolated(ctx, id, sysctls)
		if err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		s.netns = ns
	case mode.IsHost():
	case mode.IsContainer():
		return s.joinNetwork(mode.ConnectedContainer())
	case mode == networkBridge:
		ep, err := s.m.cfg.Networks.Connect(ctx, network.Request{
			ContainerID: id, Name: s.d.Name, MAC: macAddress(s.d.Networking), Ports: published(s.d.Config, h), Sysctls: sysctls,
		})
		if err != nil {
			return fmt.Errorf("failed to set up container networking: %w", err)
		}
		s.netns, ep.NetNS = ep.NetNS, nil
		s.endpoint = &ep
	default:
		return errs.New(errs.NotFound, "failed to set up container networking: network %s not found", mode)
	}
	return s.writeEtc()
}

func netSysctls(all map[string]string) map[string]string {
	net := map[string]string{}
	for k, v := range all {
		if strings.HasPrefix(k, "net.") {
			net[k] = v
		}
	}
	return net
}

// joinNetwork takes the namespace of another container; its files for /etc are used too.
func (s *startup) joinNetwork(name string) error {
	pid, err := s.m.sharedPID(name, "network")
	if err != nil {
		return err
	}
	if s.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
		return fmt.Errorf("join the network of container %s: %w", name, err)
	}
	other, err := s.m.index.find(name)
	if err != nil {
		return err
	}
	hosts, _, resolv := s.m.etcFiles(other.id)
	ownHosts, ownName, ownResolv := s.m.etcFiles(s.o.id)
	for from, to := range map[string]string{hosts: ownHosts, resolv: ownResolv} {
		data, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("join the network of container %s: %w", name, err)
		}
		if err := writeFile(to, data); err != nil {
			return err
		}
	}
	return writeFile(ownName, []byte(s.d.Config.Hostname+"\n"))
}

// etcFiles are the host's paths of the files for /etc.
func (m *Manager) etcFiles(id string) (hosts, hostname, resolvConf string) {
	dir := m.dir(id)
	return filepath.Join(dir, "hosts"), filepath.Join(dir, "hostname"), filepath.Join(dir, "resolv.conf")
}

func (s *startup) writeEtc() error {
	cfg := s.dns()
	hosts, err := s.m.cfg.Networks.Hosts(cfg, s.endpoint)
	if err != nil {
		return fmt.Errorf("compose /etc/hosts: %w", err)
	}
	resolv, err := s.m.cfg.Networks.ResolvConf(cfg, s.endpoint)
	if err != nil {
		return fmt.Errorf("compose /etc/resolv.conf: %w", err)
	}
	hostsPath, namePath, resolvPath := s.m.etcFiles(s.o.id)
	if err := writeFile(hostsPath, hosts); err != nil {
		return err
	}
	if err := writeFile(namePath, []byte(s.d.Config.Hostname+"\n")); err != nil {
		return err
	}
	return writeFile(resolvPath, resolv)
}

func (s *startup) dns() network.DNSConfig {
	h := s.d.HostConfig
	return network.DNSConfig{
		Hostname: s.d.Config.Hostname, Domainname: s.d.Config.Domainname,
		Servers: append([]netip.Addr(nil), h.DNS...), Search: h.DNSSearch, Options: h.DNSOptions,
		ExtraHosts: h.ExtraHosts, HostNetwork: h.NetworkMode.IsHost(),
	}
}

// writeFile writes a file that only has to survive the process. It keeps an existing file's inode.
func writeFile(path string, data []byte) error {
	return os.WriteFile(path, data, 0o644)
}

// networks is how a container's connections are shown.
func (d *definition) networks(s *status) map[string]*apinetwork.EndpointSettings {
	name := string(d.HostConfig.NetworkMode)
	if d.HostConfig.NetworkMode.IsContainer() {
		return map[string]*apinetwork.EndpointSettings{}
	}
	ep := &apinetwork.EndpointSettings{}
	if d.Networking != nil {
		if asked := d.Networking.EndpointsConfig[name]; asked != nil {
			ep = asked.Copy()
		}
	}
	if e := s.Endpoint; e != nil {
		ep.NetworkID, ep.EndpointID = e.NetworkID, e.ID
		ep.Gateway, ep.IPAddress, ep.IPPrefixLen = e.Gateway, e.Address.Addr(), e.Address.Bits()
		if e.Address6.IsValid() {
			ep.IPv6Gateway, ep.GlobalIPv6Address, ep.GlobalIPv6PrefixLen = e.Gateway6, e.Address6.Addr(), e.Address6.Bits()
		}
		_ = ep.MacAddress.UnmarshalText([]byte(e.MAC))
	}
	return map[string]*apinetwork.EndpointSettings{name: ep}
}
