package api

import (
	"maps"
	"net/netip"
	"slices"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// summariesFor gives a list of containers the form that version v has.
func summariesFor(v Version, list []apicontainer.Summary) []apicontainer.Summary {
	if list == nil {
		return []apicontainer.Summary{}
	}
	if v >= 52 {
		return list
	}
	for i := range list {
		c := &list[i]
		c.Health = nil
		if v < 48 {
			c.ImageManifestDescriptor = nil
		}
		if v < 46 {
			c.HostConfig.Annotations = nil
		}
	}
	return list
}

// inspectV51 is a container as versions up to 1.51 showed it: its fields hide the embedded ones.
type inspectV51 struct {
	apicontainer.InspectResponse
	Config          *configV51
	HostConfig      any
	NetworkSettings *networkSettingsV51
}

type configV51 struct {
	*apicontainer.Config
	OnBuild []string // null if there is none
}

// hostConfigV41 has two limits that kernels no longer know.
type hostConfigV41 struct {
	*apicontainer.HostConfig
	KernelMemory    int64
	KernelMemoryTCP int64
}

// networkSettingsV51 shows the default bridge's endpoint a second time, outside of Networks.
type networkSettingsV51 struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	Ports                  network.PortMap
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                netip.Addr
	GlobalIPv6Address      netip.Addr
	GlobalIPv6PrefixLen    int
	IPAddress              netip.Addr
	IPPrefixLen            int
	IPv6Gateway            netip.Addr
	MacAddress             network.HardwareAddr
	Networks               map[string]*network.EndpointSettings
}

// inspectFor gives a container the form that version v has.
func inspectFor(v Version, r apicontainer.InspectResponse) any {
	if v >= 52 {
		return r
	}
	r.Storage = nil
	if r.GraphDriver == nil && r.Driver != "" {
		r.GraphDriver = &storage.DriverData{Name: r.Driver}
	}
	if v < 48 {
		r.ImageManifestDescriptor = nil
	}
	old := inspectV51{InspectResponse: r, HostConfig: r.HostConfig}
	if r.Config != nil {
		old.Config = &configV51{Config: r.Config, OnBuild: r.Config.OnBuild}
	}
	if v < 42 && r.HostConfig != nil {
		old.HostConfig = hostConfigV41{HostConfig: r.HostConfig}
	}
	if r.NetworkSettings != nil {
		old.NetworkSettings = networkSettingsFor(v, r)
	}
	return old
}

func networkSettingsFor(v Version, r apicontainer.InspectResponse) *networkSettingsV51 {
	n := r.NetworkSettings
	networks := n.Networks
	if v < 45 {
		networks = maps.Clone(networks)
		for name, ep := range networks {
			networks[name] = withShortID(ep, r.ID)
		}
	}
	old := &networkSettingsV51{SandboxID: n.SandboxID, SandboxKey: n.SandboxKey, Ports: n.Ports, Networks: networks}
	if ep := n.Networks[network.NetworkBridge]; ep != nil {
		old.EndpointID = ep.EndpointID
		old.Gateway = ep.Gateway
		old.GlobalIPv6Address = ep.GlobalIPv6Address
		old.GlobalIPv6PrefixLen = ep.GlobalIPv6PrefixLen
		old.IPAddress = ep.IPAddress
		old.IPPrefixLen = ep.IPPrefixLen
		old.IPv6Gateway = ep.IPv6Gateway
		old.MacAddress = ep.MacAddress
	}
	return old
}

// withShortID adds the container's short id to the aliases of an endpoint on a network of the user's, as versions up
// to 1.44 did.
func withShortID(ep *network.EndpointSettings, id string) *network.EndpointSettings {
	if ep == nil || len(ep.Aliases) == 0 || len(id) < 12 || slices.Contains(ep.Aliases, id[:12]) {
		return ep
	}
	ep = ep.Copy()
	ep.Aliases = append(ep.Aliases, id[:12])
	return ep
}
