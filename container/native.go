package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strconv"
	"sync"

	api "github.com/moby/moby/api/types/container"

	"skiff/internal/errs"
	"skiff/runtime"
	"skiff/runtime/cgroup"
	"skiff/runtime/seccomp"
	"skiff/runtime/spec"
)

// NativeConfig is what the runtime of this program needs to know.
type NativeConfig struct {
	Cgroups cgroup.Host
	// CgroupParent is where containers' groups are made that name no other parent; "" : spec.DefaultCgroupParent.
	CgroupParent string
	InitPath     string // program that --init runs
	Seccomp      string // of containers that name no profile: "" (the builtin one), "unconfined" or the text of a profile
	Log          *slog.Logger
}

// Native is the runtime of this program: it implements Runtime with launch programs.
type Native struct {
	cfg      NativeConfig
	kernel   spec.Kernel
	profiles *seccomp.Profiles
	filters  *seccomp.Cache
	// base is the mount namespace that containers start from; nil where the kernel can't make one. The first caller waits
	// for the making that NewNative began.
	base func() *os.File
}

// NewNative looks at the kernel.
func NewNative(cfg NativeConfig) (*Native, error) {
	if cfg.CgroupParent == "" {
		cfg.CgroupParent = spec.DefaultCgroupParent
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	k, err := spec.DetectKernel(cfg.Cgroups)
	if err != nil {
		return nil, fmt.Errorf("look at the kernel: %w", err)
	}
	n := &Native{cfg: cfg, kernel: k, profiles: &seccomp.Profiles{Configured: cfg.Seccomp}, filters: &seccomp.Cache{}}
	n.base = sync.OnceValue(func() *os.File {
		f, err := runtime.NewBase()
		if err != nil {
			cfg.Log.Warn("containers start from a copy of the host's mounts, which is slower", "error", err)
		}
		return f
	})
	go n.base()
	return n, nil
}

// CgroupnsMode implements Runtime.
func (n *Native) CgroupnsMode() api.CgroupnsMode {
	if n.kernel.CgroupVersion == 2 {
		return api.CgroupnsModePrivate
	}
	return api.CgroupnsModeHost
}

// Validate implements Runtime.
func (n *Native) Validate(c *api.Config, h *api.HostConfig) ([]string, error) {
	return spec.Validate(c, h, n.kernel)
}

// NewGroup implements Runtime.
func (n *Native) NewGroup(_ context.Context, id string, h *api.HostConfig) (Group, error) {
	r, err := spec.Resources(h, &n.kernel)
	if err != nil {
		return nil, err
	}
	g, warnings, err := n.cfg.Cgroups.Create(spec.CgroupsPath(h, n.cfg.CgroupParent, id), r)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings { // told at create; here is what the probe could not know
		n.cfg.Log.Debug("a limit is not given", "container", shortID(id), "warning", w)
	}
	return g, nil
}

// FindGroup implements Runtime.
func (n *Native) FindGroup(id string, h *api.HostConfig) (Group, error) {
	g, err := n.cfg.Cgroups.Open(spec.CgroupsPath(h, n.cfg.CgroupParent, id))
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Groups implements Runtime.
func (n *Native) Groups(context.Context) ([]string, error) {
	return n.cfg.Cgroups.List(path.Join("/", n.cfg.CgroupParent))
}

// Container implements Runtime.
func (n *Native) Container(_ context.Context, in ContainerProcess) (*Program, error) {
	if err := spec.MakeBindSources(in.HostConfig); err != nil {
		return nil, err
	}
	s, warnings, err := spec.Build(spec.Input{
		ID: in.ID, Config: in.Config, HostConfig: in.HostConfig, CgroupParent: n.cfg.CgroupParent, Kernel: n.kernel, Profiles: n.profiles, Root: in.Root,
		Hosts: in.Hosts, Hostname: in.Hostname, ResolvConf: in.ResolvConf, Init: in.Init, InitPath: n.cfg.InitPath,
		JoinPID: in.JoinPID, JoinIPC: in.JoinIPC, NetNS: in.NetNS != nil,
	})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		n.cfg.Log.Debug("a setting is not honoured", "container", shortID(in.ID), "warning", w)
	}
	a, err := runtime.Container(runtime.ContainerInput{
		Spec: s, Root: in.Root, NetNS: in.NetNS, Cgroup: native(in.Group), Base: n.base(), Filters: n.filters,
		Stdio: runtime.Stdio{In: in.Stdio.In, Out: in.Stdio.Out, Err: in.Stdio.Err}, DevPTS: in.Stdio.DevPTS,
	})
	if err != nil {
		return nil, err
	}
	return pack(a)
}

// Exec implements Runtime.
func (n *Native) Exec(_ context.Context, in ExecProcess) (*Program, error) {
	root, err := os.OpenFile("/proc/"+strconv.Itoa(in.PID)+"/root", pathOnly, 0)
	if err != nil {
		return nil, errs.New(errs.Conflict, "container %s is not running: %w", in.ContainerID, err)
	}
	defer root.Close()
	p, err := spec.ExecProcess(spec.ExecInput{
		Config: in.Config, HostConfig: in.HostConfig, Request: in.Request, Kernel: n.kernel, Root: root,
	})
	if err != nil {
		return nil, err
	}
	filter, err := spec.Seccomp(in.HostConfig, &n.kernel, n.profiles)
	if err != nil {
		return nil, err
	}
	a, err := runtime.Exec(runtime.ExecInput{
		Process: p, Seccomp: filter, PID: in.PID, PIDFD: in.PIDFD, Cgroup: native(in.Group), Filters: n.filters,
		Stdio: runtime.Stdio{In: in.Stdio.In, Out: in.Stdio.Out, Err: in.Stdio.Err},
	})
	if err != nil {
		return nil, err
	}
	return pack(a)
}

// native gives our own kind of group back, nil for none.
func native(g Group) *cgroup.Cgroup {
	c, _ := g.(*cgroup.Cgroup)
	return c
}

func pack(a *runtime.Assembly) (*Program, error) {
	data, err := a.Program.MarshalBinary()
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("encode the launch program: %w", err)
	}
	return &Program{Binary: data, Files: a.Files, Close: a.Close}, nil
}

// noGroup is that of a container which has none: no cgroup is mounted, or somebody removed it.
type noGroup struct{}

var errNoGroup = errs.New(errs.NotImplemented, "the container has no control group")

func (noGroup) Procs() ([]int, error)        { return nil, nil }
func (noGroup) OOMKilled() (bool, error)     { return false, nil }
func (noGroup) Freeze(context.Context) error { return errNoGroup }
func (noGroup) Thaw(context.Context) error   { return errNoGroup }
func (noGroup) Kill(context.Context) error   { return nil }
func (noGroup) Remove(context.Context) error { return nil }

// findGroup is FindGroup for a container whose group may be missing.
func (m *Manager) findGroup(o *object) Group {
	g, err := m.cfg.Runtime.FindGroup(o.id, o.def().HostConfig)
	if err == nil {
		return g
	}
	m.warn("find the control group", o.id, err)
	return noGroup{}
}

var errNoTerminal = errors.New("the container has no devpts")
