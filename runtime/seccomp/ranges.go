package seccomp

import (
	"cmp"
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// argRanges are the values of one argument that all get the same verdict.
type argRanges struct {
	index uint
	ret   uint32
	spans []span
}

// span is lo … hi, both included.
type span struct{ lo, hi uint32 }

// ranges gathers rules that compare one argument with small numbers, so that a long list of them (the default profile
// has one for each socket family) becomes a binary search. It gives nil if that would win nothing, and the rules that
// remain.
func (l *leaf) ranges() (*argRanges, []rule) {
	const enough, none = 3, 6
	if len(l.rules) < enough {
		return nil, l.rules
	}
	g := &argRanges{index: none, ret: l.rules[0].ret}
	var rest []rule
	for _, r := range l.rules {
		if r.ret != g.ret {
			return nil, l.rules // their order matters
		}
		s, ok := r.span(l.narrow)
		if !ok || g.index != none && g.index != r.conds[0].Index {
			rest = append(rest, r)
			continue
		}
		g.index = r.conds[0].Index
		g.spans = append(g.spans, s)
	}
	if len(g.spans) < enough {
		return nil, l.rules
	}
	return g, rest
}

// span is what the rule's only condition lets match, if that is a range of numbers below 2^32.
func (r rule) span(narrow bool) (span, bool) {
	if len(r.conds) != 1 || !narrow && r.conds[0].Value > math.MaxUint32 {
		return span{}, false
	}
	v := uint32(r.conds[0].Value)
	switch r.conds[0].Op {
	case specs.OpEqualTo:
		return span{v, v}, true
	case specs.OpLessEqual:
		return span{0, v}, true
	case specs.OpLessThan:
		return span{0, v - 1}, v > 0
	}
	return span{}, false
}

// emit looks the argument up; what no range holds gets the verdict of l.
func (g *argRanges) emit(l *leaf) []unix.SockFilter {
	slices.SortFunc(g.spans, func(x, y span) int { return cmp.Compare(x.lo, y.lo) })
	var joined []span
	for _, s := range g.spans {
		if last := len(joined) - 1; last >= 0 && uint64(s.lo) <= uint64(joined[last].hi)+1 {
			joined[last].hi = max(joined[last].hi, s.hi)
		} else {
			joined = append(joined, s)
		}
	}
	yes, no := &leaf{ret: g.ret}, &leaf{ret: l.ret}
	ivs := appendInterval(nil, 0, no)
	for _, s := range joined {
		ivs = appendInterval(ivs, s.lo, yes)
		if s.hi < math.MaxUint32 {
			ivs = appendInterval(ivs, s.hi+1, no)
		}
	}
	lo := offArgs + 8*uint32(g.index)
	out := []unix.SockFilter{load(lo)}
	if !l.narrow {
		out = []unix.SockFilter{load(lo + 4), jump(unix.BPF_JEQ, 0, 1, 0), ret(l.ret), load(lo)}
	}
	return append(out, tree(ivs)...)
}
