package network

import (
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"

	"skiff/internal/errs"
	"skiff/network/ipam"
)

// Config is what the daemon's configuration says of networks. The zero value, with a StateDir, is the default.
type Config struct {
	// Instance tells several daemons on one host apart: six hexadecimal digits, or "" for the host's default daemon. The
	// names of interfaces and of the nftables table are made from it.
	Instance string
	// StateDir is an existing folder for what has to survive restarts: network ids and the choice of the subnet.
	StateDir string

	Bridge       string       // name of the default network's bridge; "": skiff0, or sk<Instance>-br. One that exists already is used as it is
	BIP          netip.Prefix // address and subnet of the bridge; zero: chosen from Pools
	FixedCIDR    netip.Prefix // part of the subnet that containers get addresses from; zero: all
	Pools        []ipam.Pool  // subnets to choose from; empty: Docker's
	MTU          int          // 0: 1500, or less if the default route's interface has less
	HostIP       netip.Addr   // where ports are published that name no host address; zero: on all
	HostGateways []netip.Addr // what "host-gateway" stands for; empty: the bridge's address
	NoICC        bool         // containers of the bridge may not talk to each other, but through published ports
	NoMasquerade bool         // containers keep their addresses towards the outside
	NoForward    bool         // leave net.ipv4.ip_forward alone
	DNS          []netip.Addr // name servers of containers that set none
	DNSSearch    []string     // likewise
	DNSOptions   []string     // likewise
	ResolvConf   string       // the host's file; "": /etc/resolv.conf
	Log          *slog.Logger // nil: slog.Default()
	PoolMin      int          // namespaces kept ready, at least; 0: 4
	PoolMax      int          // at most; 0: 32
}

var instanceRE = regexp.MustCompile(`^[0-9a-f]{6}$`)

// ifNames are the names of what the daemon makes on the host.
type ifNames struct {
	table  string // of nftables
	bridge string
	veth   string // prefix; eight or six random characters follow
}

func (c Config) ifNames() ifNames {
	n := ifNames{table: "skiff", bridge: "skiff0", veth: "skv-"}
	if c.Instance != "" {
		n = ifNames{table: "skiff-" + c.Instance, bridge: "sk" + c.Instance + "-br", veth: "sk" + c.Instance + "-"}
	}
	if c.Bridge != "" {
		n.bridge = c.Bridge
	}
	return n
}

func (c Config) validate() error {
	switch {
	case c.Instance != "" && !instanceRE.MatchString(c.Instance):
		return errs.New(errs.Invalid, "network instance %q: not six hexadecimal digits", c.Instance)
	case len(c.ifNames().bridge) > maxIfName:
		return errs.New(errs.Invalid, "bridge %q: an interface's name has at most %d characters", c.Bridge, maxIfName)
	case c.MTU != 0 && (c.MTU < 68 || c.MTU > 65535):
		return errs.New(errs.Invalid, "mtu %d: not between 68 and 65535", c.MTU)
	case c.BIP.IsValid() && (!c.BIP.Addr().Is4() || c.BIP.Bits() > 30 || c.BIP.Addr() == c.BIP.Masked().Addr()):
		return errs.New(errs.Invalid, "bip %s: not an IPv4 host address with its subnet", c.BIP)
	case c.FixedCIDR.IsValid() && !c.FixedCIDR.Addr().Is4():
		return errs.New(errs.Invalid, "fixed-cidr %s: not an IPv4 range", c.FixedCIDR)
	}
	for _, p := range c.Pools {
		if err := p.Validate(); err != nil {
			return errs.As(errs.Invalid, fmt.Errorf("default-address-pools: %w", err))
		}
	}
	return nil
}

// maxIfName is the longest interface name, in bytes (IFNAMSIZ without the final zero).
const maxIfName = 15
