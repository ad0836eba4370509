package seccomp

import (
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The instructions that are used. The accumulator is the only register.

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func ret(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

func and(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k}
}

func jump(op uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: jt, Jf: jf, K: k}
}

// skip jumps over n instructions, however many.
func skip(n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}
}

// branch runs the block if the accumulator is k, and else goes on behind it.
func branch(k uint32, block []unix.SockFilter) []unix.SockFilter {
	if len(block) <= math.MaxUint8 {
		return append([]unix.SockFilter{jump(unix.BPF_JEQ, k, 0, uint8(len(block)))}, block...)
	}
	return append([]unix.SockFilter{jump(unix.BPF_JEQ, k, 1, 0), skip(len(block))}, block...)
}

// tree finds the accumulator's interval by binary search and does what its leaf says. All its paths end in a verdict.
func tree(ivs []interval) []unix.SockFilter {
	if len(ivs) == 1 {
		return ivs[0].leaf.emit()
	}
	mid := len(ivs) / 2
	low, high := tree(ivs[:mid]), tree(ivs[mid:])
	out := make([]unix.SockFilter, 0, len(low)+len(high)+2)
	if len(low) <= math.MaxUint8 {
		out = append(out, jump(unix.BPF_JGE, ivs[mid].lo, uint8(len(low)), 0))
	} else {
		out = append(out, jump(unix.BPF_JGE, ivs[mid].lo, 0, 1), skip(len(low)))
	}
	return append(append(out, low...), high...)
}

// emit compares the arguments; the last instruction is a verdict.
func (l *leaf) emit() []unix.SockFilter {
	var out []unix.SockFilter
	ranges, rest := l.ranges()
	for _, r := range rest {
		out = append(out, r.emit(l.narrow)...)
	}
	if ranges != nil {
		return append(out, ranges.emit(l)...)
	}
	return append(out, ret(l.ret))
}

// emit gives the rule's verdict if its conditions hold, and else goes on behind it.
func (r rule) emit(narrow bool) []unix.SockFilter {
	// Made from the end to the beginning, so that the distance to the end of the rule is known for each condition. A
	// rule has at most six conditions, so no distance comes near the 255 of a conditional jump.
	out := []unix.SockFilter{ret(r.ret)}
	for _, c := range slices.Backward(r.conds) {
		out = append(condition(c, narrow, uint8(len(out))), out...)
	}
	return out
}

// condition goes on behind itself if the argument compares well, else it jumps over the fail instructions that follow it.
func condition(c specs.LinuxSeccompArg, narrow bool, fail uint8) []unix.SockFilter {
	lo := offArgs + 8*uint32(c.Index)
	hi := lo + 4
	vlo, vhi := uint32(c.Value), uint32(c.Value>>32)
	if c.Op == specs.OpMaskedEqual { // (argument & Value) == ValueTwo
		low := []unix.SockFilter{load(lo), and(vlo), jump(unix.BPF_JEQ, uint32(c.ValueTwo), 0, fail)}
		if narrow {
			return low
		}
		return append([]unix.SockFilter{load(hi), and(vhi), jump(unix.BPF_JEQ, uint32(c.ValueTwo>>32), 0, fail+3)}, low...)
	}
	// high are the instructions that decide by the high half, or go on to the low one if the high halves are equal; they
	// jump over the low half's two instructions to hold, and over fail more to fail.
	var high []unix.SockFilter
	var low unix.SockFilter
	switch c.Op {
	case specs.OpNotEqual:
		high = []unix.SockFilter{jump(unix.BPF_JEQ, vhi, 0, 2)}
		low = jump(unix.BPF_JEQ, vlo, fail, 0)
	case specs.OpGreaterEqual, specs.OpGreaterThan:
		high = []unix.SockFilter{jump(unix.BPF_JGT, vhi, 3, 0), jump(unix.BPF_JEQ, vhi, 0, 2+fail)}
		low = jump(unix.BPF_JGE, vlo, 0, fail)
		if c.Op == specs.OpGreaterThan {
			low = jump(unix.BPF_JGT, vlo, 0, fail)
		}
	case specs.OpLessThan, specs.OpLessEqual:
		high = []unix.SockFilter{jump(unix.BPF_JGT, vhi, 3+fail, 0), jump(unix.BPF_JEQ, vhi, 0, 2)}
		low = jump(unix.BPF_JGE, vlo, fail, 0)
		if c.Op == specs.OpLessEqual {
			low = jump(unix.BPF_JGT, vlo, fail, 0)
		}
	default: // equal; split has refused unknown operators
		high = []unix.SockFilter{jump(unix.BPF_JEQ, vhi, 0, 2+fail)}
		low = jump(unix.BPF_JEQ, vlo, 0, fail)
	}
	if narrow {
		return []unix.SockFilter{load(lo), low}
	}
	return append(append([]unix.SockFilter{load(hi)}, high...), load(lo), low)
}
