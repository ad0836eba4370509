package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/docker/go-units"

	"skiff/internal/version"
)

// engineInfo is the part of GET /info that is printed.
type engineInfo struct {
	Containers, ContainersRunning, ContainersPaused, ContainersStopped, Images int
	ServerVersion, Driver, LoggingDriver, CgroupDriver, CgroupVersion          string
	DriverStatus                                                               [][2]string
	Plugins                                                                    map[string][]string
	CDISpecDirs                                                                []string
	Runtimes                                                                   map[string]any
	DefaultRuntime, InitBinary, KernelVersion, OperatingSystem                 string
	OSType, Architecture, Name, ID, DockerRootDir                              string
	NCPU                                                                       int
	MemTotal                                                                   int64
	Debug, ExperimentalBuild, LiveRestoreEnabled                               bool
	NFd, NGoroutines, NEventsListener                                          int
	SystemTime                                                                 string
	HTTPProxy, HTTPSProxy, NoProxy                                             string
	SecurityOptions, Labels, Warnings                                          []string
	RegistryConfig                                                             *struct {
		InsecureRegistryCIDRs []string
		IndexConfigs          map[string]struct {
			Name   string
			Secure bool
		}
		Mirrors []string
	}
	ContainerdCommit, RuncCommit, InitCommit struct{ ID string }
	DefaultAddressPools                      []struct {
		Base string
		Size int
	}
	Swarm struct{ LocalNodeState string }
}

func setupInfo(c *command) {
	var format string
	c.flags.StringVarP(&format, "format", "f", "", "Form of the output: 'json', or a TEMPLATE")
	c.choices("format", "json")
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		text, err := cl.Info(ctx)
		if format != "" {
			if err != nil {
				return err
			}
			if format == "json" {
				format = "{{json .}}"
			}
			return c.printDocument(text, format, map[string]string{"CPUCfsPeriod": "CpuCfsPeriod", "CPUCfsQuota": "CpuCfsQuota", "HTTPProxy": "HttpProxy", "HTTPSProxy": "HttpsProxy"})
		}
		fmt.Fprintf(c.Out, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %v\n\nServer:\n", version.Version, c.where.context, c.global.debug)
		if err != nil {
			return err
		}
		var info engineInfo
		if err := json.Unmarshal(text, &info); err != nil {
			return fmt.Errorf("read what the daemon says of itself: %w", err)
		}
		c.printInfo(&info)
		return nil
	}
}

func (a *App) printInfo(i *engineInfo) {
	p := func(format string, args ...any) { fmt.Fprintf(a.Out, " "+format+"\n", args...) }
	p("Containers: %d", i.Containers)
	p(" Running: %d", i.ContainersRunning)
	p(" Paused: %d", i.ContainersPaused)
	p(" Stopped: %d", i.ContainersStopped)
	p("Images: %d", i.Images)
	text := func(label, v string) {
		if v != "" {
			p("%s: %s", label, v)
		}
	}
	text("Server Version", i.ServerVersion)
	text("Storage Driver", i.Driver)
	for _, s := range i.DriverStatus {
		p(" %s: %s", s[0], s[1])
	}
	text("Logging Driver", i.LoggingDriver)
	text("Cgroup Driver", i.CgroupDriver)
	text("Cgroup Version", i.CgroupVersion)
	p("Plugins:")
	for _, kind := range []string{"Volume", "Network", "Authorization", "Log"} {
		if kind == "Authorization" && len(i.Plugins[kind]) == 0 {
			continue
		}
		p(" %s: %s", kind, strings.Join(i.Plugins[kind], " "))
	}
	if i.Swarm.LocalNodeState != "" {
		p("Swarm: %s", i.Swarm.LocalNodeState)
	}
	var runtimes []string
	for name := range i.Runtimes {
		runtimes = append(runtimes, name)
	}
	sort.Strings(runtimes)
	text("Runtimes", strings.Join(runtimes, " "))
	text("Default Runtime", i.DefaultRuntime)
	text("Init Binary", i.InitBinary)
	text("containerd version", i.ContainerdCommit.ID)
	text("runc version", i.RuncCommit.ID)
	text("init version", i.InitCommit.ID)
	if len(i.SecurityOptions) > 0 {
		p("Security Options:")
		for _, s := range i.SecurityOptions {
			for n, field := range strings.Split(s, ",") {
				key, v, _ := strings.Cut(field, "=")
				switch {
				case n == 0:
					p(" %s", v)
				default:
					p("  %s: %s", strings.ToUpper(key[:1])+key[1:], v)
				}
			}
		}
	}
	text("Kernel Version", i.KernelVersion)
	text("Operating System", i.OperatingSystem)
	text("OSType", i.OSType)
	text("Architecture", i.Architecture)
	p("CPUs: %d", i.NCPU)
	p("Total Memory: %s", units.BytesSize(float64(i.MemTotal)))
	text("Name", i.Name)
	text("ID", i.ID)
	text("Docker Root Dir", i.DockerRootDir)
	p("Debug Mode: %v", i.Debug)
	a.printInfoRest(i, p, text)
}

func (a *App) printInfoRest(i *engineInfo, p func(string, ...any), text func(label, v string)) {
	if i.Debug {
		p(" File Descriptors: %d", i.NFd)
		p(" Goroutines: %d", i.NGoroutines)
		p(" System Time: %s", i.SystemTime)
		p(" EventsListeners: %d", i.NEventsListener)
	}
	text("HTTP Proxy", i.HTTPProxy)
	text("HTTPS Proxy", i.HTTPSProxy)
	text("No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		p("Labels:")
		for _, l := range i.Labels {
			p(" %s", l)
		}
	}
	p("Experimental: %v", i.ExperimentalBuild)
	if r := i.RegistryConfig; r != nil {
		var insecure []string
		for _, c := range r.IndexConfigs {
			if !c.Secure {
				insecure = append(insecure, c.Name)
			}
		}
		sort.Strings(insecure)
		insecure = append(insecure, r.InsecureRegistryCIDRs...)
		if len(insecure) > 0 {
			p("Insecure Registries:")
			for _, x := range insecure {
				p(" %s", x)
			}
		}
		if len(r.Mirrors) > 0 {
			p("Registry Mirrors:")
			for _, m := range r.Mirrors {
				p(" %s", m)
			}
		}
	}
	p("Live Restore Enabled: %v", i.LiveRestoreEnabled)
	if len(i.DefaultAddressPools) > 0 {
		p("Default Address Pools:")
		for _, pool := range i.DefaultAddressPools {
			p("  Base: %s, Size: %d", pool.Base, pool.Size)
		}
	}
	fmt.Fprintln(a.Out)
	for _, w := range i.Warnings {
		fmt.Fprintln(a.Err, w)
	}
}
