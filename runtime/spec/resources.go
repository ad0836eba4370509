package spec

import (
	"fmt"
	"path"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// DefaultCgroupParent is where the control groups of containers are, unless somebody says otherwise.
const DefaultCgroupParent = "/skiff"

// CgroupsPath is the path of a container's control group below each hierarchy's mount point: in HostConfig's parent, else
// in the given one, else in DefaultCgroupParent.
func CgroupsPath(h *container.HostConfig, parent, id string) string {
	if h != nil && h.CgroupParent != "" {
		parent = h.CgroupParent
	}
	if parent == "" {
		parent = DefaultCgroupParent
	}
	return path.Join("/", parent, id)
}

// cpuPeriod is the period of --cpus, in microseconds.
const cpuPeriod = 100_000

// Resources are a container's limits and device rules, without what the kernel can't give (Validate has warned). It
// asks for the numbers of the devices that are named.
func Resources(h *container.HostConfig, k *Kernel) (*specs.LinuxResources, error) {
	r, err := limits(&h.Resources)
	if err != nil {
		return nil, err
	}
	r, _ = k.Cgroup.Filter(r)
	_, r.Devices, _, err = devices(h)
	return r, err
}

// limits are the resources in the words of OCI.
func limits(r *container.Resources) (*specs.LinuxResources, error) {
	out := &specs.LinuxResources{Memory: memoryLimits(r), CPU: cpuLimits(r)}
	if r.PidsLimit != nil {
		n := *r.PidsLimit
		if n <= 0 {
			n = -1
		}
		out.Pids = &specs.LinuxPids{Limit: &n}
	}
	var err error
	out.BlockIO, err = blockIO(r)
	return out, err
}

func memoryLimits(r *container.Resources) *specs.LinuxMemory {
	m := specs.LinuxMemory{}
	set := false
	for _, f := range []struct {
		to   **int64
		from int64
	}{{&m.Limit, r.Memory}, {&m.Reservation, r.MemoryReservation}, {&m.Swap, r.MemorySwap}} {
		if f.from != 0 {
			*f.to, set = &f.from, true
		}
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		n := uint64(*r.MemorySwappiness)
		m.Swappiness, set = &n, true
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		yes := true
		m.DisableOOMKiller, set = &yes, true
	}
	if !set {
		return nil
	}
	return &m
}

func cpuLimits(r *container.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	set := c.Cpus != "" || c.Mems != ""
	unsigned := func(to **uint64, from int64) {
		if from > 0 {
			n := uint64(from)
			*to, set = &n, true
		}
	}
	signed := func(to **int64, from int64) {
		if from != 0 {
			*to, set = &from, true
		}
	}
	unsigned(&c.Shares, r.CPUShares)
	if r.NanoCPUs > 0 {
		unsigned(&c.Period, cpuPeriod)
		signed(&c.Quota, r.NanoCPUs*cpuPeriod/1e9)
	}
	unsigned(&c.Period, r.CPUPeriod)
	signed(&c.Quota, r.CPUQuota)
	unsigned(&c.RealtimePeriod, r.CPURealtimePeriod)
	signed(&c.RealtimeRuntime, r.CPURealtimeRuntime)
	if !set {
		return nil
	}
	return &c
}

func blockIO(r *container.Resources) (*specs.LinuxBlockIO, error) {
	b := specs.LinuxBlockIO{}
	set := false
	if r.BlkioWeight != 0 {
		w := r.BlkioWeight
		b.Weight, set = &w, true
	}
	for _, d := range r.BlkioWeightDevice {
		if d == nil {
			continue
		}
		dev, err := blockDevice(d.Path)
		if err != nil {
			return nil, err
		}
		w := d.Weight
		b.WeightDevice, set = append(b.WeightDevice, specs.LinuxWeightDevice{LinuxBlockIODevice: dev, Weight: &w}), true
	}
	for _, t := range []struct {
		to   *[]specs.LinuxThrottleDevice
		from []*blkiodev.ThrottleDevice
	}{
		{&b.ThrottleReadBpsDevice, r.BlkioDeviceReadBps},
		{&b.ThrottleWriteBpsDevice, r.BlkioDeviceWriteBps},
		{&b.ThrottleReadIOPSDevice, r.BlkioDeviceReadIOps},
		{&b.ThrottleWriteIOPSDevice, r.BlkioDeviceWriteIOps},
	} {
		for _, d := range t.from {
			if d == nil {
				continue
			}
			dev, err := blockDevice(d.Path)
			if err != nil {
				return nil, err
			}
			*t.to, set = append(*t.to, specs.LinuxThrottleDevice{LinuxBlockIODevice: dev, Rate: d.Rate}), true
		}
	}
	if !set {
		return nil, nil
	}
	return &b, nil
}

func blockDevice(name string) (specs.LinuxBlockIODevice, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return specs.LinuxBlockIODevice{}, errs.As(errs.Invalid, fmt.Errorf("block I/O limit: stat %s: %w", name, err))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return specs.LinuxBlockIODevice{}, errs.New(errs.Invalid, "block I/O limit: %s is not a block device", name)
	}
	return specs.LinuxBlockIODevice{Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}, nil
}
