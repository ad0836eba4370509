package config

import (
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/docker/go-units"
)

// Paths of the default daemon.
const (
	DefaultFile     = "/etc/skiff/daemon.json"
	DefaultDataRoot = "/var/lib/skiff"
	DefaultExecRoot = "/run/skiff"
)

// Config is the whole configuration, after flags and file were put together.
type Config struct {
	File     string // of which it was read; "" or one that is not there: none
	Validate bool   // check the configuration and end

	DataRoot string
	ExecRoot string
	PidFile  string // "": EXEC-ROOT/skiffd.pid
	Hosts    []string
	Group    string // of the unix sockets

	TLS       bool
	TLSVerify bool
	TLSCACert string
	TLSCert   string
	TLSKey    string
	// OpenTCP allows listening beyond the loopback interface although everybody who can connect is root then.
	OpenTCP bool

	Debug     bool
	LogLevel  string
	LogFormat string
	Labels    []string

	Mirrors        []string
	Insecure       []string
	MaxDownloads   int
	MaxAttempts    int
	HTTPProxy      string
	HTTPSProxy     string
	NoProxy        string
	StorageDriver  string
	DefaultRuntime string

	LiveRestore     bool
	ShutdownTimeout int // seconds, negative: for ever

	LogDriver    string
	LogOpts      map[string]string
	Ulimits      Ulimits
	ShmSize      Bytes
	CgroupParent string
	CgroupnsMode string
	Init         bool
	InitPath     string
	Seccomp      string // path of a profile, "builtin" or "unconfined"; "": builtin

	Bridge       string
	BIP          Prefix
	FixedCIDR    Prefix
	Pools        Pools
	MTU          int
	HostIP       Addr
	HostGateways Addrs
	ICC          bool
	IPMasq       bool
	IPForward    bool
	DNS          Addrs
	DNSOpts      []string
	DNSSearch    []string
}

// Default is the configuration without any flag or file.
func Default() *Config {
	return &Config{
		File:            DefaultFile,
		DataRoot:        DefaultDataRoot,
		ExecRoot:        DefaultExecRoot,
		LogLevel:        "info",
		LogFormat:       "text",
		MaxDownloads:    3,
		MaxAttempts:     5,
		ShutdownTimeout: 15,
		LogDriver:       "json-file",
		DefaultRuntime:  "skiff",
		ShmSize:         64 << 20,
		ICC:             true,
		IPMasq:          true,
		IPForward:       true,
	}
}

// complete fills in what follows from the rest.
func (c *Config) complete() {
	c.DataRoot, c.ExecRoot = filepath.Clean(c.DataRoot), filepath.Clean(c.ExecRoot)
	if c.PidFile == "" {
		c.PidFile = filepath.Join(c.ExecRoot, "skiffd.pid")
	}
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"unix://" + filepath.Join(c.ExecRoot, "skiff.sock")}
	}
	if c.TLSVerify {
		c.TLS = true
	}
	if c.Debug {
		c.LogLevel = "debug"
	}
	c.Labels = slices.Compact(c.Labels)
}

// Bytes is a size that may be written with a unit: 64M, 1g.
type Bytes int64

// Prefix is a subnet in CIDR notation, with the host bits kept. The zero value is not set.
type Prefix struct{ netip.Prefix }

// Addr is an IP address. The zero value is not set.
type Addr struct{ netip.Addr }

// Addrs is a list of IP addresses.
type Addrs []netip.Addr

// Pool is a range that networks' subnets are cut from.
type Pool struct {
	Base netip.Prefix
	Size int // prefix length of the subnets
}

// Pools is a list of ranges.
type Pools []Pool

// Ulimits are limits by name.
type Ulimits map[string]*units.Ulimit
