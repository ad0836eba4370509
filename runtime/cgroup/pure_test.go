package cgroup

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
)

func TestParseMounts(t *testing.T) {
	for _, c := range []struct{ name, info, want string }{
		{"hybrid, each alone", `
30 20 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw`, "memory@/sys/fs/cgroup/memory systemd=@/sys/fs/cgroup/systemd v2@/sys/fs/cgroup/unified"},
		{"mounted together", `31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct`, "cpu,cpuacct@/sys/fs/cgroup/cpu,cpuacct"},
		{"pure v2", `31 30 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot`, "v2@/sys/fs/cgroup"},
		{"a part mounted before the whole", `
31 30 0:27 /docker/1 /mnt/part rw - cgroup cgroup rw,pids
32 30 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 30 0:27 / /later rw - cgroup cgroup rw,pids`, "pids@/sys/fs/cgroup/pids"},
		{"inside a container", `31 30 0:27 /docker/1 /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
31 30 0:27 /docker/1 /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`, "cpu@/sys/fs/cgroup/cpu"},
		{"blank in the name", `31 30 0:27 / /a\040b rw - cgroup cgroup rw,cpu`, "cpu@/a b"},
		{"garbage", "x\n1 2 3\n31 30 0:27 / /a rw - cgroup cgroup rw\n - cgroup a b", ""},
	} {
		var got []string
		for _, h := range parseMounts([]byte(c.info)) {
			s := strings.Join(h.controllers, ",")
			if h.named != "" {
				s += h.named + "="
			}
			if h.v2 {
				s += "v2"
			}
			got = append(got, s+"@"+h.dir)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s", c.name, s)
		}
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte(`31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct`))
	f.Fuzz(func(t *testing.T, b []byte) { parseMounts(b) })
}

func TestVersion(t *testing.T) {
	v1, v2, empty := hierarchy{controllers: []string{"cpu"}}, hierarchy{v2: true, controllers: []string{"cpu"}}, hierarchy{v2: true}
	for _, c := range []struct {
		hiers []hierarchy
		want  int
	}{{nil, 0}, {[]hierarchy{v1, empty}, 1}, {[]hierarchy{v2}, 2}, {[]hierarchy{empty}, 2}, {[]hierarchy{v2, v1}, 1}, {[]hierarchy{{named: "systemd"}, v2}, 2}} {
		if got := (Host{hiers: c.hiers}).Version(); got != c.want {
			t.Errorf("%+v: %d, want %d", c.hiers, got, c.want)
		}
	}
}

func TestSettings(t *testing.T) {
	dev := specs.LinuxBlockIODevice{Major: 8, Minor: 1}
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(250)), Reservation: ptr(int64(50)), Swappiness: ptr(uint64(0)), DisableOOMKiller: ptr(true)},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(5000)), Cpus: "0-1", Burst: ptr(uint64(7))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(-1))},
		BlockIO: &specs.LinuxBlockIO{
			Weight: ptr(uint16(500)), ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 9}},
			ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev}},
		},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4}},
		Network:        &specs.LinuxNetwork{ClassID: ptr(uint32(3)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 2}}},
		Rdma:           map[string]specs.LinuxRdma{"mlx": {HcaHandles: ptr(uint32(2))}},
	}
	text := func(v2 bool) string {
		var b strings.Builder
		for _, s := range settings(r, func(string) bool { return v2 }) {
			fmt.Fprintf(&b, "%s=%s", s.file, s.value)
			if s.orElse.file != "" {
				fmt.Fprintf(&b, " or %s=%s", s.orElse.file, s.orElse.value)
			}
			b.WriteString("\n")
		}
		return b.String()
	}
	if d := cmp.Diff(`memory.limit_in_bytes=100
memory.memsw.limit_in_bytes=250
memory.soft_limit_in_bytes=50
memory.swappiness=0
memory.oom_control=1
cpu.shares=1024
cpu.cfs_quota_us=5000
cpu.cfs_burst_us=7
cpuset.cpus=0-1
pids.max=max
blkio.weight=500 or blkio.bfq.weight=500
blkio.throttle.read_bps_device=8:1 9
blkio.throttle.write_iops_device=8:1 0
hugetlb.2MB.limit_in_bytes=4
hugetlb.2MB.rsvd.limit_in_bytes=4
net_cls.classid=3
net_prio.ifpriomap=eth0 2
rdma.max=mlx hca_handle=2
`, text(false)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(`memory.swap.max=150
memory.max=100
memory.low=50
cpu.weight=100
cpu.max=5000 100000
cpu.max.burst=7
cpuset.cpus=0-1
pids.max=max
io.bfq.weight=500 or io.weight=4950
io.max=8:1 rbps=9
io.max=8:1 wiops=max
hugetlb.2MB.max=4
hugetlb.2MB.rsvd.max=4
net_cls.classid=3
net_prio.ifpriomap=eth0 2
rdma.max=mlx hca_handle=2
`, text(true)); d != "" {
		t.Error(d)
	}
	r = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1))}, CPU: &specs.LinuxCPU{Quota: ptr(int64(-1)), Period: ptr(uint64(50000))}}
	if got := text(true); got != "memory.swap.max=max\nmemory.max=max\ncpu.max=max 50000\n" {
		t.Error(got)
	}
}

func TestWeightOfShares(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 512: 59, 1024: 100, 2048: 174, 262144: 10000, 1 << 40: 10000} {
		if got := weightOfShares(shares); got != want {
			t.Errorf("%d: %d, want %d", shares, got, want)
		}
	}
}

func TestFilter(t *testing.T) {
	r := &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(1)), Swap: ptr(int64(2)), Swappiness: ptr(uint64(60))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(2)), Cpus: "0"},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(4))},
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10)), ThrottleReadIOPSDevice: []specs.LinuxThrottleDevice{{Rate: 1}}},
	}
	f, w := (Support{}).Filter(r)
	if d := cmp.Diff([]string{
		"Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
		"Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
		"Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
		"Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
		"Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
		"Your kernel does not support IOPS Block I/O read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
		"Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
	}, w); d != "" {
		t.Error(d)
	}
	if s := settings(f, func(string) bool { return false }); len(s) != 0 {
		t.Errorf("%v", s)
	}
	if r.Memory.Limit == nil || r.Pids == nil || r.BlockIO.Weight == nil {
		t.Error("the argument was changed")
	}
	if _, w := (Support{Memory: true}).Filter(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1)), Swap: ptr(int64(2))}}); len(w) != 1 || !strings.Contains(w[0], "Memory limited without swap") {
		t.Error(w)
	}
}

func TestDeviceRules(t *testing.T) {
	rule := func(allow bool, kind string, major, minor int64, acc string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: acc}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		return r
	}
	for _, c := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{"nothing", nil, "allow"},
		{"all denied, then some", []specs.LinuxDeviceCgroup{rule(false, "a", -1, -1, "rwm"), rule(true, "c", 1, 3, "rw"), rule(true, "c", 1, 3, "m")}, "deny, c 1:3 rwm"},
		{"taken back", []specs.LinuxDeviceCgroup{rule(false, "", -1, -1, ""), rule(true, "c", 1, 3, "rwm"), rule(false, "c", 1, 3, "w"), rule(true, "b", 8, -1, "r"), rule(false, "b", 8, -1, "r")}, "deny, c 1:3 rm"},
		{"all again", []specs.LinuxDeviceCgroup{rule(false, "a", -1, -1, ""), rule(true, "c", 1, 3, ""), rule(true, "a", -1, -1, "")}, "allow"},
		{"both kinds", []specs.LinuxDeviceCgroup{rule(false, "a", 5, -1, "w")}, "allow, b 5:* w, c 5:* w"},
		{"a piece of a wider rule", []specs.LinuxDeviceCgroup{rule(false, "a", -1, -1, ""), rule(true, "c", 10, -1, "rwm"), rule(false, "c", 10, 200, "rwm")}, "error"},
		{"bad access", []specs.LinuxDeviceCgroup{rule(false, "a", -1, -1, "x")}, "error"},
		{"bad type", []specs.LinuxDeviceCgroup{rule(false, "u", -1, -1, "r")}, "error"},
	} {
		s, err := deviceRules(c.rules)
		got := pick(s.allow, "allow", "deny")
		for _, e := range s.exceptions {
			got += ", " + e.String()
		}
		if err != nil {
			got = "error"
			if !errs.Is(err, errs.Invalid) {
				t.Errorf("%s: class of %v", c.name, err)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s (%v)", c.name, got, c.want, err)
		}
	}
}

func TestParseIO(t *testing.T) {
	c := []IOStats{}
	at := func(dev string) *IOStats {
		if dev != "8:0" {
			return nil
		}
		if len(c) == 0 {
			c = append(c, IOStats{Major: 8})
		}
		return &c[0]
	}
	parseIOv1("8:0 Read 5\n8:0 Write 6\n8:0 Sync 9\n8:0 Total 11\nTotal 11", at, func(o *IOStats) (*uint64, *uint64) { return &o.ReadBytes, &o.WriteBytes })
	parseIOv2("8:0 rbytes=7 rios=x wios=3 dbytes=4\n\nbad", at)
	if d := cmp.Diff([]IOStats{{Major: 8, ReadBytes: 7, WriteBytes: 6, WriteOps: 3}}, c); d != "" {
		t.Error(d)
	}
}
