package cgroup

import (
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Support says which limits the kernel can give.
type Support struct {
	Any                                                 bool // some hierarchy is mounted
	Memory, Swap, Reservation, Swappiness, OOMDisable   bool
	Shares, CFS, Realtime, Burst, CPUIdle, Cpuset, Pids bool
	Weight, WeightDevice, Throttle                      bool
	Hugetlb, NetClass, NetPrio, RDMA, Unified           bool
}

// probe looks at the files of the root folders, and on v2 (whose root has no limits) at the controllers.
func probe(h Host) Support {
	s := Support{Any: len(h.hiers) > 0}
	file := func(controller, name string) bool {
		hi, ok := h.home(controller)
		if !ok {
			return false
		}
		if hi.v2 {
			return true
		}
		_, err := os.Stat(filepath.Join(hi.dir, name))
		return err == nil
	}
	onV1 := func(controller string) bool { hi, ok := h.home(controller); return ok && !hi.v2 }
	s.Memory = file("memory", "memory.limit_in_bytes")
	s.Reservation = file("memory", "memory.soft_limit_in_bytes")
	s.Swap = file("memory", "memory.memsw.limit_in_bytes")
	if h.has("memory") && !onV1("memory") {
		s.Swap = swapOnV2(h)
	}
	s.Swappiness = onV1("memory") && file("memory", "memory.swappiness")
	s.OOMDisable = onV1("memory") && file("memory", "memory.oom_control")
	s.Shares = file("cpu", "cpu.shares")
	s.CFS = file("cpu", "cpu.cfs_quota_us")
	s.Burst = file("cpu", "cpu.cfs_burst_us")
	s.CPUIdle = file("cpu", "cpu.idle")
	s.Realtime = onV1("cpu") && file("cpu", "cpu.rt_runtime_us")
	s.Cpuset = file("cpuset", "cpuset.cpus")
	s.Pids = h.has("pids")
	// BFQ's weight is not a file of the root, its statistics are.
	s.Weight = file("blkio", "blkio.weight") || file("blkio", "blkio.bfq.io_service_bytes")
	s.WeightDevice = file("blkio", "blkio.weight_device") || file("blkio", "blkio.bfq.io_service_bytes")
	s.Throttle = file("blkio", "blkio.throttle.read_bps_device")
	s.Hugetlb = h.has("hugetlb")
	s.NetClass = h.has("net_cls")
	s.NetPrio = h.has("net_prio")
	s.RDMA = h.has("rdma")
	if hi, ok := h.v2(); ok {
		s.Unified = len(hi.controllers) > 0
	}
	return s
}

// swapOnV2 looks for memory.swap.max in any group below the root: the kernel may be booted with swapaccount=0.
func swapOnV2(h Host) bool {
	hi, _ := h.v2()
	some, err := filepath.Glob(filepath.Join(hi.dir, "*", "memory.current"))
	if err != nil || len(some) == 0 {
		return true // nobody to ask; Create drops it if the file is not there
	}
	_, err = os.Stat(filepath.Join(filepath.Dir(some[0]), "memory.swap.max"))
	return err == nil
}

const noKernel = "Your kernel does not support "

// Filter gives the resources without what the kernel can't do, and a warning in Docker's words for each loss. The
// argument is not changed; nil gives nil.
func (s Support) Filter(r *specs.LinuxResources) (*specs.LinuxResources, []string) {
	if r == nil {
		return nil, nil
	}
	out := *r
	var w warnings
	if r.Memory != nil {
		out.Memory = s.memory(*r.Memory, &w)
	}
	if r.CPU != nil {
		out.CPU = s.cpu(*r.CPU, &w)
	}
	if r.BlockIO != nil {
		out.BlockIO = s.blkio(*r.BlockIO, &w)
	}
	if r.Pids != nil && r.Pids.Limit != nil && !s.Pids {
		out.Pids = nil
		w.add(*r.Pids.Limit > 0, noKernel+"PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.")
	}
	if len(r.HugepageLimits) > 0 && !s.Hugetlb {
		out.HugepageLimits = nil
		w.add(true, noKernel+"hugetlb limits or the cgroup is not mounted. Limits discarded.")
	}
	if r.Network != nil {
		n := *r.Network
		out.Network = &n
		if n.ClassID != nil && !s.NetClass {
			n.ClassID = nil
			w.add(true, noKernel+"network classes (net_cls) or the cgroup is not mounted. Class discarded.")
		}
		if len(n.Priorities) > 0 && !s.NetPrio {
			n.Priorities = nil
			w.add(true, noKernel+"network priorities (net_prio) or the cgroup is not mounted. Priorities discarded.")
		}
	}
	if len(r.Rdma) > 0 && !s.RDMA {
		out.Rdma = nil
		w.add(true, noKernel+"RDMA limits or the cgroup is not mounted. Limits discarded.")
	}
	return &out, w
}

func (s Support) memory(m specs.LinuxMemory, w *warnings) *specs.LinuxMemory {
	limited := m.Limit != nil && *m.Limit > 0
	if m.Limit != nil && !s.Memory {
		w.add(limited, noKernel+"memory limit capabilities or the cgroup is not mounted. Limitation discarded.")
		m.Limit, m.Swap = nil, nil
	}
	if m.Swap != nil && !s.Swap {
		w.add(*m.Swap != 0, noKernel+"swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
		m.Swap = nil
	}
	if m.Swappiness != nil && !s.Swappiness {
		w.add(true, noKernel+"memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
		m.Swappiness = nil
	}
	if m.Reservation != nil && !s.Reservation {
		w.add(*m.Reservation > 0, noKernel+"memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.")
		m.Reservation = nil
	}
	if m.DisableOOMKiller != nil && !s.OOMDisable {
		w.add(*m.DisableOOMKiller, noKernel+"OomKillDisable. OomKillDisable discarded.")
		m.DisableOOMKiller = nil
	}
	// Linux 5.4 ended the limits of kernel memory: the files that are left do nothing, and settings does not write them.
	//lint:ignore SA1019 old specifications still ask for it
	kernel := m.Kernel
	w.add(kernel != nil && *kernel > 0 || m.KernelTCP != nil && *m.KernelTCP > 0,
		noKernel+"kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.")
	return &m
}

func (s Support) cpu(c specs.LinuxCPU, w *warnings) *specs.LinuxCPU {
	if c.Shares != nil && !s.Shares {
		w.add(*c.Shares > 0, noKernel+"CPU shares or the cgroup is not mounted. Shares discarded.")
		c.Shares = nil
	}
	if (c.Quota != nil || c.Period != nil) && !s.CFS {
		w.add(true, noKernel+"CPU CFS scheduler or the cgroup is not mounted. Period and quota discarded.")
		c.Quota, c.Period = nil, nil
	}
	if c.Burst != nil && !s.Burst {
		w.add(*c.Burst > 0, noKernel+"CPU burst or the cgroup is not mounted. Burst discarded.")
		c.Burst = nil
	}
	if c.Idle != nil && !s.CPUIdle {
		w.add(*c.Idle != 0, noKernel+"idle CPU groups or the cgroup is not mounted. Idle discarded.")
		c.Idle = nil
	}
	if (c.RealtimePeriod != nil || c.RealtimeRuntime != nil) && !s.Realtime {
		w.add(true, noKernel+"CPU real-time scheduler or the cgroup is not mounted. Real-time limits discarded.")
		c.RealtimePeriod, c.RealtimeRuntime = nil, nil
	}
	if (c.Cpus != "" || c.Mems != "") && !s.Cpuset {
		w.add(true, noKernel+"cpuset or the cgroup is not mounted. Cpuset discarded.")
		c.Cpus, c.Mems = "", ""
	}
	return &c
}

func (s Support) blkio(b specs.LinuxBlockIO, w *warnings) *specs.LinuxBlockIO {
	if b.Weight != nil && !s.Weight {
		w.add(*b.Weight > 0, noKernel+"Block I/O weight or the cgroup is not mounted. Weight discarded.")
		b.Weight = nil
	}
	if len(b.WeightDevice) > 0 && !s.WeightDevice {
		w.add(true, noKernel+"Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.")
		b.WeightDevice = nil
	}
	b.LeafWeight = nil // of the CFQ scheduler, gone from Linux 5.0 on
	if s.Throttle {
		return &b
	}
	for _, t := range []struct {
		list *[]specs.LinuxThrottleDevice
		name [2]string
	}{
		{&b.ThrottleReadBpsDevice, [2]string{"BPS", "read"}},
		{&b.ThrottleWriteBpsDevice, [2]string{"BPS", "write"}},
		{&b.ThrottleReadIOPSDevice, [2]string{"IOPS", "read"}},
		{&b.ThrottleWriteIOPSDevice, [2]string{"IOPS", "write"}},
	} {
		w.add(len(*t.list) > 0, fmt.Sprintf(noKernel+"%[1]s Block I/O %[2]s limit or the cgroup is not mounted. Block I/O %[1]s %[2]s limit discarded.", t.name[0], t.name[1]))
		*t.list = nil
	}
	return &b
}

type warnings []string

func (w *warnings) add(yes bool, text string) {
	if yes {
		*w = append(*w, text)
	}
}
