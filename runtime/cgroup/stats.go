package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Stats is what a group used so far. What the host has no hierarchy for stays zero.
type Stats struct {
	Memory MemoryStats
	CPU    CPUStats
	Pids   PidsStats
	// IO is the traffic with each block device.
	IO []IOStats
}

// MemoryStats are in bytes. Limits that are not set are the kernel's largest number.
type MemoryStats struct {
	Usage, MaxUsage, Limit uint64 // MaxUsage is 0 where the kernel doesn't tell (v2 before Linux 5.19)
	SwapUsage              uint64 // without memory; 0 if swap isn't counted
	Failcnt                uint64 // v1: how often the limit was hit
	Raw                    map[string]uint64
}

// CPUStats are in nanoseconds.
type CPUStats struct {
	Total, User, System uint64
	PerCPU              []uint64 // v1 only

	Periods, ThrottledPeriods, ThrottledTime uint64
}

// PidsStats count tasks; Limit is the largest number if there is none.
type PidsStats struct{ Current, Limit uint64 }

// IOStats is the traffic with one block device: bytes and requests.
type IOStats struct {
	Major, Minor                             uint64
	ReadBytes, WriteBytes, ReadOps, WriteOps uint64
}

// Stats reads what the group used.
func (c *Cgroup) Stats() (*Stats, error) {
	s := &Stats{}
	for _, f := range []func(*Stats) error{c.memoryStats, c.cpuStats, c.pidsStats, c.ioStats} {
		if err := f(s); err != nil {
			return nil, fmt.Errorf("statistics of cgroup %s: %w", c.path, err)
		}
	}
	return s, nil
}

// optional makes an absent file a zero.
func optional(n uint64, err error) (uint64, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return n, err
}

func (c *Cgroup) memoryStats(s *Stats) (err error) {
	p, ok := c.part("memory")
	if !ok {
		return nil
	}
	m := &s.Memory
	usage, maxUsage, limit, swap := "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.memsw.usage_in_bytes"
	if p.hierarchy.v2 {
		usage, maxUsage, limit, swap = "memory.current", "memory.peak", "memory.max", "memory.swap.current"
	}
	if m.Usage, err = readUint(p.dir, usage); err != nil {
		return err
	}
	if m.MaxUsage, err = optional(readUint(p.dir, maxUsage)); err != nil {
		return err
	}
	if m.Limit, err = readUint(p.dir, limit); err != nil {
		return err
	}
	if m.SwapUsage, err = optional(readUint(p.dir, swap)); err != nil {
		return err
	}
	if !p.hierarchy.v2 {
		m.SwapUsage -= min(m.SwapUsage, m.Usage) // memsw counts both, a moment later
		if m.Failcnt, err = readUint(p.dir, "memory.failcnt"); err != nil {
			return err
		}
	}
	m.Raw, err = readPairs(p.dir, "memory.stat")
	return err
}

func (c *Cgroup) cpuStats(s *Stats) error {
	u := &s.CPU
	if p, ok := c.part("cpuacct"); ok && !p.hierarchy.v2 {
		var err error
		if u.Total, err = readUint(p.dir, "cpuacct.usage"); err != nil {
			return err
		}
		if u.User, err = readUint(p.dir, "cpuacct.usage_user"); err != nil {
			return err
		}
		if u.System, err = readUint(p.dir, "cpuacct.usage_sys"); err != nil {
			return err
		}
		each, err := readFields(p.dir, "cpuacct.usage_percpu")
		if err != nil {
			return err
		}
		for _, f := range each {
			n, err := strconv.ParseUint(f, 10, 64)
			if err != nil {
				return err
			}
			u.PerCPU = append(u.PerCPU, n)
		}
	} else if p, ok := c.v2(); ok { // cpu.stat has the usage even without the controller
		v, err := readPairs(p.dir, "cpu.stat")
		if err != nil {
			return err
		}
		u.Total, u.User, u.System = v["usage_usec"]*1000, v["user_usec"]*1000, v["system_usec"]*1000
	}
	p, ok := c.part("cpu")
	if !ok {
		return nil
	}
	v, err := readPairs(p.dir, "cpu.stat")
	if err != nil {
		return err
	}
	u.Periods, u.ThrottledPeriods = v["nr_periods"], v["nr_throttled"]
	u.ThrottledTime = v["throttled_time"] + v["throttled_usec"]*1000 // one of them is there
	return nil
}

func (c *Cgroup) pidsStats(s *Stats) (err error) {
	p, ok := c.part("pids")
	if !ok {
		return nil
	}
	if s.Pids.Current, err = readUint(p.dir, "pids.current"); err != nil {
		return err
	}
	s.Pids.Limit, err = readUint(p.dir, "pids.max")
	return err
}

func (c *Cgroup) ioStats(s *Stats) error {
	p, ok := c.part("blkio")
	if !ok {
		return nil
	}
	byDev := map[[2]uint64]int{}
	at := func(dev string) *IOStats {
		var major, minor uint64
		if n, err := fmt.Sscanf(dev, "%d:%d", &major, &minor); n != 2 || err != nil {
			return nil
		}
		key := [2]uint64{major, minor}
		i, ok := byDev[key]
		if !ok {
			i = len(s.IO)
			byDev[key] = i
			s.IO = append(s.IO, IOStats{Major: major, Minor: minor})
		}
		return &s.IO[i]
	}
	if p.hierarchy.v2 {
		text, err := read(p.dir, "io.stat")
		if err != nil {
			return err
		}
		parseIOv2(text, at)
		return nil
	}
	bytes, err := read(p.dir, "blkio.throttle.io_service_bytes_recursive")
	if err != nil {
		return err
	}
	parseIOv1(bytes, at, func(o *IOStats) (*uint64, *uint64) { return &o.ReadBytes, &o.WriteBytes })
	ops, err := read(p.dir, "blkio.throttle.io_serviced_recursive")
	if err != nil {
		return err
	}
	parseIOv1(ops, at, func(o *IOStats) (*uint64, *uint64) { return &o.ReadOps, &o.WriteOps })
	return nil
}

// parseIOv1 reads lines as "8:0 Read 4096".
func parseIOv1(text string, at func(string) *IOStats, fields func(*IOStats) (read, write *uint64)) {
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) != 3 || f[1] != "Read" && f[1] != "Write" {
			continue
		}
		n, err := strconv.ParseUint(f[2], 10, 64)
		o := at(f[0])
		if o == nil || err != nil {
			continue
		}
		r, w := fields(o)
		*pick(f[1] == "Write", w, r) = n
	}
}

// parseIOv2 reads lines as "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0".
func parseIOv2(text string, at func(string) *IOStats) {
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		o := at(f[0])
		if o == nil {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				continue
			}
			switch k {
			case "rbytes":
				o.ReadBytes = n
			case "wbytes":
				o.WriteBytes = n
			case "rios":
				o.ReadOps = n
			case "wios":
				o.WriteOps = n
			}
		}
	}
}

// OOMKilled says whether the kernel killed a process of the group for want of memory. Ask before Remove.
func (c *Cgroup) OOMKilled() (bool, error) {
	p, ok := c.part("memory")
	if !ok {
		return false, nil
	}
	v, err := readPairs(p.dir, pick(p.hierarchy.v2, "memory.events", "memory.oom_control"))
	if err != nil {
		return false, fmt.Errorf("ask cgroup %s for OOM kills: %w", c.path, err)
	}
	return v["oom_kill"] > 0, nil
}
