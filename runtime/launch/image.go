package launch

import (
	"encoding/binary"
	"fmt"
	"os/signal"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// image is a program made ready for the child, and all the memory that the child uses: calls, registers, data, stack. It lies in a
// mapping of its own, in which every pointer points into the same mapping.
type image struct {
	clone   cloneArgs
	mem     []byte // the whole mapping
	ops     []call
	regs    []uintptr
	paths   []uintptr // candidates of execve
	ignored []uintptr // signals that may be ignored
	argv    uintptr
	envp    uintptr
	search  bool
	undump  bool
	keep    uintptr // the error pipe's place
	errRead uintptr // the parent's end of the error pipe
	err     uintptr // the child's end
	sync    uintptr // read end of the maps' pipe, or none
	tell    uintptr // its write end, the parent's
	pidfd   int32   // written by the kernel in the parent
	report  [2]uint32
	scratch [32]uint64 // poll, a byte read, sigaction (all zero: SIG_DFL)
	tls     [4]uint64  // thread-local storage, empty: the parent's may be missing
	times   []int64    // shared memory for the time after each operation, or nil

	clockMem []byte // the mapping of times
}

// none is an absent descriptor.
const none = ^uintptr(0)

// call is an operation in the child's form.
type call struct {
	nr     uintptr
	args   [6]uintptr
	regs   uint8 // bit i: args[i] is the number of a register
	allows uint8
	save   int16
	skipOK uint16
	allow  [maxAllow]tolerated
}

type tolerated struct{ errno, skip uint16 }

// cloneArgs is struct clone_args of clone3(2), up to cgroup.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// stackSize is plenty: the linker checks that the child's code needs less than a kilobyte.
const stackSize = 8 << 10

// arena hands out pieces of a mapping.
type arena struct{ mem []byte }

func (a *arena) take(size uintptr) unsafe.Pointer {
	p := unsafe.Pointer(&a.mem[0])
	a.mem = a.mem[(size+15)&^15:]
	return p
}

func takeSlice[T any](a *arena, n int) []T {
	var zero T
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(a.take(uintptr(n)*unsafe.Sizeof(zero))), n)
}

// load makes the child's form of the program. release gives the memory back.
func (p *Program) load(fds []int) (im *image, release func(), err error) {
	ignored := ignoredSignals()
	words := p.Registers + len(p.Exec.Paths) + len(ignored)
	size := unsafe.Sizeof(image{}) + uintptr(len(p.Ops))*unsafe.Sizeof(call{}) + 8*uintptr(words) + uintptr(len(p.Data)) + stackSize + 8*16
	size = (size + 4095) &^ 4095
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, nil, fmt.Errorf("memory for the new process: %w", err)
	}
	a := &arena{mem: mem[stackSize:]}
	im = (*image)(a.take(unsafe.Sizeof(image{})))
	im.ops, im.regs = takeSlice[call](a, len(p.Ops)), takeSlice[uintptr](a, p.Registers)
	im.paths, im.ignored = takeSlice[uintptr](a, len(p.Exec.Paths)), takeSlice[uintptr](a, len(ignored))
	copy(im.ignored, ignored)
	im.mem = mem
	im.search, im.undump, im.keep, im.sync, im.tell = p.Exec.Search, p.Clone&unix.CLONE_NEWUSER == 0, uintptr(p.Keep), none, none
	data := unsafe.Slice((*byte)(a.take(uintptr(len(p.Data))+1)), len(p.Data)+1) // a byte more, so that every offset has an address
	base := uintptr(unsafe.Pointer(&data[0]))
	copy(data, p.Data)
	for _, r := range p.Relocs {
		binary.NativeEndian.PutUint64(data[r.At:], uint64(base)+uint64(r.To))
	}
	for i := range p.Ops {
		im.ops[i].load(&p.Ops[i], base, fds)
	}
	for i, at := range p.Exec.Paths {
		im.paths[i] = base + uintptr(at)
	}
	im.argv, im.envp = base+uintptr(p.Exec.Argv), base+uintptr(p.Exec.Envp)
	im.clone = cloneArgs{
		pidfd: uint64(uintptr(unsafe.Pointer(&im.pidfd))),
		flags: p.Clone | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_SETTLS, exitSignal: uint64(unix.SIGCHLD),
		stack: uint64(uintptr(unsafe.Pointer(&mem[0]))), stackSize: stackSize, tls: uint64(uintptr(unsafe.Pointer(&im.tls[2]))),
	}
	if p.Cgroup >= 0 {
		im.clone.flags |= unix.CLONE_INTO_CGROUP
		im.clone.cgroup = uint64(fds[p.Cgroup])
	}
	return im, func() { _ = unix.Munmap(mem) }, nil
}

func (c *call) load(op *Op, base uintptr, fds []int) {
	c.nr, c.save, c.skipOK, c.allows = uintptr(op.Nr), int16(op.Save), op.SkipOK, uint8(len(op.Allow))
	for j, t := range op.Allow {
		c.allow[j] = tolerated{errno: uint16(t.Errno), skip: t.Skip}
	}
	for j, a := range op.Args {
		switch a.Kind {
		case Str, Buf:
			c.args[j] = base + uintptr(a.Value)
		case Slot:
			c.args[j] = uintptr(fds[a.Value])
		case Reg:
			c.regs |= 1 << j
			c.args[j] = uintptr(a.Value)
		default:
			c.args[j] = uintptr(a.Value)
		}
	}
}

// ignoredSignals are those that this process may ignore: those that os/signal was told to ignore, and those for which
// the Go runtime keeps what it was started with (nohup).
func ignoredSignals() []uintptr {
	list := []uintptr{
		uintptr(unix.SIGHUP), uintptr(unix.SIGINT), uintptr(unix.SIGTSTP), uintptr(unix.SIGTTIN), uintptr(unix.SIGTTOU), uintptr(unix.SIGCONT),
		32, 33, 34, // used by libcs inside
	}
	for sig := syscall.Signal(1); sig < 65; sig++ {
		if signal.Ignored(sig) && !slices.Contains(list, uintptr(sig)) {
			list = append(list, uintptr(sig))
		}
	}
	return list
}
