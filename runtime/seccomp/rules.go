package seccomp

import (
	"fmt"
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// The verdicts of a filter: include/uapi/linux/seccomp.h, SECCOMP_RET_*.
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
	retData        = 0x0000ffff
)

// verdict is the value that a filter returns for an action.
func verdict(a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	takesErrno, ret := false, uint32(0)
	switch a {
	case specs.ActKill, specs.ActKillThread:
		ret = retKillThread
	case specs.ActKillProcess:
		ret = retKillProcess
	case specs.ActTrap:
		ret = retTrap
	case specs.ActErrno:
		takesErrno, ret = true, retErrno
	case specs.ActTrace:
		takesErrno, ret = true, retTrace
	case specs.ActAllow:
		ret = retAllow
	case specs.ActLog:
		ret = retLog
	case specs.ActNotify:
		return 0, errs.New(errs.NotImplemented, "seccomp: action %s (a listener for system calls) is not supported", a)
	default:
		return 0, errs.New(errs.Invalid, "seccomp: unknown action %q", a)
	}
	switch {
	case !takesErrno && errnoRet != nil:
		return 0, errs.New(errs.Invalid, "seccomp: errnoRet %d given for action %s, which returns none", *errnoRet, a)
	case !takesErrno:
		return ret, nil
	case errnoRet == nil:
		return ret | uint32(unix.EPERM), nil
	case *errnoRet > retData:
		return 0, errs.New(errs.Invalid, "seccomp: errnoRet %d of action %s is above %d", *errnoRet, a, retData)
	}
	return ret | uint32(*errnoRet), nil
}

// lets says that the verdict lets a call happen, perhaps under a tracer's or logger's eyes.
func lets(ret uint32) bool { return ret == retAllow || ret == retLog || ret&^retData == retTrace }

// rule is one way for a call to get a verdict: all conditions hold.
type rule struct {
	conds []specs.LinuxSeccompArg
	ret   uint32
}

// leaf is what happens to one call: the verdict of the first rule that holds, else ret.
type leaf struct {
	rules  []rule
	ret    uint32
	narrow bool // arguments have 32 bits
	fixed  bool // ret is a rule's without conditions; nothing can be added
}

// callSet is what a profile says about the calls of one architecture.
type callSet struct {
	arch    arch
	def     uint32
	calls   map[uint32]*leaf
	highest uint32 // highest number that the profile names, leaving out ARM's private ones
}

// collect sorts a profile's rules by the calls of one architecture.
func collect(a arch, def uint32, syscalls []specs.LinuxSyscall) (*callSet, error) {
	set := &callSet{arch: a, def: def, calls: make(map[uint32]*leaf, 512)}
	for i := range syscalls {
		s := &syscalls[i]
		ret, err := verdict(s.Action, s.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("rule for %v: %w", s.Names, err)
		}
		rules, err := split(s.Args, ret)
		if err != nil {
			return nil, fmt.Errorf("rule for %v: %w", s.Names, err)
		}
		for _, name := range s.Names {
			set.add(name, rules)
		}
	}
	return set, nil
}

// split makes rules of a profile's conditions: one, or one for each condition if an argument is named twice.
func split(args []specs.LinuxSeccompArg, ret uint32) ([]rule, error) {
	seen, twice := 0, false
	for _, c := range args {
		if c.Index > 5 {
			return nil, errs.New(errs.Invalid, "seccomp: argument index %d is above 5", c.Index)
		}
		switch c.Op {
		case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		default:
			return nil, errs.New(errs.Invalid, "seccomp: unknown operator %q", c.Op)
		}
		twice = twice || seen&(1<<c.Index) != 0
		seen |= 1 << c.Index
	}
	if !twice {
		return []rule{{conds: args, ret: ret}}, nil
	}
	var out []rule
	for i := range args {
		out = append(out, rule{conds: args[i : i+1], ret: ret})
	}
	return out, nil
}

// add applies rules to the call of the given name, if the architecture has it.
func (s *callSet) add(name string, rules []rule) {
	nr := s.arch.lookup(name)
	if nr >= 0 {
		n := uint32(nr)
		if s.arch == x32 {
			n |= x32Bit
		}
		s.put(n, rules)
	}
	if s.arch == i386 {
		s.multiplex("socketcall", socketCalls, name, rules)
		s.multiplex("ipc", ipcCalls, name, rules)
	}
}

// multiplex applies rules to a call's second form behind a multiplexer. Its real arguments are behind a pointer, so
// conditions can't be checked there: a rule that lets some calls through lets none, and one that stops some stops all.
func (s *callSet) multiplex(mux string, selectors map[string]uint64, name string, rules []rule) {
	sel, ok := selectors[name]
	if !ok {
		return
	}
	cond := []specs.LinuxSeccompArg{{Index: 0, Value: sel, Op: specs.OpEqualTo}}
	for _, r := range rules {
		if len(r.conds) == 0 || !lets(r.ret) {
			s.put(uint32(s.arch.lookup(mux)), []rule{{conds: cond, ret: r.ret}})
		}
	}
}

func (s *callSet) put(n uint32, rules []rule) {
	if s.arch != arm || n < armPrivate {
		s.highest = max(s.highest, n)
	}
	l := s.calls[n]
	if l == nil {
		l = &leaf{ret: s.def, narrow: !s.arch.wide()}
		s.calls[n] = l
	}
	for _, r := range rules {
		switch {
		case l.fixed || r.ret == s.def: // a rule that repeats the default says nothing (libseccomp refuses, runc drops it)
		case len(r.conds) == 0:
			*l = leaf{ret: r.ret, fixed: true}
		default:
			l.rules = append(l.rules, r)
		}
	}
}

// interval is a range of numbers, from lo up to the next interval, that share a leaf.
type interval struct {
	lo   uint32
	leaf *leaf
}

// intervals are the numbers from first on as sorted intervals; those above the highest known one get the verdict beyond.
func (s *callSet) intervals(first, beyond uint32) []interval {
	def, above := &leaf{ret: s.def}, &leaf{ret: beyond}
	if len(s.calls) == 0 {
		return []interval{{first, def}}
	}
	nrs := slices.Sorted(maps.Keys(s.calls))
	out := make([]interval, 0, 2*len(nrs)+2)
	out = appendInterval(out, first, def)
	for _, n := range nrs {
		out = appendInterval(out, n, s.calls[n])
		if n < s.highest {
			out = appendInterval(out, n+1, def)
		} else {
			out = appendInterval(out, n+1, above)
		}
	}
	return out
}

// appendInterval adds an interval that begins at lo, not below the last one, and joins what has the same verdict.
func appendInterval(ivs []interval, lo uint32, l *leaf) []interval {
	last := len(ivs) - 1
	if last >= 0 && ivs[last].lo == lo { // an empty interval
		ivs = ivs[:last]
		last--
	}
	if last >= 0 && len(ivs[last].leaf.rules)+len(l.rules) == 0 && ivs[last].leaf.ret == l.ret {
		return ivs
	}
	return append(ivs, interval{lo, l})
}
