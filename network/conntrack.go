package network

import (
	"github.com/vishvananda/netlink"

	"golang.org/x/sys/unix"

	"skiff/network/ports"
)

// forget makes the kernel forget UDP flows to published ports: a flow that goes on keeps its old destination for ever,
// also when the port has come to another container (or to one, from the host itself). TCP connections end by themselves.
func (b *bridge) forget(all []*published) {
	filter := udpFlows{}
	for _, p := range all {
		if p.lease.Proto == ports.UDP && p.lease.Host.Addr().Is4() {
			filter[p.lease.Host.Port()] = true
		}
	}
	if len(filter) == 0 {
		return
	}
	_, _ = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filter)
}

// udpFlows matches flows by their original destination port.
type udpFlows map[uint16]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f udpFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return flow.Forward.Protocol == unix.IPPROTO_UDP && f[flow.Forward.DstPort]
}
