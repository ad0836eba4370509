package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"skiff/internal/errs"
	"skiff/network/names"
)

// Hosts is the content of a container's /etc/hosts.
func (m *Manager) Hosts(cfg DNSConfig, ep *Endpoint) ([]byte, error) {
	var base []byte
	if cfg.HostNetwork {
		p, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("make /etc/hosts: %w", err)
		}
		base = append([]byte{}, p...)
	}
	var extra, own []names.Host
	for _, s := range cfg.ExtraHosts {
		h, err := names.ParseExtraHost(s, m.hostGateways())
		if err != nil {
			return nil, errs.As(errs.Invalid, err)
		}
		extra = append(extra, h...)
	}
	if ep != nil && cfg.Hostname != "" {
		n := cfg.Hostname
		if cfg.Domainname != "" {
			n += "." + cfg.Domainname
		}
		if short, _, ok := strings.Cut(n, "."); ok {
			n += " " + short
		}
		for _, p := range []netip.Prefix{ep.Address, ep.Address6} {
			if p.IsValid() {
				own = append(own, names.Host{Addr: p.Addr(), Names: n})
			}
		}
	}
	return names.Hosts(base, extra, own), nil
}

func (m *Manager) hostGateways() []netip.Addr {
	if len(m.cfg.HostGateways) > 0 {
		return m.cfg.HostGateways
	}
	if g := m.current().Gateway; g.IsValid() {
		return []netip.Addr{g.Addr()}
	}
	return nil
}

// ResolvConf is the content of a container's /etc/resolv.conf.
func (m *Manager) ResolvConf(cfg DNSConfig, ep *Endpoint) ([]byte, error) {
	path := m.cfg.ResolvConf
	if path == "" {
		path = "/etc/resolv.conf"
	}
	r, path, err := readResolv(path, cfg.HostNetwork)
	if err != nil {
		return nil, err
	}
	s := names.Settings{Servers: cfg.Servers, Search: cfg.Search, Options: cfg.Options}
	if len(s.Servers) == 0 {
		s.Servers = m.cfg.DNS
	}
	if len(s.Search) == 0 {
		s.Search = m.cfg.DNSSearch
	}
	if len(s.Options) == 0 {
		s.Options = m.cfg.DNSOptions
	}
	over := r.Override(s)
	comments := []string{fmt.Sprintf("Based on host file: '%s'", path)}
	if !cfg.HostNetwork && len(s.Servers) == 0 && r.MakeReachable(ep != nil && ep.Address6.IsValid()) {
		comments = append(comments, "Used default nameservers.")
	}
	return r.Write(append(comments, fmt.Sprintf("Overrides: [%s]", strings.Join(over, " ")))...), nil
}

// resolvedConf is where systemd-resolved names the real name servers, when /etc/resolv.conf has its local stub alone.
const resolvedConf = "/run/systemd/resolve/resolv.conf"

// readResolv reads the host's file. A missing one is empty.
func readResolv(path string, hostNetwork bool) (names.Resolv, string, error) {
	p, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return names.Resolv{}, path, fmt.Errorf("make /etc/resolv.conf: %w", err)
	}
	r := names.ParseResolv(p)
	if !hostNetwork && r.StubOnly() {
		if p, err := os.ReadFile(resolvedConf); err == nil {
			return names.ParseResolv(p), resolvedConf, nil
		}
	}
	return r, path, nil
}
