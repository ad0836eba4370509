package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// vm interprets a filter. The kernel reads seccomp_data in words of the host's order, the interpreter in network order.
type vm struct{ *bpf.VM }

func newVM(t *testing.T, f *Filter) vm {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(f.Insns))
	for i, in := range f.Insns {
		raw[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	insns, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("filter has instructions that x/net/bpf does not know")
	}
	m, err := bpf.NewVM(insns)
	if err != nil {
		t.Fatal(err)
	}
	return vm{m}
}

func (m vm) run(t *testing.T, audit, nr uint32, args [6]uint64) uint32 {
	t.Helper()
	b := binary.BigEndian.AppendUint32(nil, nr)
	b = binary.BigEndian.AppendUint32(b, audit)
	b = append(b, make([]byte, 8)...) // the instruction pointer
	for _, a := range args {
		b = binary.BigEndian.AppendUint32(b, uint32(a))
		b = binary.BigEndian.AppendUint32(b, uint32(a>>32))
	}
	v, err := m.Run(b)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

// model says what a profile means, in the plainest way: the oracle that the programs are compared with.
func model(p *specs.LinuxSeccomp, a arch, nr uint32, args [6]uint64) uint32 {
	def, _ := verdict(p.DefaultAction, p.DefaultErrnoRet)
	highest, found := int64(-1), false
	var firstCond *uint32
	for _, s := range p.Syscalls {
		ret, _ := verdict(s.Action, s.ErrnoRet)
		for _, name := range s.Names {
			n := a.lookup(name)
			if n >= 0 && (a != arm || n < armPrivate) {
				highest = max(highest, int64(n))
			}
			if n < 0 || uint32(n) != nr {
				continue
			}
			found = true
			if ret == def {
				continue
			}
			if len(s.Args) == 0 {
				return ret
			}
			if firstCond == nil && holds(s.Args, !a.wide(), args) {
				firstCond = &ret
			}
		}
	}
	// An unconditional rule anywhere wins.
	if firstCond != nil {
		return *firstCond
	}
	if !found && int64(nr) > highest && highest >= 0 && !lets(def) {
		return retErrno | uint32(unix.ENOSYS)
	}
	return def
}

func holds(args []specs.LinuxSeccompArg, narrow bool, vals [6]uint64) bool {
	twice := map[uint]int{}
	for _, c := range args {
		twice[c.Index]++
	}
	or := false
	for _, n := range twice {
		or = or || n > 1
	}
	for _, c := range args {
		v, want, two := vals[c.Index], c.Value, c.ValueTwo
		if narrow {
			v, want, two = v&0xffffffff, want&0xffffffff, two&0xffffffff
		}
		ok := false
		switch c.Op {
		case specs.OpEqualTo:
			ok = v == want
		case specs.OpNotEqual:
			ok = v != want
		case specs.OpGreaterEqual:
			ok = v >= want
		case specs.OpGreaterThan:
			ok = v > want
		case specs.OpLessEqual:
			ok = v <= want
		case specs.OpLessThan:
			ok = v < want
		case specs.OpMaskedEqual:
			ok = v&want == two
		}
		if ok && or {
			return true
		}
		if !ok && !or {
			return false
		}
	}
	return !or
}

// interesting are argument vectors around the values that a profile compares with.
func interesting(p *specs.LinuxSeccomp, name string) [][6]uint64 {
	out := [][6]uint64{{}, {1, 2, 3, 4, 5, 6}, {^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}}
	for _, s := range p.Syscalls {
		if !slices.Contains(s.Names, name) {
			continue
		}
		for _, c := range s.Args {
			for _, v := range []uint64{
				c.Value, c.Value - 1, c.Value + 1, c.ValueTwo, c.Value ^ 1<<32, c.Value + 1<<32, ^c.Value,
				c.Value &^ 0xffffffff, c.Value | 0x7000000000000000, c.ValueTwo | ^c.Value,
			} {
				for _, base := range out[:2] {
					base[c.Index] = v
					out = append(out, base)
				}
			}
		}
	}
	return out
}

func check(t *testing.T, p *specs.LinuxSeccomp, m vm, list []arch) {
	t.Helper()
	bad := 0
	for _, a := range list {
		bit := uint32(0)
		if a == x32 {
			bit = x32Bit
		}
		muxes := map[int32]bool{}
		if a == i386 {
			muxes = map[int32]bool{a.lookup("socketcall"): true, a.lookup("ipc"): true}
		}
		var seen []uint32
		one := func(name string, nr uint32) {
			if muxes[int32(nr)] {
				return // TestMultiplexed
			}
			for _, args := range interesting(p, name) {
				want, got := model(p, a, nr, args), m.run(t, a.audit(), nr|bit, args)
				if got != want && bad < 20 {
					bad++
					t.Errorf("arch %d %s(%d) %x: verdict %#x, want %#x", a, name, nr, args, got, want)
				}
			}
		}
		for _, n := range numbers {
			if n.nr[a] >= 0 {
				one(n.name, uint32(n.nr[a]))
				seen = append(seen, uint32(n.nr[a]))
			}
		}
		for nr := uint32(0); nr < 600; nr++ { // and the gaps
			if !slices.Contains(seen, nr) {
				one("", nr)
			}
		}
		one("", 0x10000)
		one("", 0x3fffffff)
	}
}

func TestDefaultProfile(t *testing.T) {
	all := []string{
		"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_DAC_READ_SEARCH", "CAP_SYS_BOOT", "CAP_SYS_CHROOT",
		"CAP_SYS_PACCT", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_SYS_NICE", "CAP_SYSLOG", "CAP_BPF", "CAP_PERFMON",
	}
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN", "CAP_SYS_CHROOT"}, all} {
		p, err := Default(caps)
		if err != nil {
			t.Fatal(err)
		}
		list := []arch{amd64, i386, x32}
		if first, err := native(); err != nil || first != amd64 {
			list = []arch{arm64, arm}
		}
		f, err := Assemble(p)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v: %d instructions", caps, len(f.Insns))
		check(t, p, newVM(t, f), list)
		if len(caps) > 0 {
			continue // the other architectures once
		}
		p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchRISCV64}
		if f, err = Assemble(p); err != nil {
			t.Fatal(err)
		}
		check(t, p, newVM(t, f), []arch{amd64, i386, x32, arm64, arm})
	}
}

// What people rely on, said by hand.
func TestDefaultVerdicts(t *testing.T) {
	p, err := Default([]string{"CAP_CHOWN", "CAP_SYS_CHROOT"})
	if err != nil {
		t.Fatal(err)
	}
	p.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	f, err := Assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	const eperm, enosys = retErrno | uint32(unix.EPERM), retErrno | uint32(unix.ENOSYS)
	m := newVM(t, f)
	for _, c := range []struct {
		name       string
		audit, nr  uint32
		arg0, arg1 uint64
		want       uint32
	}{
		{"read", unix.AUDIT_ARCH_X86_64, 0, 0, 0, retAllow},
		{"mount", unix.AUDIT_ARCH_X86_64, 165, 0, 0, eperm},
		{"chroot", unix.AUDIT_ARCH_X86_64, 161, 0, 0, retAllow},
		{"clone, a thread", unix.AUDIT_ARCH_X86_64, 56, unix.CLONE_VM | unix.CLONE_THREAD, 0, retAllow},
		{"clone, user namespace", unix.AUDIT_ARCH_X86_64, 56, unix.CLONE_NEWUSER, 0, eperm},
		{"clone3", unix.AUDIT_ARCH_X86_64, 435, 0, 0, enosys},
		{"socket inet", unix.AUDIT_ARCH_X86_64, 41, unix.AF_INET, 1, retAllow},
		{"socket vsock", unix.AUDIT_ARCH_X86_64, 41, unix.AF_VSOCK, 1, eperm},
		{"socket alg", unix.AUDIT_ARCH_X86_64, 41, unix.AF_ALG, 1, eperm},
		{"socket, high half", unix.AUDIT_ARCH_X86_64, 41, 1<<32 | unix.AF_INET, 1, eperm},
		{"personality, ask", unix.AUDIT_ARCH_X86_64, 135, 0xffffffff, 0, retAllow},
		{"personality, no aslr", unix.AUDIT_ARCH_X86_64, 135, 0x40000, 0, eperm},
		{"x32 read", unix.AUDIT_ARCH_X86_64, x32Bit, 0, 0, retAllow},
		{"x32 ioctl", unix.AUDIT_ARCH_X86_64, x32Bit | 514, 0, 0, retAllow},
		{"x32 mount", unix.AUDIT_ARCH_X86_64, x32Bit | 165, 0, 0, eperm},
		{"i386 read", unix.AUDIT_ARCH_I386, 3, 0, 0, retAllow},
		{"i386 mount", unix.AUDIT_ARCH_I386, 21, 0, 0, eperm},
		{"not born yet", unix.AUDIT_ARCH_X86_64, 600, 0, 0, enosys},
		{"skipped by a tracer", unix.AUDIT_ARCH_X86_64, noCall, 0, 0, enosys},
		{"i386 not born yet", unix.AUDIT_ARCH_I386, 600, 0, 0, enosys},
		{"foreign", unix.AUDIT_ARCH_ARM, 3, 0, 0, retKillThread},
	} {
		if got := m.run(t, c.audit, c.nr, [6]uint64{c.arg0, c.arg1}); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}

func TestMultiplexed(t *testing.T) {
	allow := func(args ...specs.LinuxSeccompArg) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"socket"}, Action: specs.ActAllow, Args: args}, {Names: []string{"shmget"}, Action: specs.ActAllow}},
		}
	}
	eperm := retErrno | uint32(unix.EPERM)
	deny := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"socket"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Value: 40, Op: specs.OpEqualTo}}}},
	}
	for _, c := range []struct {
		name string
		p    *specs.LinuxSeccomp
		nr   uint32
		arg0 uint64
		want uint32
	}{
		{"socketcall(socket)", allow(), 102, 1, retAllow},
		{"socketcall(bind)", allow(), 102, 2, eperm},
		{"ipc(shmget)", allow(), 117, 23, retAllow},
		{"ipc(shmat)", allow(), 117, 21, eperm},
		{"socketcall can't see conditions", allow(specs.LinuxSeccompArg{Value: 2, Op: specs.OpEqualTo}), 102, 1, eperm},
		{"socketcall stops all if some are stopped", deny, 102, 1, eperm},
		{"socketcall of another kind", deny, 102, 3, retAllow},
	} {
		f, err := Assemble(c.p)
		if err != nil {
			t.Fatal(err)
		}
		if got := newVM(t, f).run(t, unix.AUDIT_ARCH_I386, c.nr, [6]uint64{c.arg0}); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}

// Random profiles: whatever the rules, the program means what the model means.
func TestRandomProfiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ops := []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual, specs.OpEqualTo,
	}
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActLog, specs.ActTrap, specs.ActTrace, specs.ActAllow}
	vals := []uint64{0, 1, 2, 3, 7, 8, 0xffffffff, 0x100000000, 0x100000001, 1 << 63, ^uint64(0), 0x8000000080000000}
	for range 8 {
		p := &specs.LinuxSeccomp{DefaultAction: actions[r.IntN(len(actions))], Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM}}
		for range 1 + r.IntN(40) {
			s := specs.LinuxSyscall{Action: actions[r.IntN(len(actions))]}
			for range 1 + r.IntN(4) {
				s.Names = append(s.Names, numbers[r.IntN(len(numbers))].name)
			}
			for range r.IntN(4) {
				s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Op: ops[r.IntN(len(ops))], Value: vals[r.IntN(len(vals))], ValueTwo: vals[r.IntN(len(vals))]})
			}
			p.Syscalls = append(p.Syscalls, s)
		}
		f, err := Assemble(p)
		if err != nil {
			t.Fatal(err)
		}
		check(t, p, newVM(t, f), []arch{amd64, i386, x32, arm64, arm})
		if t.Failed() {
			t.Fatalf("profile %+v", p)
		}
	}
}
