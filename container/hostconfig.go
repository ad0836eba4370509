package container

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"

	api "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"skiff/internal/errs"
)

const (
	// RuntimeName is what HostConfig.Runtime says of our own runtime.
	RuntimeName = "skiff"

	defaultShmSize   = 64 << 20
	oomScoreLimit    = 1000
	swapPerMemory    = 2 // memory and swap together are twice the memory unless said otherwise
	networkBridge    = apinetwork.NetworkBridge
	hostGatewayAlias = "host-gateway"
)

// Docker's defaults for what is hidden, or can't be written, under /proc and /sys.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// completeHostConfig gives a copy with dockerd's defaults filled in, or says why it can't be honoured.
func completeHostConfig(asked *api.HostConfig, d Defaults) (*api.HostConfig, error) {
	h := api.HostConfig{}
	if asked != nil {
		h = *asked
	}
	if err := checkHostConfig(&h); err != nil {
		return nil, err
	}
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = networkBridge
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = api.RestartPolicyDisabled
	}
	if h.ShmSize == 0 {
		h.ShmSize = cmp.Or(d.ShmSize, defaultShmSize)
	}
	h.Ulimits = mergeUlimits(h.Ulimits, d.Ulimits)
	if h.IpcMode.IsEmpty() {
		h.IpcMode = api.IPCModePrivate
	}
	if h.CgroupnsMode.IsEmpty() {
		h.CgroupnsMode = d.CgroupnsMode
		if h.Privileged && d.CgroupnsMode == "" {
			h.CgroupnsMode = api.CgroupnsModeHost
		}
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = h.Memory * swapPerMemory
	}
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil
	}
	if h.OomKillDisable == nil {
		h.OomKillDisable = new(bool)
	}
	if h.Runtime == "" {
		h.Runtime = RuntimeName
	}
	if !h.Privileged {
		if h.MaskedPaths == nil {
			h.MaskedPaths = maskedPaths
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = readonlyPaths
		}
	}
	return &h, nil
}

// mergeUlimits adds the defaults that are not asked for otherwise.
func mergeUlimits(asked, defaults []*api.Ulimit) []*api.Ulimit {
	out := asked
	for _, u := range defaults {
		if !slices.ContainsFunc(asked, func(a *api.Ulimit) bool { return a.Name == u.Name }) {
			out = append(slices.Clip(out), u)
		}
	}
	return out
}

func checkHostConfig(h *api.HostConfig) error {
	if err := checkRestartPolicy(h); err != nil {
		return err
	}
	if err := checkNamespaces(h); err != nil {
		return err
	}
	switch {
	case h.ShmSize < 0:
		return errs.New(errs.Invalid, "SHM size can not be less than 0")
	case h.OomScoreAdj < -oomScoreLimit || h.OomScoreAdj > oomScoreLimit:
		return errs.New(errs.Invalid, "invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	case h.Runtime != "" && h.Runtime != RuntimeName:
		return errs.New(errs.Invalid, "unknown or invalid runtime name: %s", h.Runtime)
	case h.Isolation != "" && h.Isolation != api.IsolationDefault:
		return errs.New(errs.Invalid, "invalid isolation '%s' on linux", h.Isolation)
	case h.AutoRemove && h.NetworkMode.IsContainer() && len(h.PortBindings) > 0:
		return errs.New(errs.Invalid, "conflicting options: port publishing and the container type network mode")
	}
	for _, missing := range []struct {
		name string
		set  bool
	}{
		{"--link (HostConfig.Links)", len(h.Links) > 0},
		{"--volumes-from (HostConfig.VolumesFrom)", len(h.VolumesFrom) > 0},
		{"--volume-driver (HostConfig.VolumeDriver)", h.VolumeDriver != "" && h.VolumeDriver != "local"},
		{"--storage-opt (HostConfig.StorageOpt)", len(h.StorageOpt) > 0},
		{"--gpus (HostConfig.DeviceRequests)", len(h.DeviceRequests) > 0},
		{"HostConfig.Cgroup", h.Cgroup != ""},
	} {
		if missing.set {
			return errs.New(errs.NotImplemented, "%s is not implemented", missing.name)
		}
	}
	return checkExtraHosts(h.ExtraHosts)
}

func checkRestartPolicy(h *api.HostConfig) error {
	if err := api.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return errs.As(errs.Invalid, err)
	}
	if h.RestartPolicy.IsNone() {
		return nil
	}
	if h.AutoRemove {
		return errs.New(errs.Invalid, "can't create 'AutoRemove' container with restart policy")
	}
	return errs.New(errs.NotImplemented, "the restart policy %q is not implemented", h.RestartPolicy.Name)
}

func checkNamespaces(h *api.HostConfig) error {
	switch {
	case !h.IpcMode.Valid():
		return errs.New(errs.Invalid, "invalid IPC mode: %s", h.IpcMode)
	case !h.PidMode.Valid():
		return errs.New(errs.Invalid, "invalid PID mode: %s", h.PidMode)
	case !h.UTSMode.Valid():
		return errs.New(errs.Invalid, "invalid UTS mode: %s", h.UTSMode)
	case !h.CgroupnsMode.Valid():
		return errs.New(errs.Invalid, "invalid cgroup namespace mode: %s", h.CgroupnsMode)
	case !h.UsernsMode.Valid():
		return errs.New(errs.Invalid, "invalid user namespace mode: %s", h.UsernsMode)
	case h.NetworkMode.IsContainer() && h.NetworkMode.ConnectedContainer() == "":
		return errs.New(errs.Invalid, "invalid network mode: invalid container format container:<name|id>")
	case h.UTSMode.IsHost() && h.NetworkMode.IsContainer():
		return errs.New(errs.Invalid, "conflicting options: hostname and the UTS mode")
	case h.NetworkMode.IsContainer() && (len(h.PortBindings) > 0 || h.PublishAllPorts):
		return errs.New(errs.Invalid, "conflicting options: port publishing and the container type network mode")
	case h.NetworkMode.IsContainer() && (len(h.DNS) > 0 || len(h.DNSSearch) > 0 || len(h.DNSOptions) > 0):
		return errs.New(errs.Invalid, "conflicting options: dns and the network mode")
	case h.NetworkMode.IsContainer() && len(h.ExtraHosts) > 0:
		return errs.New(errs.Invalid, "conflicting options: custom host-to-IP mapping and the network mode")
	}
	return nil
}

func checkExtraHosts(hosts []string) error {
	for _, e := range hosts {
		name, addr, ok := strings.Cut(e, "=")
		if !ok {
			name, addr, ok = strings.Cut(e, ":")
		}
		if !ok || name == "" {
			return errs.New(errs.Invalid, "bad format for add-host: %q", e)
		}
		addr = strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
		if addr == hostGatewayAlias {
			continue
		}
		if _, err := netip.ParseAddr(addr); err != nil {
			return errs.New(errs.Invalid, "invalid IP address in add-host: %q", addr)
		}
	}
	return nil
}

// checkNetworking refuses endpoint settings that the predefined networks don't have.
func checkNetworking(n *apinetwork.NetworkingConfig, h *api.HostConfig) error {
	if n == nil {
		return nil
	}
	for name, ep := range n.EndpointsConfig {
		if ep == nil {
			continue
		}
		if len(ep.MacAddress) > 0 && !h.NetworkMode.IsPrivate() {
			return errs.New(errs.Invalid, "conflicting options: mac-address and the network mode")
		}
		if !predefined(name) {
			continue // start says that there is no such network
		}
		if c := ep.IPAMConfig; c != nil && (c.IPv4Address.IsValid() || c.IPv6Address.IsValid()) {
			return errs.New(errs.Invalid, "invalid config for network %s: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only", name)
		}
		if len(ep.Aliases) > 0 {
			return errs.New(errs.Invalid, "invalid config for network %s: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks", name)
		}
	}
	return nil
}

func predefined(network string) bool {
	switch network {
	case networkBridge, apinetwork.NetworkHost, apinetwork.NetworkNone, apinetwork.NetworkDefault:
		return true
	}
	return false
}

// macAddress is the one asked for on the default bridge, "" for none.
func macAddress(n *apinetwork.NetworkingConfig) string {
	if n == nil {
		return ""
	}
	for _, name := range []string{networkBridge, apinetwork.NetworkDefault} {
		if ep := n.EndpointsConfig[name]; ep != nil && len(ep.MacAddress) > 0 {
			return net.HardwareAddr(ep.MacAddress).String()
		}
	}
	return ""
}

// published is what a container publishes: its bindings, and with PublishAllPorts each exposed port on a random one.
func published(c *api.Config, h *api.HostConfig) apinetwork.PortMap {
	ports := apinetwork.PortMap{}
	for p, b := range h.PortBindings {
		if len(b) == 0 {
			b = []apinetwork.PortBinding{{}}
		}
		ports[p] = b
	}
	if h.PublishAllPorts {
		for p := range c.ExposedPorts {
			if _, bound := ports[p]; !bound {
				ports[p] = []apinetwork.PortBinding{{}}
			}
		}
	}
	return ports
}
