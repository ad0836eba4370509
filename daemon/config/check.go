package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"skiff/registry/remote"
)

// check refuses values that can't be honoured, without looking at the system.
func (c *Config) check() error {
	for _, f := range []func() error{c.checkPaths, c.checkLogging, c.checkRegistries, c.checkContainers, c.checkHosts, c.checkTLS} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkPaths() error {
	for name, path := range map[string]string{"data-root": c.DataRoot, "exec-root": c.ExecRoot, "pidfile": c.PidFile} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("invalid %s: %s must be an absolute path", name, path)
		}
	}
	if c.DataRoot == "/" || c.ExecRoot == "/" || c.DataRoot == c.ExecRoot {
		return fmt.Errorf("data-root %s and exec-root %s must be two folders below the root", c.DataRoot, c.ExecRoot)
	}
	switch c.StorageDriver {
	case "", "overlay2", "overlay", "overlayfs":
		return nil
	}
	return fmt.Errorf("invalid storage-driver: %s (overlay2 is the only one)", c.StorageDriver)
}

func (c *Config) checkLogging() error {
	switch c.LogLevel {
	case "debug", "info", "warn", "error", "fatal":
	default:
		return fmt.Errorf("invalid logging level: %s", c.LogLevel)
	}
	switch c.LogFormat {
	case "text", "json":
	default:
		return fmt.Errorf("invalid log format: %s", c.LogFormat)
	}
	seen := map[string]string{}
	for _, label := range c.Labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" || value == "" {
			return fmt.Errorf("bad attribute format: %s", label)
		}
		if old, twice := seen[key]; twice && old != value {
			return fmt.Errorf("conflict labels for %s=%s and %s=%s", key, value, key, old)
		}
		seen[key] = value
	}
	return nil
}

func (c *Config) checkRegistries() error {
	if _, err := remote.New(remote.Options{Mirrors: c.Mirrors, Insecure: c.Insecure}); err != nil {
		return err
	}
	if c.MaxDownloads < 1 {
		return fmt.Errorf("invalid max concurrent downloads: %d", c.MaxDownloads)
	}
	if c.MaxAttempts < 1 {
		return fmt.Errorf("invalid max download attempts: %d", c.MaxAttempts)
	}
	return nil
}

func (c *Config) checkContainers() error {
	switch {
	case c.DefaultRuntime != "skiff":
		return fmt.Errorf("default-runtime %s: other runtimes than skiff are not there yet", c.DefaultRuntime)
	case c.CgroupnsMode != "" && c.CgroupnsMode != "host" && c.CgroupnsMode != "private":
		return fmt.Errorf("invalid default cgroup namespace mode: %s", c.CgroupnsMode)
	case c.ShmSize <= 0:
		return fmt.Errorf("invalid default-shm-size: %d", c.ShmSize)
	case c.InitPath != "" && !filepath.IsAbs(c.InitPath):
		return fmt.Errorf("invalid init-path: %s must be an absolute path", c.InitPath)
	case c.Seccomp != "" && c.Seccomp != "builtin" && c.Seccomp != "unconfined" && !filepath.IsAbs(c.Seccomp):
		return fmt.Errorf(`invalid seccomp-profile: %s must be an absolute path, "builtin" or "unconfined"`, c.Seccomp)
	case strings.Contains(c.CgroupParent, ".slice"):
		return fmt.Errorf("invalid cgroup-parent: %s is for the systemd cgroup driver, which is not there yet", c.CgroupParent)
	case c.BIP.IsValid() && c.Bridge != "":
		return fmt.Errorf("you specified --bridge & --bip, mutually exclusive options; please specify only one")
	case c.Bridge == "none":
		return fmt.Errorf("bridge none: a daemon without the default network is not there yet")
	case c.MTU < 0:
		return fmt.Errorf("invalid default MTU: %d", c.MTU)
	}
	return nil
}

// Host is one address to listen on.
type Host struct {
	Proto string // unix, tcp or fd
	Addr  string // a path, host:port, or the name of a systemd socket ("": all)
}

// String is the host as it is written in the configuration.
func (h Host) String() string { return h.Proto + "://" + h.Addr }

// The ports of dockerd.
const (
	plainPort = "2375"
	tlsPort   = "2376"
)

// Listen parses the addresses to listen on.
func (c *Config) Listen() ([]Host, error) {
	var hosts []Host
	for _, s := range c.Hosts {
		h, err := c.parseHost(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func (c *Config) parseHost(s string) (Host, error) {
	proto, addr, ok := strings.Cut(s, "://")
	if !ok {
		proto, addr = "tcp", s
		if strings.HasPrefix(s, "/") {
			proto = "unix"
		}
	}
	switch proto {
	case "unix":
		if addr == "" {
			addr = filepath.Join(c.ExecRoot, "skiff.sock")
		}
		if !filepath.IsAbs(addr) {
			return Host{}, fmt.Errorf("invalid host %q: the socket's path must be absolute", s)
		}
	case "fd":
	case "tcp":
		if strings.ContainsAny(addr, "/?#@") {
			return Host{}, fmt.Errorf("invalid bind address %q: should not contain a path element", s)
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil { // no port
			host, port = strings.Trim(addr, "[]"), ""
		}
		if host == "" {
			host = "127.0.0.1"
		}
		if port == "" {
			port = map[bool]string{true: tlsPort, false: plainPort}[c.TLS]
		}
		if _, lookup := net.LookupPort("tcp", port); lookup != nil {
			return Host{}, fmt.Errorf("invalid bind address %q: invalid port %s", s, port)
		}
		addr = net.JoinHostPort(host, port)
	default:
		return Host{}, fmt.Errorf("invalid bind address %q: the protocol must be unix, tcp or fd", s)
	}
	return Host{proto, addr}, nil
}

// Loopback says whether only this host can reach the address.
func (h Host) Loopback() bool {
	host, _, err := net.SplitHostPort(h.Addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

func (c *Config) checkHosts() error {
	hosts, err := c.Listen()
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if h.Proto == "tcp" && !c.TLSVerify && !c.OpenTCP && !h.Loopback() {
			return fmt.Errorf("refusing to listen on %s without --tlsverify: whoever can connect would be root on this host "+
				"(--allow-unauthenticated-tcp if that is what you want)", h)
		}
	}
	return nil
}

func (c *Config) checkTLS() error {
	if !c.TLS {
		return nil
	}
	for name, path := range map[string]string{"tlscert": c.TLSCert, "tlskey": c.TLSKey} {
		if path == "" {
			return fmt.Errorf("TLS needs --%s", name)
		}
	}
	if c.TLSVerify && c.TLSCACert == "" {
		return fmt.Errorf("--tlsverify needs --tlscacert")
	}
	return nil
}
