package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"skiff/runtime/cgroup"
)

// Kernel is what this machine can do, as far as specifications depend on it.
type Kernel struct {
	CPUs          int    // that we may run on
	CPUList       string // online CPUs, as "0-3"
	MemoryNodes   string // online memory nodes, as "0"
	CgroupVersion int    // 1 (also on a hybrid host), 2 or 0
	Cgroup        cgroup.Support
	Caps          []string // capabilities that we can hand on, as "CAP_CHOWN"
	AppArmor      bool
	DockerDefault bool // the AppArmor profile docker-default is loaded
	SELinux       bool
	RecursiveRO   bool     // mounts can be made read-only with all below them (mount_setattr, Linux 5.12)
	Thermal       []string // folders that leak the host's load and are masked: …/cpuN/thermal_throttle
}

// DetectKernel looks at the machine.
func DetectKernel(h cgroup.Host) (Kernel, error) {
	k := Kernel{
		CPUs: runtime.NumCPU(), CPUList: online("cpu"), MemoryNodes: online("node"),
		CgroupVersion: h.Version(), Cgroup: h.Support(),
	}
	for _, c := range capability.ListKnown() {
		if ok, err := capability.GetBound(c); err == nil && ok { // an error: the kernel does not know it
			k.Caps = append(k.Caps, capName(c))
		}
	}
	if len(k.Caps) == 0 {
		return k, fmt.Errorf("find our capabilities: the bounding set is empty")
	}
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil {
		k.AppArmor = strings.HasPrefix(string(b), "Y")
	}
	if k.AppArmor {
		b, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
		k.DockerDefault = err == nil && strings.Contains("\n"+string(b), "\ndocker-default ")
	}
	_, err := os.Stat("/sys/fs/selinux/enforce")
	k.SELinux = err == nil
	// The call with an empty structure and a bad descriptor tells ENOSYS from EBADF.
	k.RecursiveRO = unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}) != unix.ENOSYS
	k.Thermal, err = filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	slices.Sort(k.Thermal)
	return k, err
}

// online reads a list as "0-3,5"; a kernel without NUMA has node 0.
func online(kind string) string {
	b, err := os.ReadFile("/sys/devices/system/" + kind + "/online")
	if err != nil {
		return "0"
	}
	return strings.TrimSpace(string(b))
}

func capName(c capability.Cap) string { return "CAP_" + strings.ToUpper(c.String()) }
