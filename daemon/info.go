package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	apisystem "github.com/moby/moby/api/types/system"

	"skiff/api"
	"skiff/container"
	"skiff/daemon/config"
	"skiff/image"
	"skiff/internal/version"
	"skiff/runtime/cgroup"
)

// system tells what the daemon is; it implements api.System.
type system struct {
	cfg        func() *config.Config
	containers api.Containers
	images     api.Images
	listeners  func() int // of events
	cgroups    cgroup.Host
	id         string
}

const dockerHub = "docker.io"

// Info is GET /info.
func (s *system) Info(ctx context.Context) (apisystem.Info, error) {
	cfg := s.cfg()
	list, err := s.containers.List(ctx, container.ListOptions{All: true})
	if err != nil {
		return apisystem.Info{}, fmt.Errorf("counting containers: %w", err)
	}
	images, err := s.images.List(ctx, image.ListOptions{All: true})
	if err != nil {
		return apisystem.Info{}, fmt.Errorf("counting images: %w", err)
	}
	host := uname()
	osName, osVersion := osRelease()
	info := apisystem.Info{
		ID:     s.id,
		Images: len(images),
		Driver: "overlayfs",
		DriverStatus: [][2]string{
			{"Backing Filesystem", fileSystem(cfg.DataRoot)},
			{"Supports d_type", "true"},
			{"Image store", "OCI image layout"},
		},
		Plugins: apisystem.PluginsInfo{
			Volume: []string{}, Network: []string{"bridge", "host", "null"}, Authorization: nil, Log: []string{"json-file", "local", "none"},
		},
		Debug:              cfg.Debug,
		NFd:                countFiles(),
		NGoroutines:        runtime.NumGoroutine(),
		NEventsListener:    s.listeners(),
		SystemTime:         time.Now().Format(time.RFC3339Nano),
		LoggingDriver:      cfg.LogDriver,
		KernelVersion:      host.release,
		OperatingSystem:    osName,
		OSVersion:          osVersion,
		OSType:             runtime.GOOS,
		Architecture:       host.machine,
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     registryConfig(cfg),
		NCPU:               runtime.NumCPU(),
		MemTotal:           memTotal(),
		DockerRootDir:      cfg.DataRoot,
		HTTPProxy:          withoutPassword(os.Getenv("HTTP_PROXY")),
		HTTPSProxy:         withoutPassword(os.Getenv("HTTPS_PROXY")),
		NoProxy:            os.Getenv("NO_PROXY"),
		Name:               host.node,
		Labels:             append([]string{}, cfg.Labels...),
		ServerVersion:      version.Version,
		Runtimes:           map[string]apisystem.RuntimeWithStatus{container.RuntimeName: {}},
		DefaultRuntime:     container.RuntimeName,
		Swarm:              swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive, RemoteManagers: nil},
		LiveRestoreEnabled: cfg.LiveRestore,
		InitBinary:         filepath.Base(initProgram(cfg)),
		SecurityOptions:    s.securityOptions(cfg),
		FirewallBackend:    &apisystem.FirewallInfo{Driver: "nftables"},
		CDISpecDirs:        []string{},
	}
	for _, p := range cfg.Pools {
		info.DefaultAddressPools = append(info.DefaultAddressPools, apisystem.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	countStates(&info, list)
	s.limits(&info)
	info.Warnings = append(info.Warnings, s.insecureHosts(cfg)...)
	return info, nil
}

func countStates(info *apisystem.Info, list []apicontainer.Summary) {
	info.Containers = len(list)
	for _, c := range list {
		switch c.State {
		case apicontainer.StateRunning, apicontainer.StateRestarting:
			info.ContainersRunning++
		case apicontainer.StatePaused:
			info.ContainersPaused++
		default:
			info.ContainersStopped++
		}
	}
}

// limits tells which limits the kernel can give, and warns of those it can't, in dockerd's words.
func (s *system) limits(info *apisystem.Info) {
	sup := s.cgroups.Support()
	info.MemoryLimit, info.SwapLimit = sup.Memory, sup.Swap
	info.CPUCfsPeriod, info.CPUCfsQuota, info.CPUShares, info.CPUSet = sup.CFS, sup.CFS, sup.Shares, sup.Cpuset
	info.PidsLimit, info.OomKillDisable = sup.Pids, sup.OOMDisable
	info.CgroupDriver = "cgroupfs"
	info.CgroupVersion = strconv.Itoa(s.cgroups.Version())
	if !sup.Any {
		info.CgroupDriver, info.CgroupVersion = "none", ""
	}
	b, _ := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	info.IPv4Forwarding = strings.TrimSpace(string(b)) == "1"
	info.Warnings = []string{}
	for _, w := range []struct {
		ok   bool
		text string
	}{
		{sup.Memory, "WARNING: No memory limit support"},
		{sup.Swap, "WARNING: No swap limit support"},
		{sup.OOMDisable || s.cgroups.Version() == 2, "WARNING: No oom kill disable support"},
		{sup.CFS, "WARNING: No cpu cfs quota support"},
		{sup.CFS, "WARNING: No cpu cfs period support"},
		{sup.Shares, "WARNING: No cpu shares support"},
		{sup.Cpuset, "WARNING: No cpuset support"},
		{sup.Pids, "WARNING: No pids limit support"},
		{info.IPv4Forwarding, "WARNING: IPv4 forwarding is disabled"},
	} {
		if !w.ok {
			info.Warnings = append(info.Warnings, w.text)
		}
	}
}

func (s *system) insecureHosts(cfg *config.Config) (warnings []string) {
	hosts, _ := cfg.Listen()
	for _, h := range hosts {
		if h.Proto != "tcp" || cfg.TLSVerify {
			continue
		}
		what := "without encryption"
		if cfg.TLS {
			what = "without TLS client verification"
		}
		warnings = append(warnings, fmt.Sprintf("[DEPRECATION NOTICE]: API is accessible on %s %s.\n"+
			"         Access to the remote API is equivalent to root access on the host.", h, what))
	}
	return warnings
}

func (s *system) securityOptions(cfg *config.Config) []string {
	profile := cfg.Seccomp
	if profile == "" {
		profile = "builtin"
	}
	out := []string{"name=seccomp,profile=" + profile}
	if s.cgroups.Version() == 2 {
		out = append(out, "name=cgroupns")
	}
	return out
}

// Version is GET /version.
func (s *system) Version(context.Context) (apisystem.VersionResponse, error) {
	host, built := uname(), buildTime()
	return apisystem.VersionResponse{
		Platform:      apisystem.PlatformInfo{Name: "skiff"},
		Version:       version.Version,
		APIVersion:    api.MaxVersion.String(),
		MinAPIVersion: api.MinVersion.String(),
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		GitCommit:     version.Commit,
		GoVersion:     runtime.Version(),
		KernelVersion: host.release,
		BuildTime:     built,
		Components: []apisystem.ComponentVersion{{
			Name:    "Engine",
			Version: version.Version,
			Details: map[string]string{
				"ApiVersion":    api.MaxVersion.String(),
				"MinAPIVersion": api.MinVersion.String(),
				"GitCommit":     version.Commit,
				"GoVersion":     runtime.Version(),
				"Os":            runtime.GOOS,
				"Arch":          runtime.GOARCH,
				"KernelVersion": host.release,
				"Experimental":  "false",
				"BuildTime":     built,
			},
		}},
	}, nil
}

// buildTime is when the commit was made that this program was built from, "" if nobody knows.
func buildTime() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			return s.Value
		}
	}
	return ""
}

// registryConfig shows which registries are reached how. Loopback is always insecure, as in dockerd.
func registryConfig(cfg *config.Config) *registry.ServiceConfig {
	mirrors := append([]string{}, cfg.Mirrors...)
	out := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs: map[string]*registry.IndexInfo{
			dockerHub: {Name: dockerHub, Mirrors: mirrors, Secure: true, Official: true},
		},
		Mirrors: mirrors,
	}
	for _, name := range cfg.Insecure {
		if p, err := netip.ParsePrefix(name); err == nil {
			out.InsecureRegistryCIDRs = append(out.InsecureRegistryCIDRs, p)
			continue
		}
		out.IndexConfigs[name] = &registry.IndexInfo{Name: name, Mirrors: []string{}}
	}
	return out
}

// withoutPassword hides the user part of a proxy's address.
func withoutPassword(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	u.User = url.UserPassword("xxxxx", "xxxxx")
	return u.String()
}

func countFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}
