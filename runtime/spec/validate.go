package spec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"

	"skiff/internal/errs"
)

// Validate checks a configuration when a container is created. The warnings, and the errors (classes Invalid and
// NotImplemented), are in Docker's words. Defaults that the caller fills in (swap from memory) may be missing.
func Validate(c *container.Config, h *container.HostConfig, k Kernel) ([]string, error) {
	if c == nil || h == nil {
		return nil, errs.New(errs.Invalid, "a container needs a configuration")
	}
	if err := unsupported(h); err != nil {
		return nil, err
	}
	if err := checkModes(c, h); err != nil {
		return nil, err
	}
	if err := checkLimits(&h.Resources, &k); err != nil {
		return nil, err
	}
	if _, err := rlimits(h.Ulimits); err != nil {
		return nil, err
	}
	if err := checkSysctls(h); err != nil {
		return nil, err
	}
	mounts, err := userMounts(h)
	if err != nil {
		return nil, err
	}
	for i := range mounts {
		if err := mounts[i].checkSource(); err != nil {
			return nil, err
		}
		if _, err := mounts[i].oci(&k); err != nil {
			return nil, err
		}
	}
	return validateSecurity(c, h, &k)
}

// validateSecurity checks what needs the kernel's abilities, and gathers the warnings.
func validateSecurity(c *container.Config, h *container.HostConfig, k *Kernel) ([]string, error) {
	sec, warn, err := parseSecurity(h.SecurityOpt, k)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(h.CapAdd, h.CapDrop, h.Privileged, k)
	if err != nil {
		return nil, err
	}
	if sec.seccomp != "" {
		if _, err := sec.profile(h.Privileged, caps, nil); err != nil {
			return nil, err
		}
	}
	for _, r := range h.DeviceCgroupRules {
		if _, err := parseDeviceRule(r); err != nil {
			return nil, err
		}
	}
	r, err := limits(&h.Resources)
	if err != nil {
		return nil, err
	}
	_, more := k.Cgroup.Filter(r)
	warn = append(warn, more...)
	if h.OomKillDisable != nil && *h.OomKillDisable && h.Memory == 0 && k.Cgroup.OOMDisable {
		warn = append(warn, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	if !k.Cgroup.Any {
		warn = append(warn, "No cgroup is mounted on this machine: limits, statistics and device rules are discarded.")
	}
	for _, v := range sortedKeys(c.Volumes) {
		warn = append(warn, fmt.Sprintf("Volumes are not implemented yet: %s is kept in the container's own file system.", v))
	}
	return warn, nil
}

func checkModes(c *container.Config, h *container.HostConfig) error {
	switch {
	case !h.IpcMode.Valid() || h.IpcMode.IsContainer() && h.IpcMode.Container() == "":
		return errs.New(errs.Invalid, "invalid IPC mode: %s", h.IpcMode)
	case !h.PidMode.Valid():
		return errs.New(errs.Invalid, "invalid PID mode: %s", h.PidMode)
	case !h.UTSMode.Valid():
		return errs.New(errs.Invalid, "invalid UTS mode: %s", h.UTSMode)
	case !h.CgroupnsMode.Valid():
		return errs.New(errs.Invalid, "invalid cgroup namespace mode: %s", h.CgroupnsMode)
	case !h.UsernsMode.Valid():
		return errs.New(errs.Invalid, "invalid userns mode: %s", h.UsernsMode)
	case h.UTSMode.IsHost() && c.Domainname != "":
		return errs.New(errs.Invalid, "conflicting options: hostname and the UTS mode")
	case h.ShmSize < 0:
		return errs.New(errs.Invalid, "SHM size can not be less than 0")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return errs.New(errs.Invalid, "invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	case h.Umask != nil && *h.Umask > 0o777:
		return errs.New(errs.Invalid, "invalid umask %#o: it must be between 0 and 0777", *h.Umask)
	}
	return nil
}

// minMemory is Docker's least memory limit, in bytes.
const minMemory = 6 << 20

func checkLimits(r *container.Resources, k *Kernel) error {
	if err := checkMemory(r); err != nil {
		return err
	}
	if err := checkCPU(r, k); err != nil {
		return err
	}
	if r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return errs.New(errs.Invalid, "Range of blkio weight is from 10 to 1000")
	}
	for _, w := range r.BlkioWeightDevice {
		if w != nil && w.Weight > 0 && (w.Weight < 10 || w.Weight > 1000) {
			return errs.New(errs.Invalid, "Range of blkio weight is from 10 to 1000")
		}
	}
	return nil
}

func checkMemory(r *container.Resources) error {
	switch {
	case r.Memory != 0 && r.Memory < minMemory:
		return errs.New(errs.Invalid, "Minimum memory limit allowed is 6MB")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return errs.New(errs.Invalid, "Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return errs.New(errs.Invalid, "You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwap < -1:
		return errs.New(errs.Invalid, "invalid memory swap limit %d: -1 means unlimited", r.MemorySwap)
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return errs.New(errs.Invalid, "Invalid value: %v, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation != 0 && r.MemoryReservation < minMemory:
		return errs.New(errs.Invalid, "Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return errs.New(errs.Invalid, "Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	return nil
}

func checkCPU(r *container.Resources, k *Kernel) error {
	switch {
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return errs.New(errs.Invalid, "Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return errs.New(errs.Invalid, "Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	// The kernel's least quota is 1 ms: below 0.01 CPUs there is none, whatever the period.
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(k.CPUs)*1e9 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return errs.New(errs.Invalid, "range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", k.CPUs, k.CPUs)
	case r.NanoCPUs > 0 && !k.Cgroup.CFS:
		return errs.New(errs.Invalid, "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted")
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1_000_000):
		return errs.New(errs.Invalid, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return errs.New(errs.Invalid, "CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.CPUShares < 0:
		return errs.New(errs.Invalid, "invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case (r.CPURealtimePeriod != 0 || r.CPURealtimeRuntime != 0) && !k.Cgroup.Realtime:
		return errs.New(errs.Invalid, "kernel does not support CPU real-time scheduler")
	case r.CPURealtimePeriod != 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return errs.New(errs.Invalid, "cpu real-time runtime cannot be higher than cpu real-time period")
	}
	if err := checkList(r.CpusetCpus, k.CPUList, "cpus", "CPUs"); err != nil {
		return err
	}
	return checkList(r.CpusetMems, k.MemoryNodes, "mems", "memory nodes")
}

// checkList compares a list of a cpuset with what there is.
func checkList(asked, have, what, words string) error {
	want, err := parseList(asked)
	if err != nil {
		return errs.New(errs.Invalid, "Invalid value %s for cpuset %s: %w", asked, what, err)
	}
	there, err := parseList(have)
	if err != nil {
		return fmt.Errorf("online %s %q: %w", words, have, err)
	}
	for n := range want {
		if !there[n] {
			return errs.New(errs.Invalid, "Requested %s are not available - requested %s, available: %s", words, asked, have)
		}
	}
	return nil
}

// maxListed bounds the numbers in a list: a larger one would only fill memory.
const maxListed = 8192

// parseList reads "0-2,5".
func parseList(s string) (map[int]bool, error) {
	out := map[int]bool{}
	if s == "" {
		return out, nil
	}
	for r := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(r, "-")
		if !isRange {
			to = from
		}
		lo, err1 := strconv.Atoi(from)
		hi, err2 := strconv.Atoi(to)
		switch {
		case err1 != nil || err2 != nil || lo < 0 || hi < lo:
			return nil, fmt.Errorf("invalid format: %s", s)
		case hi > maxListed:
			return nil, fmt.Errorf("value of out range, maximum is %d", maxListed)
		}
		for n := lo; n <= hi; n++ {
			out[n] = true
		}
	}
	return out, nil
}

// unsupported refuses by name what skiff does not do.
func unsupported(h *container.HostConfig) error {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"VolumeDriver", h.VolumeDriver != "" && h.VolumeDriver != "local"},
		{"VolumesFrom", len(h.VolumesFrom) > 0},
		{"Links", len(h.Links) > 0},
		{"Cgroup", h.Cgroup != ""},
		{"StorageOpt", len(h.StorageOpt) > 0},
		{"DeviceRequests", len(h.DeviceRequests) > 0},
		{"Isolation", !h.Isolation.IsDefault()},
		{"CpuCount", h.CPUCount != 0},
		{"CpuPercent", h.CPUPercent != 0},
		{"IOMaximumIOps", h.IOMaximumIOps != 0},
		{"IOMaximumBandwidth", h.IOMaximumBandwidth != 0},
	} {
		if f.set {
			return errs.New(errs.NotImplemented, "HostConfig.%s is not implemented", f.name)
		}
	}
	return nil
}
