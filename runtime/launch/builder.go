package launch

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// Builder makes a Program. Strings are stored once. The zero value is not ready, see NewBuilder.
type Builder struct {
	Program
	strings map[string]uint32
}

// NewBuilder begins an empty program that keeps the three standard streams.
func NewBuilder() *Builder {
	b := &Builder{strings: make(map[string]uint32, 64)}
	b.Cgroup, b.JoinPID, b.Keep = NoSlot, NoSlot, 3
	b.Ops = make([]Op, 0, 128)
	b.Data = make([]byte, 0, 4<<10)
	return b
}

// Finish gives the program, which the builder must not be used on any more.
func (b *Builder) Finish() (*Program, error) {
	p := b.Program
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &p, nil
}

// Int is an immediate argument.
func Int[T ~int | ~uint | ~int32 | ~uint32 | ~int64 | ~uint64 | ~uintptr](v T) Arg {
	return Arg{Kind: Imm, Value: uint64(v)}
}

// Str puts s into the data. s must not hold a NUL; what follows one is cut.
func (b *Builder) Str(s string) Arg {
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	at, ok := b.strings[s]
	if !ok {
		at = uint32(len(b.Data))
		b.Data = append(append(b.Data, s...), 0)
		b.strings[s] = at
	}
	return Arg{Kind: Str, Value: uint64(at)}
}

// Bytes puts p into the data, aligned to 8 bytes.
func (b *Builder) Bytes(p []byte) Arg {
	at := b.align()
	b.Data = append(b.Data, p...)
	return Arg{Kind: Buf, Value: uint64(at), Len: uint32(len(p))}
}

// Words puts 64-bit integers into the data.
func (b *Builder) Words(ws ...uint64) Arg {
	at := b.align()
	for _, w := range ws {
		b.Data = binary.NativeEndian.AppendUint64(b.Data, w)
	}
	return Arg{Kind: Buf, Value: uint64(at), Len: uint32(8 * len(ws))}
}

// Point makes the word at index i of the data block a pointer to what to points to.
func (b *Builder) Point(block Arg, i int, to Arg) {
	b.Relocs = append(b.Relocs, Reloc{At: uint32(block.Value) + 8*uint32(i), To: uint32(to.Value)})
}

// Table puts a NULL-terminated table of pointers to the strings into the data and gives its offset.
func (b *Builder) Table(ss []string) uint32 {
	ptrs := make([]Arg, len(ss))
	for i, s := range ss {
		ptrs[i] = b.Str(s)
	}
	t := b.Words(make([]uint64, len(ss)+1)...)
	for i, p := range ptrs {
		b.Point(t, i, p)
	}
	return uint32(t.Value)
}

// Slot adds a slot and gives the argument that stands for its descriptor.
func (b *Builder) Slot(name string) Arg {
	b.Slots = append(b.Slots, name)
	return Arg{Kind: Slot, Value: uint64(len(b.Slots) - 1)}
}

// Do adds an operation. The pointer is good until the next one is added.
func (b *Builder) Do(name string, nr uintptr, args ...Arg) *Op {
	b.Ops = append(b.Ops, Op{Nr: uint32(nr), Args: args, Name: name, Save: NoRegister})
	return &b.Ops[len(b.Ops)-1]
}

// Open adds an operation whose result goes into a new register and gives the register.
func (b *Builder) Open(name string, nr uintptr, args ...Arg) (*Op, Arg) {
	op := b.Do(name, nr, args...)
	op.Save = b.Registers
	b.Registers++
	return op, Arg{Kind: Reg, Value: uint64(op.Save)}
}

// Close adds the closing of a register or slot.
func (b *Builder) Close(a Arg) *Op { return b.Do("close", unix.SYS_CLOSE, a) }

// OK tolerates errors of an operation, going on with the next one.
func (o *Op) OK(errnos ...unix.Errno) *Op { return o.Else(0, errnos...) }

// Else tolerates errors of an operation; the next skip operations are left out then.
func (o *Op) Else(skip int, errnos ...unix.Errno) *Op {
	for _, e := range errnos {
		o.Allow = append(o.Allow, Tolerance{Errno: e, Skip: uint16(skip)})
	}
	return o
}

// Then leaves out the next skip operations after success.
func (o *Op) Then(skip int) *Op {
	o.SkipOK = uint16(skip)
	return o
}

// align pads the data to 8 bytes and gives its length.
func (b *Builder) align() uint32 {
	for len(b.Data)%8 != 0 {
		b.Data = append(b.Data, 0)
	}
	return uint32(len(b.Data))
}
