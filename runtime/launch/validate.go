package launch

import (
	"bytes"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// Validate checks that a program can't reach outside itself: every pointer into the data, every slot, register, skip and
// system call number. It does not judge what the program does. Errors are of class Invalid.
func (p *Program) Validate() error {
	if err := p.validateHead(); err != nil {
		return err
	}
	for i := range p.Ops {
		if err := p.validateOp(i); err != nil {
			return err
		}
	}
	for i, r := range p.Relocs {
		if r.At%8 != 0 || uint64(r.At)+8 > uint64(len(p.Data)) || uint64(r.To) >= uint64(len(p.Data)) {
			return errs.New(errs.Invalid, "launch program: relocation %d is outside the data", i)
		}
	}
	return p.validateExec()
}

func (p *Program) validateHead() error {
	switch {
	case p.Clone&^cloneFlags != 0:
		return errs.New(errs.Invalid, "launch program: clone flags %#x are not all of namespaces", p.Clone)
	case len(p.Slots) > maxSlots, p.Cgroup >= len(p.Slots), p.JoinPID >= len(p.Slots), p.Cgroup < NoSlot, p.JoinPID < NoSlot:
		return errs.New(errs.Invalid, "launch program: no such slot (cgroup %d, pid namespace %d of %d)", p.Cgroup, p.JoinPID, len(p.Slots))
	case p.Keep < 3 || p.Keep > maxKeep:
		return errs.New(errs.Invalid, "launch program: can't keep %d descriptors", p.Keep)
	case p.Registers < 0 || p.Registers > maxRegs:
		return errs.New(errs.Invalid, "launch program: %d registers", p.Registers)
	case len(p.Ops) > maxOps || len(p.Data) > maxData || len(p.Exec.Paths) > maxPaths || len(p.Relocs) > maxData/8:
		return errs.New(errs.Invalid, "launch program: too large (%d operations, %d bytes of data)", len(p.Ops), len(p.Data))
	case len(p.UIDs) > maxMaps || len(p.GIDs) > maxMaps:
		return errs.New(errs.Invalid, "launch program: more than %d lines in a user namespace's map", maxMaps)
	case (len(p.UIDs) > 0 || len(p.GIDs) > 0) && p.Clone&unix.CLONE_NEWUSER == 0:
		return errs.New(errs.Invalid, "launch program: user and group maps need a new user namespace")
	}
	return nil
}

func (p *Program) validateOp(i int) error {
	op := &p.Ops[i]
	if _, ok := calls[op.Nr]; !ok {
		return errs.New(errs.Invalid, "launch program: operation %d (%s): system call %d is not one that programs may make", i, op.Name, op.Nr)
	}
	if len(op.Args) > 6 || len(op.Allow) > maxAllow || len(op.Name) > maxName {
		return errs.New(errs.Invalid, "launch program: operation %d (%s): too many arguments", i, op.Name)
	}
	if op.Save < NoRegister || op.Save >= p.Registers {
		return errs.New(errs.Invalid, "launch program: operation %d (%s): no register %d", i, op.Name, op.Save)
	}
	skip := int(op.SkipOK)
	for _, t := range op.Allow {
		if t.Errno == 0 || t.Errno > 4095 {
			return errs.New(errs.Invalid, "launch program: operation %d (%s): no error %d", i, op.Name, int(t.Errno))
		}
		skip = max(skip, int(t.Skip))
	}
	if i+1+skip > len(p.Ops) {
		return errs.New(errs.Invalid, "launch program: operation %d (%s): skips past the end", i, op.Name)
	}
	for j, a := range op.Args {
		if !p.validArg(a) {
			return errs.New(errs.Invalid, "launch program: operation %d (%s): argument %d points nowhere", i, op.Name, j)
		}
	}
	return nil
}

func (p *Program) validArg(a Arg) bool {
	switch a.Kind {
	case Imm:
		return true
	case Str:
		return p.validString(a.Value)
	case Buf:
		return a.Value <= uint64(len(p.Data)) && uint64(a.Len) <= uint64(len(p.Data))-a.Value
	case Slot:
		return a.Value < uint64(len(p.Slots))
	case Reg:
		return a.Value < uint64(p.Registers)
	}
	return false
}

func (p *Program) validString(at uint64) bool {
	return at < uint64(len(p.Data)) && bytes.IndexByte(p.Data[at:], 0) >= 0
}

func (p *Program) validateExec() error {
	for i, at := range p.Exec.Paths {
		if !p.validString(uint64(at)) {
			return errs.New(errs.Invalid, "launch program: path %d to execute points nowhere", i)
		}
	}
	if len(p.Exec.Paths) == 0 && !p.Exec.Search {
		return errs.New(errs.Invalid, "launch program: nothing to execute")
	}
	for _, at := range []uint32{p.Exec.Argv, p.Exec.Envp} {
		if !p.validTable(at) {
			return errs.New(errs.Invalid, "launch program: a table of arguments or environment points nowhere")
		}
	}
	return nil
}

// validTable walks a pointer table up to its NULL: every word before that must be relocated to a string.
func (p *Program) validTable(at uint32) bool {
	_, ok := p.table(at)
	return ok
}

// table gives the strings' offsets of a pointer table.
func (p *Program) table(at uint32) ([]uint32, bool) {
	to := p.relocations()
	var list []uint32
	for ; at%8 == 0 && uint64(at)+8 <= uint64(len(p.Data)); at += 8 {
		target, ok := to[at]
		switch {
		case ok && p.validString(uint64(target)):
			list = append(list, target)
		case ok:
			return nil, false
		default:
			return list, bytes.Equal(p.Data[at:at+8], make([]byte, 8))
		}
	}
	return nil, false
}

func (p *Program) relocations() map[uint32]uint32 {
	to := make(map[uint32]uint32, len(p.Relocs))
	for _, r := range p.Relocs {
		to[r.At] = r.To
	}
	return to
}

// str is the string at an offset, "" if there is none.
func (p *Program) str(at uint64) string {
	if at >= uint64(len(p.Data)) {
		return ""
	}
	s, _, _ := bytes.Cut(p.Data[at:], []byte{0})
	return string(s)
}
