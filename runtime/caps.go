package runtime

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capNames are the capabilities by number (linux/capability.h).
var capNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// capSets are the capabilities of a process, a bit each.
type capSets struct {
	available                         uint64
	effective, permitted, inheritable uint64
	dropped                           []int // from the bounding set
	ambient                           []int
}

// capabilities reads the specification's sets. What we don't have ourselves can't be given, and names that are unknown (of a newer
// kernel) are passed over, as runc does.
func (c *compiler) capabilities() capSets {
	s := capSets{available: c.opt.Caps}
	if s.available == 0 {
		s.available = 1<<len(capNames) - 1
	}
	spec := c.proc.Capabilities
	if spec == nil {
		spec = &specs.LinuxCapabilities{} // none given: none granted, as runc has it
	}
	bounding := capBits(spec.Bounding)
	s.permitted = capBits(spec.Permitted) & s.available
	s.effective = capBits(spec.Effective) & s.permitted
	s.inheritable = capBits(spec.Inheritable) & s.available
	ambient := capBits(spec.Ambient) & s.permitted & s.inheritable
	for n := range capNames {
		if s.available&(1<<n) != 0 && bounding&(1<<n) == 0 {
			s.dropped = append(s.dropped, n)
		}
		if ambient&(1<<n) != 0 {
			s.ambient = append(s.ambient, n)
		}
	}
	return s
}

func capBits(names []string) uint64 {
	var bits uint64
	for _, name := range names {
		if n := slices.Index(capNames[:], strings.ToUpper(name)); n >= 0 {
			bits |= 1 << n
		}
	}
	return bits
}

// capset sets the three sets of the process.
func (c *compiler) capset(name string, effective, permitted, inheritable uint64) {
	const version3 = 0x20080522 // _LINUX_CAPABILITY_VERSION_3
	lo, hi := func(v uint64) uint64 { return v & 0xffffffff }, func(v uint64) uint64 { return v >> 32 }
	head := c.Words(version3) // version, pid 0
	data := c.Words(lo(effective)|lo(permitted)<<32, lo(inheritable)|hi(effective)<<32, hi(permitted)|hi(inheritable)<<32)
	c.Do(name, unix.SYS_CAPSET, head, data)
}

// Capabilities lists the names of all capabilities, in the kernel's order.
func Capabilities() []string { return slices.Clone(capNames[:]) }
