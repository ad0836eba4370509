package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"

	"skiff/api"
	"skiff/container"
	"skiff/daemon/config"
	"skiff/db"
	"skiff/event"
	"skiff/image"
	"skiff/internal/errs"
	"skiff/internal/version"
	"skiff/layer"
	"skiff/network"
	"skiff/network/ipam"
	"skiff/registry/remote"
	"skiff/runtime/cgroup"
	"skiff/runtime/seccomp"
)

// services are the parts of the daemon, each wired to its collaborators.
type services struct {
	events     *event.Bus
	registry   *remote.Client
	layers     *layer.Store
	images     *image.Service
	networks   *network.Manager
	containers *container.Manager
	system     *system
}

// build makes the services, from those that need nobody to those that need all.
func (e *engine) build(ctx context.Context, cfg *config.Config) (*services, error) {
	s := &services{events: event.New(e.log)}
	cgroups, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	if s.registry, err = remote.New(registryOptions(cfg)); err != nil {
		return nil, err
	}
	s.registryClose(e)
	if s.layers, err = layer.Open(ctx, cfg.DataRoot, layer.Options{Logger: e.log, Fetches: cfg.MaxDownloads}); err != nil {
		return nil, err
	}
	e.onClose(s.layers.Close)
	s.images, err = image.New(ctx, image.Options{Store: s.layers, Registry: s.registry, Events: s.events, InUse: s.usersOf, Logger: e.log})
	if err != nil {
		return nil, err
	}
	if s.networks, err = network.New(ctx, e.networkConfig(cfg)); err != nil {
		return nil, err
	}
	e.onClose(func() error { return s.networks.Close(context.Background()) })
	if err := e.buildContainers(ctx, cfg, s, cgroups); err != nil {
		return nil, err
	}
	id, err := engineID(cfg.DataRoot)
	if err != nil {
		return nil, err
	}
	s.system = &system{cfg: e.cfg.Load, containers: s.containers, images: s.images, listeners: s.events.Subscribers, cgroups: cgroups, id: id}
	return s, nil
}

func (s *services) registryClose(e *engine) {
	e.onClose(func() error { s.registry.Close(); return nil })
}

func registryOptions(cfg *config.Config) remote.Options {
	return remote.Options{
		Mirrors: cfg.Mirrors, Insecure: cfg.Insecure, Attempts: cfg.MaxAttempts, UserAgent: "skiff/" + version.Version,
	}
}

func (e *engine) buildContainers(ctx context.Context, cfg *config.Config, s *services, cgroups cgroup.Host) error {
	durable, err := db.Open(filepath.Join(cfg.DataRoot, "skiff.db"), db.Options{})
	if err != nil {
		return err
	}
	e.onClose(durable.Close)
	state, err := db.Open(filepath.Join(cfg.ExecRoot, "state.db"), db.Options{NoSync: true, Epoch: bootID()})
	if err != nil {
		return err
	}
	e.onClose(state.Close)
	profile, err := seccompProfile(cfg.Seccomp)
	if err != nil {
		return err
	}
	native, err := container.NewNative(container.NativeConfig{
		Cgroups: cgroups, CgroupParent: cgroupParent(cfg), InitPath: initProgram(cfg), Seccomp: profile, Log: e.log,
	})
	if err != nil {
		return err
	}
	s.containers, err = container.New(ctx, container.Config{
		Root:     filepath.Join(cfg.DataRoot, "containers"),
		Durable:  durable,
		State:    state,
		Images:   s.images,
		Layers:   s.layers,
		Networks: s.networks,
		Keeper:   e.keeper,
		Exits:    e.keeper.Exits(),
		Runtime:  native,
		Events:   s.events,
		Defaults: container.Defaults{
			Log:          apicontainer.LogConfig{Type: cfg.LogDriver, Config: cfg.LogOpts},
			CgroupnsMode: apicontainer.CgroupnsMode(cfg.CgroupnsMode),
			Init:         cfg.Init,
			ShmSize:      int64(cfg.ShmSize),
			Ulimits:      cfg.Ulimits.List(),
		},
		Log: e.log,
	})
	if err != nil {
		return err
	}
	e.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
		defer cancel()
		return s.containers.Close(ctx)
	})
	return nil
}

// cgroupParent is the group that all containers' groups are made in.
func cgroupParent(cfg *config.Config) string {
	if cfg.CgroupParent != "" {
		return cfg.CgroupParent
	}
	if tag := instance(cfg.ExecRoot); tag != "" {
		return "/skiff-" + tag
	}
	return "/skiff"
}

// seccompProfile gives the configured profile the form that containers know: its text instead of its path.
func seccompProfile(configured string) (string, error) {
	if !filepath.IsAbs(configured) {
		return configured, nil
	}
	b, err := os.ReadFile(configured)
	if err != nil {
		return "", errs.New(errs.Invalid, "seccomp-profile: %w", err)
	}
	if _, err := seccomp.Custom(string(b), nil); err != nil {
		return "", errs.New(errs.Invalid, "seccomp-profile %s: %w", configured, err)
	}
	return string(b), nil
}

// initProgram is what --init runs in a container.
func initProgram(cfg *config.Config) string {
	if cfg.InitPath != "" {
		return cfg.InitPath
	}
	self, err := os.Executable()
	if err != nil {
		return "skiff-init"
	}
	return filepath.Join(filepath.Dir(self), "skiff-init")
}

// usersOf lists the containers of an image.
func (s *services) usersOf(id digest.Digest) []image.Use {
	if s.containers == nil { // the image store is being opened, before the containers
		return nil
	}
	running, others := s.containers.Users(id.String())
	uses := make([]image.Use, 0, len(running)+len(others))
	for _, c := range running {
		uses = append(uses, image.Use{ContainerID: c, Running: true})
	}
	for _, c := range others {
		uses = append(uses, image.Use{ContainerID: c})
	}
	return uses
}

func (e *engine) networkConfig(cfg *config.Config) network.Config {
	c := network.Config{
		Instance:     instance(cfg.ExecRoot),
		StateDir:     filepath.Join(cfg.DataRoot, "network"),
		Bridge:       cfg.Bridge,
		BIP:          cfg.BIP.Prefix,
		FixedCIDR:    cfg.FixedCIDR.Prefix,
		MTU:          cfg.MTU,
		HostIP:       cfg.HostIP.Addr,
		HostGateways: cfg.HostGateways,
		NoICC:        !cfg.ICC,
		NoMasquerade: !cfg.IPMasq,
		NoForward:    !cfg.IPForward,
		DNS:          cfg.DNS,
		DNSSearch:    cfg.DNSSearch,
		DNSOptions:   cfg.DNSOpts,
		Log:          e.log,
	}
	for _, p := range cfg.Pools {
		c.Pools = append(c.Pools, ipam.Pool{Base: p.Base, Size: p.Size})
	}
	return c
}

// engineID is a name for this daemon that stays: made once, kept in the data root.
func engineID(dataRoot string) (string, error) {
	path := filepath.Join(dataRoot, "engine-id")
	if b, err := os.ReadFile(path); err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	if err := os.WriteFile(path+".new", []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the engine's id: %w", err)
	}
	return id, os.Rename(path+".new", path)
}

// apiConfig gives the API its services.
func (e *engine) apiConfig() api.Config {
	return api.Config{
		Containers: e.containers,
		Execs:      e.containers,
		Images:     e.images,
		Networks:   e.networks,
		Events:     e.services.events,
		System:     e.system,
		Login:      login{e.registry},
		Log:        e.log,
		Product:    "skiff-" + version.Version,
		CgroupV2:   e.system.cgroups.Version() == 2,
	}
}

// login adapts the registry's client to the API.
type login struct{ registry *remote.Client }

func (l login) Login(ctx context.Context, address string, cred image.Credentials) (string, error) {
	return "", l.registry.Login(ctx, address, remote.Credentials(cred))
}

// applyReload carries a new configuration into the services that do not ask for it each time.
func (e *engine) applyReload(cfg *config.Config) error {
	return e.registry.SetPeers(cfg.Mirrors, cfg.Insecure)
}

// publishReload tells of a reload, with what is in force now.
func (e *engine) publishReload(cfg *config.Config) {
	e.services.events.Publish(events.Message{
		Type: events.DaemonEventType, Action: events.ActionReload,
		Actor: events.Actor{ID: e.system.id, Attributes: map[string]string{
			"name":                     uname().node,
			"debug":                    fmt.Sprint(cfg.Debug),
			"labels":                   fmt.Sprintf("%q", cfg.Labels),
			"live-restore":             fmt.Sprint(cfg.LiveRestore),
			"max-concurrent-downloads": fmt.Sprint(cfg.MaxDownloads),
			"registry-mirrors":         fmt.Sprintf("%q", cfg.Mirrors),
			"insecure-registries":      fmt.Sprintf("%q", cfg.Insecure),
			"shutdown-timeout":         fmt.Sprint(cfg.ShutdownTimeout),
		}},
	})
}

// clearHost removes what no container needs any more: the bridge, the firewall table, the empty control groups.
func (e *engine) clearHost(ctx context.Context) {
	err := e.networks.Destroy(ctx)
	if err = errors.Join(err, removeGroups(e.system.cgroups, cgroupParent(e.cfg.Load()))); err != nil {
		e.log.Warn("clearing the host", "error", err)
	}
}
