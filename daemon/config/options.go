package config

import (
	"github.com/spf13/pflag"
)

// option is one entry of the configuration.
type option struct {
	flag  string // "": only in the file
	short string
	key   string // "": only as a flag
	field func(*Config) any
	usage string
	// reload says that SIGHUP may change it.
	reload bool
}

// options is every option there is. field gives a pointer to where the value goes: *bool, *int, *string, *[]string,
// *map[string]string, or a pflag.Value.
var options = []option{
	{flag: "config-file", field: func(c *Config) any { return &c.File }, usage: "Daemon configuration file"},
	{flag: "validate", field: func(c *Config) any { return &c.Validate }, usage: "Validate daemon configuration and exit"},

	{flag: "data-root", key: "data-root", field: func(c *Config) any { return &c.DataRoot }, usage: "Root directory of persistent state"},
	{flag: "exec-root", key: "exec-root", field: func(c *Config) any { return &c.ExecRoot }, usage: "Root directory for execution state files"},
	{flag: "pidfile", short: "p", key: "pidfile", field: func(c *Config) any { return &c.PidFile }, usage: "Path to use for daemon PID file (default EXEC-ROOT/skiffd.pid)"},
	{flag: "host", short: "H", key: "hosts", field: func(c *Config) any { return &c.Hosts }, usage: "Daemon socket(s) to connect to: unix://PATH, tcp://ADDRESS[:PORT], fd:// (default unix://EXEC-ROOT/skiff.sock)"},
	{flag: "group", short: "G", key: "group", field: func(c *Config) any { return &c.Group }, usage: "Group for the unix socket (default: skiff, or else docker, if there is one)"},

	{flag: "tls", key: "tls", field: func(c *Config) any { return &c.TLS }, usage: "Use TLS; implied by --tlsverify"},
	{flag: "tlsverify", key: "tlsverify", field: func(c *Config) any { return &c.TLSVerify }, usage: "Use TLS and verify the remote"},
	{flag: "tlscacert", key: "tlscacert", field: func(c *Config) any { return &c.TLSCACert }, usage: "Trust certs signed only by this CA"},
	{flag: "tlscert", key: "tlscert", field: func(c *Config) any { return &c.TLSCert }, usage: "Path to TLS certificate file"},
	{flag: "tlskey", key: "tlskey", field: func(c *Config) any { return &c.TLSKey }, usage: "Path to TLS key file"},
	{flag: "allow-unauthenticated-tcp", key: "allow-unauthenticated-tcp", field: func(c *Config) any { return &c.OpenTCP }, usage: "Listen on TCP beyond loopback without --tlsverify: whoever can connect is root on this host"},

	{flag: "debug", short: "D", key: "debug", reload: true, field: func(c *Config) any { return &c.Debug }, usage: "Enable debug mode"},
	{flag: "log-level", short: "l", key: "log-level", reload: true, field: func(c *Config) any { return &c.LogLevel }, usage: `Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")`},
	{flag: "log-format", key: "log-format", field: func(c *Config) any { return &c.LogFormat }, usage: `Set the logging format ("text"|"json")`},
	{flag: "label", key: "labels", reload: true, field: func(c *Config) any { return &c.Labels }, usage: "Set key=value labels to the daemon"},

	{flag: "registry-mirror", key: "registry-mirrors", reload: true, field: func(c *Config) any { return &c.Mirrors }, usage: "Preferred registry mirror"},
	{flag: "insecure-registry", key: "insecure-registries", reload: true, field: func(c *Config) any { return &c.Insecure }, usage: "Enable insecure registry communication"},
	{flag: "max-concurrent-downloads", key: "max-concurrent-downloads", field: func(c *Config) any { return &c.MaxDownloads }, usage: "Set the max concurrent downloads"},
	{flag: "max-download-attempts", key: "max-download-attempts", field: func(c *Config) any { return &c.MaxAttempts }, usage: "Set the max download attempts for each pull"},
	{flag: "http-proxy", field: func(c *Config) any { return &c.HTTPProxy }, usage: "HTTP proxy URL to use for outgoing traffic"},
	{flag: "https-proxy", field: func(c *Config) any { return &c.HTTPSProxy }, usage: "HTTPS proxy URL to use for outgoing traffic"},
	{flag: "no-proxy", field: func(c *Config) any { return &c.NoProxy }, usage: "Comma-separated list of hosts or IP addresses for which the proxy is skipped"},
	{key: "proxies", field: func(c *Config) any { return &proxies{c} }},
	{flag: "storage-driver", short: "s", key: "storage-driver", field: func(c *Config) any { return &c.StorageDriver }, usage: "Storage driver to use (overlay2 is the only one)"},
	{flag: "default-runtime", key: "default-runtime", field: func(c *Config) any { return &c.DefaultRuntime }, usage: "Default OCI runtime for containers (skiff is the only one)"},

	{flag: "live-restore", key: "live-restore", reload: true, field: func(c *Config) any { return &c.LiveRestore }, usage: "Leave containers running when the daemon is stopped"},
	{flag: "shutdown-timeout", key: "shutdown-timeout", reload: true, field: func(c *Config) any { return &c.ShutdownTimeout }, usage: "Set the shutdown timeout in seconds"},

	{flag: "log-driver", key: "log-driver", field: func(c *Config) any { return &c.LogDriver }, usage: "Default driver for container logs"},
	{flag: "log-opt", key: "log-opts", field: func(c *Config) any { return &c.LogOpts }, usage: "Default log driver options for containers"},
	{flag: "default-ulimit", key: "default-ulimits", field: func(c *Config) any { return &c.Ulimits }, usage: "Default ulimits for containers"},
	{flag: "default-shm-size", key: "default-shm-size", field: func(c *Config) any { return &c.ShmSize }, usage: "Default shm size for containers"},
	{flag: "cgroup-parent", key: "cgroup-parent", field: func(c *Config) any { return &c.CgroupParent }, usage: "Set parent cgroup for all containers"},
	{flag: "default-cgroupns-mode", key: "default-cgroupns-mode", field: func(c *Config) any { return &c.CgroupnsMode }, usage: `Default mode for containers cgroup namespace ("host" | "private")`},
	{flag: "init", key: "init", field: func(c *Config) any { return &c.Init }, usage: "Run an init in the container to forward signals and reap processes"},
	{flag: "init-path", key: "init-path", field: func(c *Config) any { return &c.InitPath }, usage: "Path to the init binary (default: skiff-init beside skiffd)"},
	{flag: "seccomp-profile", key: "seccomp-profile", field: func(c *Config) any { return &c.Seccomp }, usage: `Path to seccomp profile. Set to "unconfined" to disable the default seccomp profile (default "builtin")`},

	{flag: "bridge", short: "b", key: "bridge", field: func(c *Config) any { return &c.Bridge }, usage: "Attach containers to a network bridge (default skiff0)"},
	{flag: "bip", key: "bip", field: func(c *Config) any { return &c.BIP }, usage: "IPv4 address for the default bridge"},
	{flag: "fixed-cidr", key: "fixed-cidr", field: func(c *Config) any { return &c.FixedCIDR }, usage: "IPv4 subnet for fixed IPs"},
	{flag: "default-address-pool", key: "default-address-pools", field: func(c *Config) any { return &c.Pools }, usage: "Default address pools for networks: base=CIDR,size=BITS"},
	{flag: "mtu", key: "mtu", field: func(c *Config) any { return &c.MTU }, usage: "Set the MTU of the containers' network (default: that of the host's default route, at most 1500)"},
	{flag: "ip", key: "ip", field: func(c *Config) any { return &c.HostIP }, usage: "Host IP for port publishing from the default bridge network (default: all)"},
	{flag: "host-gateway-ip", key: "host-gateway-ips", field: func(c *Config) any { return &c.HostGateways }, usage: "IP addresses that the special 'host-gateway' string in --add-host resolves to"},
	{flag: "icc", key: "icc", field: func(c *Config) any { return &c.ICC }, usage: "Enable inter-container communication for the default bridge network"},
	{flag: "ip-masq", key: "ip-masq", field: func(c *Config) any { return &c.IPMasq }, usage: "Enable IP masquerading for the default bridge network"},
	{flag: "ip-forward", key: "ip-forward", field: func(c *Config) any { return &c.IPForward }, usage: "Enable IP forwarding in system configuration"},
	{flag: "dns", key: "dns", field: func(c *Config) any { return &c.DNS }, usage: "DNS server to use"},
	{flag: "dns-opt", key: "dns-opts", field: func(c *Config) any { return &c.DNSOpts }, usage: "DNS options to use"},
	{flag: "dns-search", key: "dns-search", field: func(c *Config) any { return &c.DNSSearch }, usage: "DNS search domains to use"},
}

// proxies is the file's "proxies" object.
type proxies struct{ c *Config }

// UnmarshalJSON takes dockerd's form: {"http-proxy":"…","https-proxy":"…","no-proxy":"…"}.
func (p *proxies) UnmarshalJSON(raw []byte) error {
	return strictly(raw, &struct {
		HTTP  *string `json:"http-proxy"`
		HTTPS *string `json:"https-proxy"`
		No    *string `json:"no-proxy"`
	}{&p.c.HTTPProxy, &p.c.HTTPSProxy, &p.c.NoProxy})
}

// define adds an option to a set of flags that fills c.
func (o option) define(fs *pflag.FlagSet, c *Config) {
	if o.flag == "" {
		return
	}
	switch p := o.field(c).(type) {
	case *bool:
		fs.BoolVarP(p, o.flag, o.short, *p, o.usage)
	case *int:
		fs.IntVarP(p, o.flag, o.short, *p, o.usage)
	case *string:
		fs.StringVarP(p, o.flag, o.short, *p, o.usage)
	case *[]string:
		fs.VarP((*list)(p), o.flag, o.short, o.usage)
	case *map[string]string:
		fs.VarP((*pairs)(p), o.flag, o.short, o.usage)
	case pflag.Value:
		fs.VarP(p, o.flag, o.short, o.usage)
	}
}
