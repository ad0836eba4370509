package spec

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const defaultShmSize = 64 << 20

// defaultMounts are the file systems of every container, in the order in which they are mounted.
func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
}

// mounts fills in the mounts of a specification, and how the root takes part in propagation.
func (b *builder) mounts() error {
	h := b.in.HostConfig
	users, err := userMounts(h)
	if err != nil {
		return err
	}
	taken := make(map[string]bool, len(users))
	var list []specs.Mount
	for i := range users {
		m, err := users[i].oci(&b.in.Kernel)
		if err != nil {
			return err
		}
		taken[m.Destination] = true
		list = append(list, m)
		b.propagate(string(users[i].propagation))
	}
	for _, m := range b.ownMounts() {
		if !taken[m.Destination] {
			list = append(list, m)
		}
	}
	// A mount comes after those that it lies in.
	slices.SortStableFunc(list, func(x, y specs.Mount) int {
		return cmp.Compare(strings.Count(x.Destination, "/"), strings.Count(y.Destination, "/"))
	})
	base := slices.DeleteFunc(defaultMounts(), func(m specs.Mount) bool {
		return taken[m.Destination] || taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/") ||
			m.Type == "cgroup" && !b.in.Kernel.Cgroup.Any // nothing to be shown
	})
	b.spec.Mounts = append(base, list...)
	b.access(taken)
	return nil
}

// propagate lets the root pass mounts on, if a bind wants to: it gets no more than its root has.
func (b *builder) propagate(p string) {
	switch strings.TrimPrefix(p, "r") {
	case "shared":
		b.spec.Linux.RootfsPropagation = "shared"
	case "slave":
		if b.spec.Linux.RootfsPropagation == "" {
			b.spec.Linux.RootfsPropagation = "rslave"
		}
	}
}

// ownMounts are /dev/shm, the files of /etc and the init program.
func (b *builder) ownMounts() []specs.Mount {
	h := b.in.HostConfig
	var out []specs.Mount
	switch {
	case h.IpcMode.IsNone():
	case h.IpcMode.IsHost():
		out = append(out, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}})
	case h.IpcMode.IsContainer():
		// In the mount namespace of that process.
		source := fmt.Sprintf("/proc/%d/root/dev/shm", b.in.JoinIPC)
		out = append(out, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: source, Options: []string{"rbind", "rprivate"}})
	default:
		size := h.ShmSize
		if size == 0 {
			size = defaultShmSize
		}
		out = append(out, specs.Mount{
			Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)},
		})
	}
	for _, f := range []struct{ source, target string }{
		{b.in.ResolvConf, "/etc/resolv.conf"}, {b.in.Hostname, "/etc/hostname"}, {b.in.Hosts, "/etc/hosts"},
	} {
		if f.source == "" {
			continue
		}
		m := specs.Mount{Destination: f.target, Type: "bind", Source: f.source, Options: []string{"rbind", "rprivate"}}
		if h.ReadonlyRootfs {
			m.Options = append(m.Options, "ro")
		}
		out = append(out, m)
	}
	if b.init() {
		out = append(out, specs.Mount{Destination: initTarget, Type: "bind", Source: b.in.InitPath, Options: []string{"bind", "ro"}})
	}
	return out
}

// access makes mounts read-only or writable, as a read-only root and privileges want it.
func (b *builder) access(taken map[string]bool) {
	h := b.in.HostConfig
	for i := range b.spec.Mounts {
		m := &b.spec.Mounts[i]
		if taken[m.Destination] {
			continue
		}
		writable := false
		switch m.Destination {
		case "/sys":
			writable = h.Privileged
		case "/sys/fs/cgroup":
			writable = h.Privileged
			if w := b.sec.writableCgroups; w != nil {
				writable = *w
			}
		}
		keeps := slices.Contains([]string{"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"}, m.Destination)
		ro := slices.Contains(m.Options, "ro")
		switch {
		case writable && ro:
			m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		case h.ReadonlyRootfs && !writable && !keeps && !ro:
			m.Options = append(m.Options, "ro")
		}
	}
}

// Docker's defaults for what is hidden, or can't be written, under /proc and /sys.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func (b *builder) paths() {
	h := b.in.HostConfig
	if h.Privileged {
		return
	}
	l := b.spec.Linux
	if l.MaskedPaths = slices.Clone(h.MaskedPaths); h.MaskedPaths == nil {
		l.MaskedPaths = slices.Clone(maskedPaths)
	}
	if len(l.MaskedPaths) > 0 { // an empty list asks for none at all (systempaths=unconfined)
		l.MaskedPaths = append(l.MaskedPaths, b.in.Kernel.Thermal...)
	}
	if l.ReadonlyPaths = slices.Clone(h.ReadonlyPaths); h.ReadonlyPaths == nil {
		l.ReadonlyPaths = slices.Clone(readonlyPaths)
	}
	for _, list := range []*[]string{&l.MaskedPaths, &l.ReadonlyPaths} {
		for i := range *list {
			(*list)[i] = path.Clean((*list)[i])
		}
	}
}
