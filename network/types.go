package network

import (
	"net/netip"
	"os"

	"github.com/moby/moby/api/types/network"
)

// Request asks for a container's connection to the default bridge.
type Request struct {
	ContainerID string
	Name        string            // the container's name, for the texts of errors and Inspect; may be empty
	MAC         string            // "" : derived from the address, as Docker does
	Ports       network.PortMap   // what to publish: container port → host bindings (host port "" or "0": a random one)
	Sysctls     map[string]string // net.* sysctls to set inside the namespace
}

// Endpoint is a connected interface, as long as the container runs.
type Endpoint struct {
	// NetNS is an open handle of the network namespace, with lo up, the interface addressed and up, the routes set.
	// The caller closes it after the launch: the container's process keeps the namespace alive, nothing is mounted.
	NetNS     *os.File
	Interface string // name inside the namespace, "eth0"
	HostVeth  string // name of the other end on the host
	Address   netip.Prefix
	Gateway   netip.Addr
	Address6  netip.Prefix // zero value: no IPv6
	Gateway6  netip.Addr
	MAC       string
	Ports     network.PortMap // the bindings with the host ports really taken
	NetworkID string          // 64 hex
	ID        string          // endpoint id, 64 hex
}

// Held is what a running container holds, told to the manager again after the daemon was restarted.
type Held struct {
	ContainerID string
	Name        string   // as in Request
	PID         int      // a live process inside the container's network namespace
	Endpoint    Endpoint // NetNS nil
}

// DNSConfig are the name settings of one container.
type DNSConfig struct {
	Hostname, Domainname string
	Servers              []netip.Addr // --dns; empty: the host's, made reachable
	Search, Options      []string     // --dns-search, --dns-option
	ExtraHosts           []string     // --add-host, "name:ip", "name=ip"; ip may be "host-gateway"
	HostNetwork          bool         // --network host: the host's own files are the base
}
