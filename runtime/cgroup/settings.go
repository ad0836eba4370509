package cgroup

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// setting is one write to a file of a controller's folder.
type setting struct {
	controller, file, value string
	orElse                  fallback
}

// fallback is what is written if the file is not there: another file, or nothing where nothing is as good.
type fallback struct {
	file, value string
	nothing     bool
}

// settings lists the writes that give the limits, controller by controller, in the words of v1 or v2, whichever the
// controller's home speaks. It decides nothing about the kernel and touches nothing.
func settings(r *specs.LinuxResources, onV2 func(controller string) bool) []setting {
	var l list
	if r.Memory != nil {
		pick(onV2("memory"), l.memoryV2, l.memoryV1)(r.Memory)
	}
	if r.CPU != nil {
		pick(onV2("cpu"), l.cpuV2, l.cpuV1)(r.CPU)
		l.str("cpuset", "cpuset.cpus", r.CPU.Cpus)
		l.str("cpuset", "cpuset.mems", r.CPU.Mems)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		l.str("pids", "pids.max", maxOr(*r.Pids.Limit, *r.Pids.Limit <= 0))
	}
	if r.BlockIO != nil {
		pick(onV2("blkio"), l.blkioV2, l.blkioV1)(r.BlockIO)
	}
	for _, h := range r.HugepageLimits {
		limit := strconv.FormatUint(h.Limit, 10)
		file := pick(onV2("hugetlb"), ".max", ".limit_in_bytes")
		l.str("hugetlb", "hugetlb."+h.Pagesize+file, limit)
		// Reservations are limited as well where the kernel can (Linux 5.7), lest mmap succeeds and the touch kills.
		l.add("hugetlb", "hugetlb."+h.Pagesize+".rsvd"+file, limit, fallback{nothing: true})
	}
	if r.Network != nil {
		if r.Network.ClassID != nil {
			l.str("net_cls", "net_cls.classid", strconv.FormatUint(uint64(*r.Network.ClassID), 10))
		}
		for _, p := range r.Network.Priorities {
			l.str("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	for _, dev := range slices.Sorted(maps.Keys(r.Rdma)) {
		v := dev
		if n := r.Rdma[dev].HcaHandles; n != nil {
			v += fmt.Sprintf(" hca_handle=%d", *n)
		}
		if n := r.Rdma[dev].HcaObjects; n != nil {
			v += fmt.Sprintf(" hca_object=%d", *n)
		}
		l.str("rdma", "rdma.max", v)
	}
	return l.all
}

func pick[T any](cond bool, yes, no T) T {
	if cond {
		return yes
	}
	return no
}

// maxOr is v2's way (and pids' on v1) to write a number that may be "no limit".
func maxOr(n int64, unlimited bool) string {
	if unlimited {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

type list struct{ all []setting }

func (l *list) add(controller, file, value string, orElse fallback) {
	l.all = append(l.all, setting{controller, file, value, orElse})
}

// str adds a write unless the value is empty.
func (l *list) str(controller, file, value string) {
	if value != "" {
		l.add(controller, file, value, fallback{})
	}
}

func (l *list) int(controller, file string, v *int64) {
	if v != nil {
		l.str(controller, file, strconv.FormatInt(*v, 10))
	}
}

func (l *list) uint(controller, file string, v *uint64) {
	if v != nil {
		l.str(controller, file, strconv.FormatUint(*v, 10))
	}
}

func nonzero[T comparable](v *T) *T {
	var zero T
	if v == nil || *v == zero {
		return nil
	}
	return v
}

func (l *list) memoryV1(m *specs.LinuxMemory) {
	// Limit and swap must come together: apply retries the pair the other way round when a limit is raised.
	l.int("memory", "memory.limit_in_bytes", nonzero(m.Limit))
	l.int("memory", "memory.memsw.limit_in_bytes", nonzero(m.Swap))
	l.int("memory", "memory.soft_limit_in_bytes", nonzero(m.Reservation))
	l.uint("memory", "memory.swappiness", m.Swappiness)
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		l.str("memory", "memory.oom_control", "1")
	}
}

func (l *list) memoryV2(m *specs.LinuxMemory) {
	if s := nonzero(m.Swap); s != nil {
		// OCI counts memory and swap together, v2 counts swap alone.
		swap := *s
		if swap > 0 && m.Limit != nil && *m.Limit > 0 {
			swap -= *m.Limit
		}
		l.str("memory", "memory.swap.max", maxOr(swap, swap < 0))
	}
	if n := nonzero(m.Limit); n != nil {
		l.str("memory", "memory.max", maxOr(*n, *n < 0))
	}
	if n := nonzero(m.Reservation); n != nil {
		l.str("memory", "memory.low", maxOr(*n, *n < 0))
	}
}

func (l *list) cpuV1(c *specs.LinuxCPU) {
	l.uint("cpu", "cpu.shares", nonzero(c.Shares))
	l.uint("cpu", "cpu.cfs_period_us", nonzero(c.Period))
	l.int("cpu", "cpu.cfs_quota_us", nonzero(c.Quota))
	l.uint("cpu", "cpu.cfs_burst_us", c.Burst)
	l.uint("cpu", "cpu.rt_period_us", nonzero(c.RealtimePeriod))
	l.int("cpu", "cpu.rt_runtime_us", nonzero(c.RealtimeRuntime))
	l.int("cpu", "cpu.idle", c.Idle)
}

func (l *list) cpuV2(c *specs.LinuxCPU) {
	if s := nonzero(c.Shares); s != nil && (c.Idle == nil || *c.Idle == 0) {
		l.str("cpu", "cpu.weight", strconv.FormatUint(weightOfShares(*s), 10))
	}
	l.int("cpu", "cpu.idle", c.Idle)
	if q, p := nonzero(c.Quota), nonzero(c.Period); q != nil || p != nil {
		period := uint64(100_000)
		if p != nil {
			period = *p
		}
		quota := "max"
		if q != nil && *q > 0 {
			quota = strconv.FormatInt(*q, 10)
		}
		l.str("cpu", "cpu.max", quota+" "+strconv.FormatUint(period, 10))
	}
	l.uint("cpu", "cpu.max.burst", c.Burst)
}

// weightOfShares turns v1's cpu.shares (2 … 262144, 1024 is normal) into v2's cpu.weight (1 … 10000, 100 is normal) on
// a curve through these three points, as runc does since 2025 (KEP-2254): 10^((x²+125x)/612 - 7/34), x = log2(shares).
func weightOfShares(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	x := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (x*x+125*x)/612-7.0/34)))
}

func (l *list) blkioV1(b *specs.LinuxBlockIO) {
	if w := nonzero(b.Weight); w != nil {
		v := strconv.Itoa(int(*w))
		l.add("blkio", "blkio.weight", v, fallback{file: "blkio.bfq.weight", value: v})
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			v := fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight)
			l.add("blkio", "blkio.weight_device", v, fallback{file: "blkio.bfq.weight_device", value: v})
		}
	}
	throttle := func(file string, devs []specs.LinuxThrottleDevice) {
		for _, d := range devs {
			l.str("blkio", "blkio.throttle."+file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
		}
	}
	throttle("read_bps_device", b.ThrottleReadBpsDevice)
	throttle("write_bps_device", b.ThrottleWriteBpsDevice)
	throttle("read_iops_device", b.ThrottleReadIOPSDevice)
	throttle("write_iops_device", b.ThrottleWriteIOPSDevice)
}

func (l *list) blkioV2(b *specs.LinuxBlockIO) {
	// BFQ takes the weight as it is (10 … 1000), the io controller's own scale is 1 … 10000.
	scale := func(w uint16) string { return strconv.Itoa(1 + (int(w)-10)*9999/990) }
	if w := nonzero(b.Weight); w != nil {
		l.add("blkio", "io.bfq.weight", strconv.Itoa(int(*w)), fallback{file: "io.weight", value: scale(*w)})
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			dev := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
			l.add("blkio", "io.bfq.weight", dev+strconv.Itoa(int(*d.Weight)), fallback{file: "io.weight", value: dev + scale(*d.Weight)})
		}
	}
	throttle := func(key string, devs []specs.LinuxThrottleDevice) {
		for _, d := range devs {
			rate := strconv.FormatUint(d.Rate, 10)
			if d.Rate == 0 {
				rate = "max" // v1 lifts a limit by 0
			}
			l.str("blkio", "io.max", fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, key, rate))
		}
	}
	throttle("rbps", b.ThrottleReadBpsDevice)
	throttle("wbps", b.ThrottleWriteBpsDevice)
	throttle("riops", b.ThrottleReadIOPSDevice)
	throttle("wiops", b.ThrottleWriteIOPSDevice)
}

// unifiedFile says whether a key of the unified map is a plain file name of v2.
func unifiedFile(key string) bool {
	return key != "" && !strings.ContainsRune(key, '/') && strings.ContainsRune(key, '.') && !strings.HasPrefix(key, ".")
}
