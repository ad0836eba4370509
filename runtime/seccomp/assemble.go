package seccomp

import (
	"encoding/binary"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// Filter is an assembled profile.
type Filter struct {
	Insns []unix.SockFilter // never empty, at most 4096
	Flags uint              // SECCOMP_FILTER_FLAG_* for seccomp(2), SECCOMP_SET_MODE_FILTER
}

// Bytes is the program as the kernel reads it: an array of struct sock_filter, 8 bytes each, in the host's byte order.
func (f *Filter) Bytes() []byte {
	b := make([]byte, 0, 8*len(f.Insns))
	for _, i := range f.Insns {
		b = binary.NativeEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}

// maxInsns is the kernel's BPF_MAXINSNS.
const maxInsns = 4096

// Offsets in struct seccomp_data, for little-endian machines; nr is at 0.
const (
	offArch = 4
	offArgs = 16
)

// Assemble makes the filter of a profile. Errors are of class Invalid (the profile is wrong) or NotImplemented
// (SCMP_ACT_NOTIFY, a machine without a table).
func Assemble(s *specs.LinuxSeccomp) (*Filter, error) {
	list, err := resolve(s.Architectures)
	if err != nil {
		return nil, err
	}
	def, err := verdict(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("default action: %w", err)
	}
	if s.ListenerPath != "" || s.ListenerMetadata != "" {
		return nil, errs.New(errs.NotImplemented, "seccomp: a listener (listenerPath %q) is not supported", s.ListenerPath)
	}
	flags, err := flagBits(s.Flags)
	if err != nil {
		return nil, err
	}
	var sets [archs]*callSet
	for _, a := range list {
		if sets[a], err = collect(a, def, s.Syscalls); err != nil {
			return nil, err
		}
	}
	insns := program(list, &sets, def)
	if len(insns) > maxInsns {
		return nil, errs.New(errs.Invalid, "seccomp: the profile makes %d instructions, the kernel takes %d", len(insns), maxInsns)
	}
	return &Filter{Insns: insns, Flags: flags}, nil
}

func flagBits(flags []specs.LinuxSeccompFlag) (uint, error) {
	if flags == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil // as runc: without it every thread pays for a CPU bug's workaround
	}
	var bits uint
	for _, f := range flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			bits |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			bits |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC": // the process has one thread when the filter is loaded: nothing to do
		case specs.LinuxSeccompFlagWaitKillableRecv:
			return 0, errs.New(errs.NotImplemented, "seccomp: flag %s needs a listener, which is not supported", f)
		default:
			return 0, errs.New(errs.Invalid, "seccomp: unknown flag %q", f)
		}
	}
	return bits, nil
}

// program puts the blocks of the architectures together, the native one first.
func program(list []arch, sets *[archs]*callSet, def uint32) []unix.SockFilter {
	// A newer kernel's calls give ENOSYS, so that libcs fall back, unless the default is lenient or says so itself.
	beyond := def
	if !lets(def) {
		beyond = retErrno | uint32(unix.ENOSYS)
	}
	out := []unix.SockFilter{load(offArch)}
	for _, a := range list {
		var ivs []interval
		switch {
		case a == x32 && sets[amd64] != nil:
			continue // in amd64's block
		case a == amd64 || a == x32:
			ivs = x86Intervals(sets[amd64], sets[x32], beyond, def)
		default:
			ivs = sets[a].intervals(0, beyond)
		}
		out = append(out, branch(a.audit(), append([]unix.SockFilter{load(0)}, tree(ivs)...))...)
	}
	return append(out, ret(retKillThread))
}

// x86Intervals are the numbers of AUDIT_ARCH_X86_64: amd64's below bit 30, x32's from there on. Where one of them is not
// in the profile its calls kill, as those of any architecture that is not listed; under a strict default they
// give ENOSYS like every other number above amd64's.
func x86Intervals(wide, narrow *callSet, beyond, def uint32) []interval {
	bad := &leaf{ret: retKillThread}
	var ivs []interval
	if wide != nil {
		ivs = wide.intervals(0, beyond)
	} else {
		ivs = []interval{{0, bad}}
	}
	switch {
	case narrow != nil:
		ivs = append(ivs, narrow.intervals(x32Bit, beyond)...)
	case beyond == def:
		ivs = append(ivs, interval{x32Bit, bad}, interval{noCall, &leaf{ret: def}})
	}
	return ivs
}
