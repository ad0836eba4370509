package names

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
)

// Host is a line of /etc/hosts.
type Host struct {
	Addr  netip.Addr
	Names string // blank-separated
}

const hostsHead = "127.0.0.1\tlocalhost\n" +
	"::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::\tip6-localnet\n" +
	"ff00::\tip6-mcastprefix\n" +
	"ff02::1\tip6-allnodes\n" +
	"ff02::2\tip6-allrouters\n"

// Hosts writes an /etc/hosts: the usual entries (or the host's own file, if base is not nil), then the extra ones, then
// the container's own addresses.
func Hosts(base []byte, extra []Host, own []Host) []byte {
	var b bytes.Buffer
	if base == nil {
		b.WriteString(hostsHead)
	} else {
		b.Write(base)
		if n := len(base); n > 0 && base[n-1] != '\n' {
			b.WriteByte('\n')
		}
	}
	for _, h := range append(extra[:len(extra):len(extra)], own...) {
		fmt.Fprintf(&b, "%s\t%s\n", h.Addr, h.Names)
	}
	return b.Bytes()
}

// HostGateway is the word for the host's own address in an extra host.
const HostGateway = "host-gateway"

// ParseExtraHost reads the value of --add-host, "name:address" or "name=address". The address may be HostGateway, which
// stands for all of gateway.
func ParseExtraHost(s string, gateway []netip.Addr) ([]Host, error) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 || i == len(s)-1 {
		return nil, fmt.Errorf("bad format for add-host: %q", s)
	}
	name, val := s[:i], s[i+1:]
	if strings.ContainsAny(name, " \t\r\n#") {
		return nil, fmt.Errorf("bad format for add-host: %q: not a host name", s)
	}
	if val == HostGateway {
		if len(gateway) == 0 {
			return nil, fmt.Errorf("add-host %q: unable to derive the IP value for host-gateway", s)
		}
		var all []Host
		for _, a := range gateway {
			all = append(all, Host{a, name})
		}
		return all, nil
	}
	if n := len(val); n > 2 && val[0] == '[' && val[n-1] == ']' {
		val = val[1 : n-1]
	}
	a, err := netip.ParseAddr(val)
	if err != nil {
		return nil, fmt.Errorf("invalid IP address in add-host: %q", val)
	}
	return []Host{{a, name}}, nil
}
