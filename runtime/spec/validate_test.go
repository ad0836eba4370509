package spec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
)

func TestValidate(t *testing.T) {
	res := func(r container.Resources) container.HostConfig { return container.HostConfig{Resources: r} }
	bind := func(b ...string) container.HostConfig { return container.HostConfig{Binds: b} }
	mnt := func(m mount.Mount) container.HostConfig { return container.HostConfig{Mounts: []mount.Mount{m}} }
	sys := func(k string, h container.HostConfig) container.HostConfig {
		h.Sysctls = map[string]string{k: "1"}
		return h
	}
	for _, c := range []struct {
		h    container.HostConfig
		want string // a part of the error; "" for none
	}{
		{container.HostConfig{}, ""},
		{res(container.Resources{Memory: 4 << 20}), "Minimum memory limit allowed is 6MB"},
		{res(container.Resources{Memory: 6 << 20}), ""},
		{res(container.Resources{Memory: 8 << 20, MemorySwap: 7 << 20}), "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{res(container.Resources{MemorySwap: 7 << 20}), "You should always set the Memory limit when using Memoryswap limit, see usage"},
		{res(container.Resources{Memory: 8 << 20, MemorySwap: -1}), ""},
		{res(container.Resources{MemorySwap: -2}), "memory swap"},
		{res(container.Resources{MemorySwappiness: ptr(int64(101))}), "Invalid value: 101, valid memory swappiness range is 0-100"},
		{res(container.Resources{MemorySwappiness: ptr(int64(-1))}), ""},
		{res(container.Resources{MemoryReservation: 1}), "Minimum memory reservation allowed is 6MB"},
		{res(container.Resources{Memory: 8 << 20, MemoryReservation: 9 << 20}), "Minimum memory limit can not be less than memory reservation limit, see usage"},
		{res(container.Resources{NanoCPUs: 1e9, CPUPeriod: 1000}), "Conflicting options: Nano CPUs and CPU Period cannot both be set"},
		{res(container.Resources{NanoCPUs: 1e9, CPUQuota: 1000}), "Conflicting options: Nano CPUs and CPU Quota cannot both be set"},
		{res(container.Resources{NanoCPUs: 3e9}), "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"},
		{res(container.Resources{NanoCPUs: 2e9}), ""},
		{res(container.Resources{NanoCPUs: 1e6}), "range of CPUs"},
		{res(container.Resources{CPUPeriod: 10}), "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"},
		{res(container.Resources{CPUQuota: 10}), "CPU cfs quota can not be less than 1ms (i.e. 1000)"},
		{res(container.Resources{CPUQuota: -1}), ""},
		{res(container.Resources{CPUShares: -1}), "invalid CPU shares (-1): value must be a positive integer"},
		{res(container.Resources{CpusetCpus: "0-2"}), "Requested CPUs are not available - requested 0-2, available: 0-1"},
		{res(container.Resources{CpusetCpus: "1-0"}), "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"},
		{res(container.Resources{CpusetCpus: "0-99999999"}), "out range"},
		{res(container.Resources{CpusetMems: "1"}), "Requested memory nodes are not available - requested 1, available: 0"},
		{res(container.Resources{BlkioWeight: 5}), "Range of blkio weight is from 10 to 1000"},
		{res(container.Resources{BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/x", Weight: 5}}}), "Range of blkio weight is from 10 to 1000"},
		{res(container.Resources{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{Path: "/dev/null", Rate: 5}}}), "/dev/null is not a block device"},
		{res(container.Resources{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{Path: "/no/such", Rate: 5}}}), "no such file"},
		{res(container.Resources{Ulimits: []*container.Ulimit{{Name: "nofile", Soft: 3, Hard: 2}}}), "ulimit soft limit must be less than or equal to hard limit: 3 > 2"},
		{res(container.Resources{Ulimits: []*container.Ulimit{{Name: "nope"}}}), "invalid ulimit name nope"},
		{res(container.Resources{DeviceCgroupRules: []string{"x"}}), "invalid device cgroup rule format: 'x'"},
		{bind("/a:/b"), ""},
		{bind("/a"), "anonymous volumes"},
		{bind("a:/b"), "named volumes"},
		{bind("/a:b"), "invalid mount path: 'b' mount path must be absolute"},
		{bind("/a:/"), "destination can't be '/'"},
		{bind("/a:/b", "/c:/b/"), "Duplicate mount point: /b"},
		{bind("/a:/b:ro,rw"), "invalid mode: ro,rw"},
		{bind("/a:/b:nocopy"), "invalid mode: nocopy"},
		{bind("/a:/b:c:d"), "invalid volume specification: '/a:/b:c:d'"},
		{bind(":/b"), "invalid volume specification: ':/b'"},
		{mnt(mount.Mount{Type: mount.TypeBind, Source: "/no/such", Target: "/x"}), `invalid mount config for type "bind": bind source path does not exist: /no/such`},
		{mnt(mount.Mount{Type: mount.TypeBind, Source: "/tmp", Target: "/x"}), ""},
		{mnt(mount.Mount{Type: mount.TypeBind, Source: "tmp", Target: "/x"}), "must be absolute"},
		{mnt(mount.Mount{Type: mount.TypeBind, Target: "/x"}), "field Source must not be empty"},
		{mnt(mount.Mount{Type: mount.TypeBind, Source: "/tmp"}), "field Target must not be empty"},
		{mnt(mount.Mount{Type: mount.TypeVolume, Source: "v", Target: "/x"}), "mounts of type volume"},
		{mnt(mount.Mount{Type: mount.TypeImage, Source: "v", Target: "/x"}), "mounts of type image"},
		{mnt(mount.Mount{Type: "odd", Target: "/x"}), "mount type unknown"},
		{mnt(mount.Mount{Type: mount.TypeTmpfs, Target: "/x", Source: "a"}), "field Source must not be specified"},
		{mnt(mount.Mount{Type: mount.TypeTmpfs, Target: "/x", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"odd"}}}}), `invalid tmpfs option "odd"`},
		{container.HostConfig{Tmpfs: map[string]string{"/x": "size=1m,exec"}}, ""},
		{container.HostConfig{Tmpfs: map[string]string{"/x": "upper=/"}}, `invalid tmpfs option "upper=/"`},
		{container.HostConfig{Tmpfs: map[string]string{"x": ""}}, "must be absolute"},
		{sys("net.core.somaxconn", container.HostConfig{}), ""},
		{sys("net.core.somaxconn", container.HostConfig{NetworkMode: "host"}), `sysctl "net.core.somaxconn" not allowed in host network namespace`},
		{sys("net.core.somaxconn", container.HostConfig{NetworkMode: "container:x"}), "another container"},
		{sys("kernel.shmmax", container.HostConfig{IpcMode: "host"}), `sysctl "kernel.shmmax" is not allowed in the hosts ipc namespace`},
		{sys("kernel.domainname", container.HostConfig{UTSMode: "host"}), "hosts uts namespace"},
		{sys("kernel.hostname", container.HostConfig{}), "conflicts"},
		{sys("vm.swappiness", container.HostConfig{}), `sysctl "vm.swappiness" is not in a separate kernel namespace`},
		{sys("net../../vm/swappiness", container.HostConfig{}), "is not a name"},
		{container.HostConfig{SecurityOpt: []string{"odd"}}, `invalid --security-opt 1: "odd"`},
		{container.HostConfig{SecurityOpt: []string{"odd=1"}}, `invalid --security-opt 2: "odd=1"`},
		{container.HostConfig{SecurityOpt: []string{"no-new-privileges=x"}}, "invalid --security-opt 2"},
		{container.HostConfig{SecurityOpt: []string{"no-new-privileges:true", "label=disable", "apparmor=unconfined"}}, ""},
		{container.HostConfig{SecurityOpt: []string{"seccomp={"}}, "seccomp"},
		{container.HostConfig{CapAdd: []string{"x"}}, "unknown capability"},
		{container.HostConfig{IpcMode: "odd"}, "invalid IPC mode: odd"},
		{container.HostConfig{PidMode: "container:"}, "invalid PID mode: container:"},
		{container.HostConfig{UTSMode: "odd"}, "invalid UTS mode: odd"},
		{container.HostConfig{UsernsMode: "odd"}, "invalid userns mode: odd"},
		{container.HostConfig{CgroupnsMode: "odd"}, "invalid cgroup namespace mode: odd"},
		{container.HostConfig{ShmSize: -1}, "SHM size can not be less than 0"},
		{container.HostConfig{OomScoreAdj: 1001}, "invalid value 1001, range for oom score adj is [-1000, 1000]"},
		{container.HostConfig{Umask: ptr(uint32(0o1000))}, "invalid umask"},
	} {
		warn, err := Validate(&container.Config{}, &c.h, testKernel())
		if len(warn) > 0 {
			t.Errorf("%+v: warnings %v", c.h, warn)
		}
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("want %q: %v", c.want, err)
		case err != nil && !errs.Is(err, errs.Invalid) && !errs.Is(err, errs.NotImplemented):
			t.Errorf("class of %v", err)
		}
	}
}

func TestWarnings(t *testing.T) {
	h := &container.HostConfig{Resources: container.Resources{OomKillDisable: ptr(true), BlkioWeight: 100}, SecurityOpt: []string{"apparmor=mine"}}
	k := testKernel()
	k.Cgroup = cgroup.Support{Any: true, OOMDisable: true}
	got, err := Validate(&container.Config{Volumes: map[string]struct{}{"/data": {}}}, h, k)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{
		"Your kernel does not support AppArmor or it is not enabled. AppArmor profile discarded.",
		"Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
		"OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
		"Volumes are not implemented yet: /data is kept in the container's own file system.",
	}, got); d != "" {
		t.Error(d)
	}
	// What was warned of does not reach the specification.
	r, err := Resources(h, &k)
	if err != nil || r.BlockIO.Weight != nil || len(r.Devices) < 10 {
		t.Errorf("%+v %v", r, err)
	}
}

func FuzzParseBind(f *testing.F) {
	f.Add("/a:/b:ro,z,rshared")
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := parseBind(s); err == nil && (!strings.HasPrefix(m.target, "/") || m.target == "/" || !strings.HasPrefix(m.source, "/")) {
			t.Errorf("%q: %+v", s, m)
		}
	})
}

func FuzzTmpfsOptions(f *testing.F) {
	f.Add("ro,size=1m,exec")
	f.Fuzz(func(t *testing.T, s string) { _, _ = tmpfsOptions(splitOptions(s)) })
}

func FuzzParseList(f *testing.F) {
	f.Add("0-2,5")
	f.Fuzz(func(t *testing.T, s string) {
		if l, err := parseList(s); err == nil && len(l) > maxListed+1 {
			t.Error("too many")
		}
	})
}
