package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// program is the eBPF program (BPF_PROG_TYPE_CGROUP_DEVICE) that returns 1 for what the rules allow. It reads struct
// bpf_cgroup_dev_ctx: access and type in one word, then major, then minor.
func (s deviceState) program() (asm.Instructions, error) {
	const kind, acc, major, minor, tmp = asm.R2, asm.R3, asm.R4, asm.R5, asm.R6
	ins := asm.Instructions{
		asm.LoadMem(kind, asm.R1, 0, asm.Word),
		asm.Mov.Reg(acc, kind),
		asm.And.Imm(kind, 0xffff),
		asm.RSh.Imm(acc, 16),
		asm.LoadMem(major, asm.R1, 4, asm.Word),
		asm.LoadMem(minor, asm.R1, 8, asm.Word),
	}
	def, verdict := int32(0), int32(1)
	if s.allow {
		def, verdict = 1, 0
	}
	for i, e := range s.exceptions {
		next := fmt.Sprintf("next%d", i)
		k := int32(unix.BPF_DEVCG_DEV_CHAR)
		if e.kind == 'b' {
			k = unix.BPF_DEVCG_DEV_BLOCK
		}
		block := asm.Instructions{asm.JNE.Imm(kind, k, next)}
		for _, n := range []struct {
			reg asm.Register
			val int64
		}{{major, e.major}, {minor, e.minor}} {
			if n.val > math.MaxInt32 {
				return nil, fmt.Errorf("device number %d of %s is too large", n.val, e)
			}
			if n.val >= 0 {
				block = append(block, asm.JNE.Imm(n.reg, int32(n.val), next))
			}
		}
		if e.access != anyAccess {
			block = append(block, asm.Mov.Reg(tmp, acc))
			if s.allow { // denied: any of these ways
				block = append(block, asm.And.Imm(tmp, int32(e.access)), asm.JEq.Imm(tmp, 0, next))
			} else { // allowed: no way but these
				block = append(block, asm.And.Imm(tmp, int32(anyAccess&^e.access)), asm.JNE.Imm(tmp, 0, next))
			}
		}
		block = append(block, asm.Mov.Imm(asm.R0, verdict), asm.Return())
		ins = append(ins, block...)
		// The label goes to whatever comes next: the next exception's first instruction, or the default's.
		ins = append(ins, asm.Mov.Imm(asm.R0, def).WithSymbol(next))
	}
	return append(ins, asm.Mov.Imm(asm.R0, def), asm.Return()), nil
}

// attach puts the program on a v2 group, in place of ours that may be there. It stays as long as the group does.
func (s deviceState) attach(dir string) error {
	ins, err := s.program()
	if err != nil {
		return err
	}
	cg, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = cg.Close() }() // read only
	old, err := attached(cg)
	if err != nil {
		return err
	}
	if s.allow && len(s.exceptions) == 0 && len(old) == 0 {
		return nil // all is allowed without a program
	}
	defer closeAll(old)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "skiff_devices", Type: ebpf.CGroupDevice, Instructions: ins, License: "Apache",
	})
	if err != nil {
		return fmt.Errorf("load eBPF program for device rules: %w", err)
	}
	defer func() { _ = prog.Close() }() // the group holds it from here on
	opts := link.RawAttachProgramOptions{
		Target: int(cg.Fd()), Program: prog, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI,
	}
	if len(old) == 1 { // swapped in one step
		opts.Anchor = link.ReplaceProgram(old[0])
		old = nil
	}
	if err := link.RawAttachProgram(opts); err != nil {
		return fmt.Errorf("attach eBPF program for device rules: %w", err)
	}
	for _, p := range old {
		err = errors.Join(err, link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(cg.Fd()), Program: p, Attach: ebpf.AttachCGroupDevice}))
	}
	return err
}

// attached are the device programs on a group itself (not on those above it).
func attached(cg *os.File) ([]*ebpf.Program, error) {
	res, err := link.QueryPrograms(link.QueryOptions{Target: int(cg.Fd()), Attach: ebpf.AttachCGroupDevice})
	if err != nil {
		return nil, fmt.Errorf("ask for the eBPF programs of %s: %w", cg.Name(), err)
	}
	var out []*ebpf.Program
	for _, p := range res.Programs {
		prog, err := ebpf.NewProgramFromID(p.ID)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("open eBPF program %d of %s: %w", p.ID, cg.Name(), err)
		}
		out = append(out, prog)
	}
	return out, nil
}

func closeAll(progs []*ebpf.Program) {
	for _, p := range progs {
		_ = p.Close() // a read-only handle
	}
}
