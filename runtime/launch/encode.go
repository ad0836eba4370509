package launch

import (
	"encoding/binary"
	"math"
	"runtime"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// magic begins every encoded program. System call numbers and byte order are the machine's, so its architecture is part of it.
const magic = "skiff-launch/1 " + runtime.GOARCH + "\n"

// MarshalBinary encodes the program: the magic line, then all fields in order, integers as varints, strings and lists
// after their length.
func (p *Program) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, len(magic)+len(p.Data)+64*len(p.Ops)+256)
	b = append(b, magic...)
	for _, v := range []uint64{p.Clone, uint64(p.Cgroup + 1), uint64(p.JoinPID + 1), uint64(p.Keep), word(p.Setgroups), uint64(p.Registers)} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendMaps(b, p.UIDs)
	b = appendMaps(b, p.GIDs)
	b = binary.AppendUvarint(b, uint64(len(p.Slots)))
	for _, s := range p.Slots {
		b = appendString(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(p.Ops)))
	for i := range p.Ops {
		b = appendOp(b, &p.Ops[i])
	}
	b = appendString(b, p.Exec.Name)
	b = binary.AppendUvarint(b, word(p.Exec.Search))
	b = binary.AppendUvarint(b, uint64(len(p.Exec.Paths)))
	for _, at := range p.Exec.Paths {
		b = binary.AppendUvarint(b, uint64(at))
	}
	b = binary.AppendUvarint(b, uint64(p.Exec.Argv))
	b = binary.AppendUvarint(b, uint64(p.Exec.Envp))
	b = binary.AppendUvarint(b, uint64(len(p.Relocs)))
	for _, r := range p.Relocs {
		b = binary.AppendUvarint(b, uint64(r.At))
		b = binary.AppendUvarint(b, uint64(r.To))
	}
	return appendString(b, string(p.Data)), nil
}

func appendOp(b []byte, op *Op) []byte {
	for _, v := range []uint64{uint64(op.Nr), uint64(op.Save + 1), uint64(op.SkipOK), uint64(len(op.Args)), uint64(len(op.Allow))} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendString(b, op.Name)
	for _, a := range op.Args {
		b = append(b, byte(a.Kind))
		b = binary.AppendUvarint(b, a.Value)
		if a.Kind == Buf {
			b = binary.AppendUvarint(b, uint64(a.Len))
		}
	}
	for _, t := range op.Allow {
		b = binary.AppendUvarint(b, uint64(t.Errno))
		b = binary.AppendUvarint(b, uint64(t.Skip))
	}
	return b
}

func appendMaps(b []byte, ms []IDMap) []byte {
	b = binary.AppendUvarint(b, uint64(len(ms)))
	for _, m := range ms {
		for _, v := range []uint32{m.Inside, m.Outside, m.Count} {
			b = binary.AppendUvarint(b, uint64(v))
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func word(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// UnmarshalBinary decodes and validates a program. The data is copied. Errors are of class Invalid.
func (p *Program) UnmarshalBinary(b []byte) error {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return errs.New(errs.Invalid, "launch program: not one of this version and architecture (%q expected)", magic)
	}
	d := decoder{b: b[len(magic):]}
	q := Program{Clone: d.num(math.MaxUint64)}
	q.Cgroup = d.int(maxSlots) - 1
	q.JoinPID = d.int(maxSlots) - 1
	q.Keep = d.int(maxKeep)
	q.Setgroups = d.num(1) == 1
	q.Registers = d.int(maxRegs)
	q.UIDs, q.GIDs = d.maps(), d.maps()
	q.Slots = make([]string, d.count(maxSlots))
	for i := range q.Slots {
		q.Slots[i] = d.str(maxName)
	}
	q.Ops = make([]Op, d.count(maxOps))
	for i := range q.Ops {
		d.op(&q.Ops[i])
	}
	q.Exec.Name = d.str(maxData)
	q.Exec.Search = d.num(1) == 1
	q.Exec.Paths = make([]uint32, d.count(maxPaths))
	for i := range q.Exec.Paths {
		q.Exec.Paths[i] = d.u32()
	}
	q.Exec.Argv, q.Exec.Envp = d.u32(), d.u32()
	q.Relocs = make([]Reloc, d.count(maxData/8))
	for i := range q.Relocs {
		q.Relocs[i] = Reloc{At: d.u32(), To: d.u32()}
	}
	q.Data = []byte(d.str(maxData))
	if d.bad || len(d.b) > 0 {
		return errs.New(errs.Invalid, "launch program: cut short, too large or with bytes at its end")
	}
	if err := q.Validate(); err != nil {
		return err
	}
	*p = q
	return nil
}

// decoder reads values off a byte string; after the first bad one everything reads as zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) num(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > most || d.bad {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int(most int) int { return int(d.num(uint64(most))) }
func (d *decoder) u32() uint32      { return uint32(d.num(math.MaxUint32)) }

// count reads the length of a list; no list can have more elements than there are bytes left.
func (d *decoder) count(most int) int { return d.int(min(most, len(d.b))) }

func (d *decoder) str(most int) string {
	n := d.count(most)
	if n > len(d.b) {
		d.bad, d.b = true, nil
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) maps() []IDMap {
	n := d.count(maxMaps)
	if n == 0 {
		return nil
	}
	ms := make([]IDMap, n)
	for i := range ms {
		ms[i] = IDMap{Inside: d.u32(), Outside: d.u32(), Count: d.u32()}
	}
	return ms
}

func (d *decoder) op(op *Op) {
	op.Nr = d.u32()
	op.Save = d.int(maxRegs) - 1
	op.SkipOK = uint16(d.num(math.MaxUint16))
	args, allow := d.int(6), d.int(maxAllow)
	op.Name = d.str(maxName)
	op.Args = make([]Arg, args)
	for i := range op.Args {
		a := &op.Args[i]
		a.Kind = Kind(d.num(uint64(kinds) - 1))
		a.Value = d.num(math.MaxUint64)
		if a.Kind == Buf {
			a.Len = d.u32()
		}
	}
	for range allow {
		op.Allow = append(op.Allow, Tolerance{Errno: unix.Errno(d.num(4095)), Skip: uint16(d.num(math.MaxUint16))})
	}
}
