package seccomp

import (
	"runtime"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// arch is an architecture of the number table. Two of them, amd64 and x32, share one audit value.
type arch int

const (
	amd64 arch = iota
	i386
	x32
	arm64
	arm
	archs = iota
)

// number is a line of the table of system calls.
type number struct {
	name string
	nr   [archs]int32 // -1: the architecture does not have it
}

const (
	x32Bit     = 0x40000000 // set in the number of an x32 call
	armPrivate = 0xf0000    // first private number of the ARM EABI (cacheflush, set_tls …)
	noCall     = 0xffffffff // what a tracer writes to skip a call
)

// archNames are the OCI names of the architectures that have a table.
var archNames = map[specs.Arch]arch{
	specs.ArchX86_64: amd64, specs.ArchX86: i386, specs.ArchX32: x32, specs.ArchAARCH64: arm64, specs.ArchARM: arm,
}

// foreignArchs are OCI names that no process on amd64, 386, arm64 or arm can ever have: naming one changes nothing.
var foreignArchs = []specs.Arch{
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
	specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
	specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// audit is the kernel's AUDIT_ARCH_ value of a.
func (a arch) audit() uint32 {
	switch a {
	case i386:
		return unix.AUDIT_ARCH_I386
	case arm64:
		return unix.AUDIT_ARCH_AARCH64
	case arm:
		return unix.AUDIT_ARCH_ARM
	default:
		return unix.AUDIT_ARCH_X86_64
	}
}

// wide says that arguments are compared with 64 bits. x32 passes 32-bit values, as libseccomp has it.
func (a arch) wide() bool { return a == amd64 || a == arm64 }

// lookup finds the number of a call, -1 if a does not have it.
func (a arch) lookup(name string) int32 {
	i, ok := slices.BinarySearchFunc(numbers[:], name, func(n number, name string) int { return strings.Compare(n.name, name) })
	if !ok {
		return -1
	}
	return numbers[i].nr[a]
}

// native is the architecture of this program.
func native() (arch, error) {
	switch runtime.GOARCH {
	case "amd64":
		return amd64, nil
	case "386":
		return i386, nil
	case "arm64":
		return arm64, nil
	case "arm":
		return arm, nil
	}
	return 0, errs.New(errs.NotImplemented, "seccomp: no table of system calls for %s", runtime.GOARCH)
}

// resolve gives the architectures of a profile, each once, the native one always and first.
func resolve(names []specs.Arch) ([]arch, error) {
	first, err := native()
	if err != nil {
		return nil, err
	}
	out := []arch{first}
	for _, name := range names {
		a, ok := archNames[name]
		switch {
		case !ok && slices.Contains(foreignArchs, name):
		case !ok:
			return nil, errs.New(errs.Invalid, "seccomp: unknown architecture %q", name)
		case !slices.Contains(out, a):
			out = append(out, a)
		}
	}
	return out, nil
}

// socketCalls and ipcCalls are the calls that 386 also has behind socketcall(2) and ipc(2), with their selector in the
// first argument (include/uapi/linux/net.h and ipc.h).
var (
	socketCalls = map[string]uint64{
		"socket": 1, "bind": 2, "connect": 3, "listen": 4, "accept": 5, "getsockname": 6, "getpeername": 7,
		"socketpair": 8, "send": 9, "recv": 10, "sendto": 11, "recvfrom": 12, "shutdown": 13, "setsockopt": 14,
		"getsockopt": 15, "sendmsg": 16, "recvmsg": 17, "accept4": 18, "recvmmsg": 19, "sendmmsg": 20,
	}
	ipcCalls = map[string]uint64{
		"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
		"shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
	}
)
