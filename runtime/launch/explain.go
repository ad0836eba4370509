package launch

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// String is what Explain writes.
func (p *Program) String() string {
	var s strings.Builder
	_ = p.Explain(&s) // a strings.Builder never fails
	return s.String()
}

// Explain writes the program for people: the clone, one line for each operation, execve. The form is for reading and for
// golden tests; the binary form is the one to store.
func (p *Program) Explain(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i, s := range p.Slots {
		fmt.Fprintf(b, "slot %d  %s\n", i, s)
	}
	p.explainClone(b)
	for i := range p.Ops {
		p.explainOp(b, i)
	}
	p.explainExec(b)
	return b.Flush()
}

func (p *Program) explainClone(b *bufio.Writer) {
	b.WriteString("clone")
	if p.Clone != 0 {
		fmt.Fprintf(b, "  new %s", flagNames(p.Clone, nsFlags))
	}
	if p.JoinPID >= 0 {
		fmt.Fprintf(b, "  in the pid namespace of slot %d", p.JoinPID)
	}
	if p.Cgroup >= 0 {
		fmt.Fprintf(b, "  in the cgroup of slot %d", p.Cgroup)
	}
	b.WriteByte('\n')
	for _, m := range p.UIDs {
		fmt.Fprintf(b, "  users %d.. are %d.. (%d)\n", m.Inside, m.Outside, m.Count)
	}
	for _, m := range p.GIDs {
		fmt.Fprintf(b, "  groups %d.. are %d.. (%d)\n", m.Inside, m.Outside, m.Count)
	}
}

func (p *Program) explainOp(b *bufio.Writer, i int) {
	op := &p.Ops[i]
	sig := calls[op.Nr]
	args := make([]string, len(op.Args))
	for j, a := range op.Args {
		letter := byte('x')
		if j < len(sig.args) {
			letter = sig.args[j]
		}
		args[j] = p.explainArg(letter, a)
	}
	fmt.Fprintf(b, "%4d  ", i)
	if op.Save >= 0 {
		fmt.Fprintf(b, "r%d = ", op.Save)
	}
	fmt.Fprintf(b, "%s(%s)", sig.name, strings.Join(args, ", "))
	if op.SkipOK > 0 {
		fmt.Fprintf(b, "  done: skip %d", op.SkipOK)
	}
	for _, t := range op.Allow {
		fmt.Fprintf(b, "  %s: ", errnoName(t.Errno))
		if t.Skip > 0 {
			fmt.Fprintf(b, "skip %d", t.Skip)
		} else {
			b.WriteString("fine")
		}
	}
	fmt.Fprintf(b, "  # %s\n", op.Name)
}

func (p *Program) explainArg(letter byte, a Arg) string {
	switch a.Kind {
	case Str:
		return fmt.Sprintf("%q", p.str(a.Value))
	case Slot:
		return fmt.Sprintf("slot %d", a.Value)
	case Reg:
		return fmt.Sprintf("r%d", a.Value)
	case Buf:
		if letter == 'A' && a.Len >= 24 {
			return showAttr(p.Data[a.Value:])
		}
		return p.explainBytes(a)
	}
	return showImm(letter, a.Value)
}

// explainBytes shows short texts as they are, short blocks in hexadecimal words, long ones by their length.
func (p *Program) explainBytes(a Arg) string {
	data := p.Data[a.Value : a.Value+uint64(a.Len)]
	text := len(data) > 0
	for _, c := range data {
		text = text && (c >= ' ' && c < 0x7f || c == '\n')
	}
	switch {
	case text:
		return fmt.Sprintf("%q", data)
	case len(data) <= 64 && p.pointerFree(a):
		return fmt.Sprintf("{%x}", data)
	}
	return fmt.Sprintf("{%d bytes}", len(data))
}

func (p *Program) pointerFree(a Arg) bool {
	for _, r := range p.Relocs {
		if uint64(r.At) >= a.Value && uint64(r.At) < a.Value+uint64(a.Len) {
			return false
		}
	}
	return true
}

func (p *Program) explainExec(b *bufio.Writer) {
	b.WriteString("execve  ")
	for i, at := range p.Exec.Paths {
		if i > 0 {
			b.WriteString(" or ")
		}
		fmt.Fprintf(b, "%q", p.str(uint64(at)))
	}
	argv, _ := p.table(p.Exec.Argv)
	envp, _ := p.table(p.Exec.Envp)
	b.WriteString("\n  argv")
	for _, at := range argv {
		fmt.Fprintf(b, " %q", p.str(uint64(at)))
	}
	b.WriteString("\n  envp")
	for _, at := range envp {
		fmt.Fprintf(b, " %q", p.str(uint64(at)))
	}
	b.WriteByte('\n')
}

func errnoName(e unix.Errno) string {
	if n := unix.ErrnoName(e); n != "" {
		return n
	}
	return fmt.Sprintf("errno %d", int(e))
}
