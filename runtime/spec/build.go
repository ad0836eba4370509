package spec

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
	"skiff/runtime/seccomp"
)

// Input is everything that a specification is made of.
type Input struct {
	ID         string
	Config     *container.Config     // merged with the image's
	HostConfig *container.HostConfig // defaults filled in
	Kernel     Kernel
	Profiles   *seccomp.Profiles // remembered seccomp profiles; nil: made anew

	// Root is a descriptor of the container's root folder (a detached mount will do), for its passwd and group files.
	Root *os.File
	// RootPath is where the root can be found by name; "" if only the descriptor exists.
	RootPath string

	// Host paths of the files for /etc; "" for none.
	Hosts, Hostname, ResolvConf string

	// CgroupParent is where control groups are unless HostConfig says otherwise; "" is DefaultCgroupParent.
	CgroupParent string

	// Init asks for an init process; InitPath is the program on the host.
	Init     bool
	InitPath string

	// Processes whose namespaces are joined, in our pid namespace, where the modes say "container:".
	JoinPID, JoinIPC, JoinNet int
	// NetNS says that the network namespace is handed to the launch ready (runtime.ContainerInput.NetNS): the net.*
	// sysctls were set by its maker.
	NetNS bool
}

// initTarget is where Docker puts the init program.
const initTarget = "/sbin/docker-init"

type builder struct {
	in   *Input
	spec *specs.Spec
	sec  *security
	warn []string
}

// Build makes the OCI specification of a container. The seccomp profile in it may be shared with other specifications.
// The warnings are for the log. Errors of class Invalid are the user's, NotImplemented ones name what is missing.
func Build(in Input) (*specs.Spec, []string, error) {
	if in.Config == nil || in.HostConfig == nil {
		return nil, nil, errs.New(errs.Invalid, "a container needs a configuration")
	}
	b := &builder{in: &in, spec: &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: in.RootPath, Readonly: in.HostConfig.ReadonlyRootfs},
		Linux:   &specs.Linux{CgroupsPath: CgroupsPath(in.HostConfig, in.CgroupParent, in.ID)},
	}}
	if err := unsupported(in.HostConfig); err != nil {
		return nil, nil, err
	}
	var err error
	if b.sec, b.warn, err = parseSecurity(in.HostConfig.SecurityOpt, &in.Kernel); err != nil {
		return nil, nil, err
	}
	b.paths()
	for _, step := range []func() error{b.process, b.namespaces, b.mounts, b.resources, b.sysctls} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	b.spec.Annotations = maps.Clone(in.HostConfig.Annotations)
	return b.spec, b.warn, nil
}

// init says whether an init process is run; with another's pid namespace there is one already.
func (b *builder) init() bool {
	return b.in.Init && b.in.InitPath != "" && b.in.HostConfig.PidMode.IsPrivate()
}

func (b *builder) process() error {
	c, h := b.in.Config, b.in.HostConfig
	a, err := resolveUser(b.in.Root, c.User, h.GroupAdd)
	if err != nil {
		return err
	}
	p, err := process(c, h, &b.in.Kernel, b.sec, a)
	if err != nil {
		return err
	}
	p.Terminal = c.Tty
	if c.Tty {
		p.ConsoleSize = box(h.ConsoleSize)
	}
	if b.init() {
		p.Args = append(p.Args, initTarget, "--")
	}
	p.Args = append(append(p.Args, c.Entrypoint...), c.Cmd...)
	if len(c.Entrypoint)+len(c.Cmd) == 0 {
		return errs.New(errs.Invalid, "no command specified")
	}
	p.Env = environment(c, c.Tty, c.Env, a.home)
	caps, err := capabilities(h.CapAdd, h.CapDrop, h.Privileged, &b.in.Kernel)
	if err != nil {
		return err
	}
	p.Capabilities = ociCaps(caps)
	b.spec.Process = p
	b.spec.Linux.Seccomp, err = b.sec.profile(h.Privileged, caps, b.in.Profiles)
	return err
}

func (b *builder) namespaces() error {
	h := b.in.HostConfig
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	join := func(kind specs.LinuxNamespaceType, host, shared bool, pid int, file string) error {
		switch {
		case host:
		case !shared:
			ns = append(ns, specs.LinuxNamespace{Type: kind})
		case pid <= 0:
			return errs.New(errs.Invalid, "the %s namespace of another container is to be joined, but its process is not known", kind)
		default:
			ns = append(ns, specs.LinuxNamespace{Type: kind, Path: fmt.Sprintf("/proc/%d/ns/%s", pid, file)})
		}
		return nil
	}
	n := h.NetworkMode
	if err := join(specs.NetworkNamespace, n.IsHost(), n.IsContainer() && !b.in.NetNS, b.in.JoinNet, "net"); err != nil {
		return err
	}
	if err := join(specs.IPCNamespace, h.IpcMode.IsHost(), h.IpcMode.IsContainer(), b.in.JoinIPC, "ipc"); err != nil {
		return err
	}
	if err := join(specs.PIDNamespace, h.PidMode.IsHost(), h.PidMode.IsContainer(), b.in.JoinPID, "pid"); err != nil {
		return err
	}
	if !h.UTSMode.IsHost() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.UTSNamespace})
		b.spec.Hostname, b.spec.Domainname = b.in.Config.Hostname, b.in.Config.Domainname
	}
	if b.privateCgroup() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	b.spec.Linux.Namespaces = ns
	return nil
}

// privateCgroup: what the user says; else on v2 yes, and on v1 no.
func (b *builder) privateCgroup() bool {
	m := b.in.HostConfig.CgroupnsMode
	if m.IsEmpty() {
		return b.in.Kernel.CgroupVersion == 2
	}
	return m.IsPrivate()
}

func (b *builder) resources() error {
	h := b.in.HostConfig
	r, err := limits(&h.Resources)
	if err != nil {
		return err
	}
	r, _ = b.in.Kernel.Cgroup.Filter(r) // Validate has warned
	nodes, rules, warn, err := devices(h)
	if err != nil {
		return err
	}
	r.Devices = rules
	b.spec.Linux.Devices, b.spec.Linux.Resources = nodes, r
	b.warn = append(b.warn, warn...)
	return nil
}

func (b *builder) sysctls() error {
	h := b.in.HostConfig
	if err := checkSysctls(h); err != nil {
		return err
	}
	for _, k := range sortedKeys(h.Sysctls) {
		if b.in.NetNS && strings.HasPrefix(k, "net.") {
			continue
		}
		if b.spec.Linux.Sysctl == nil {
			b.spec.Linux.Sysctl = map[string]string{}
		}
		b.spec.Linux.Sysctl[k] = h.Sysctls[k]
	}
	return nil
}

// ipcSysctls belong to an IPC namespace, as does fs.mqueue.*.
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// checkSysctls lets those pass that belong to a namespace which the container has for itself.
func checkSysctls(h *container.HostConfig) error {
	for _, k := range sortedKeys(h.Sysctls) {
		key := strings.ReplaceAll(k, "/", ".")
		switch {
		case k == "" || strings.ContainsAny(k, "\x00") || slices.Contains(strings.Split(key, "."), ""):
			return errs.New(errs.Invalid, "sysctl %q is not a name", k)
		case strings.HasPrefix(key, "net."):
			if h.NetworkMode.IsHost() {
				return errs.New(errs.Invalid, "sysctl %q not allowed in host network namespace", k)
			}
			if h.NetworkMode.IsContainer() {
				return errs.New(errs.Invalid, "sysctl %q not allowed in the network namespace of another container", k)
			}
		case slices.Contains(ipcSysctls, key) || strings.HasPrefix(key, "fs.mqueue."):
			if h.IpcMode.IsHost() {
				return errs.New(errs.Invalid, "sysctl %q is not allowed in the hosts ipc namespace", k)
			}
		case key == "kernel.domainname":
			if h.UTSMode.IsHost() {
				return errs.New(errs.Invalid, "sysctl %q is not allowed in the hosts uts namespace", k)
			}
		case key == "kernel.hostname":
			return errs.New(errs.Invalid, "sysctl %q is not allowed as it conflicts with the OCI \"hostname\" field", k)
		default:
			return errs.New(errs.Invalid, "sysctl %q is not in a separate kernel namespace", k)
		}
	}
	return nil
}
