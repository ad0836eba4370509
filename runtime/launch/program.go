package launch

import (
	"golang.org/x/sys/unix"
)

// Kind says what an argument's value means.
type Kind uint8

// The kinds of arguments.
const (
	Imm  Kind = iota // the value itself
	Str              // a pointer to the NUL-terminated string at Data[Value]
	Buf              // a pointer to the Len bytes at Data[Value]
	Slot             // the descriptor of slot Value
	Reg              // what is in register Value
	kinds
)

// Arg is an argument of an operation.
type Arg struct {
	Kind  Kind
	Value uint64
	Len   uint32 // of Buf
}

// Tolerance is an error that does not end the program.
type Tolerance struct {
	Errno unix.Errno
	Skip  uint16 // how many of the next operations are left out then
}

// Op is one system call.
type Op struct {
	Nr     uint32 // number of the system call on this architecture; only those in the table of names
	Args   []Arg  // at most 6
	Name   string // what is done, for people: "mount proc on /proc"
	Save   int    // register that gets the result (-1 after a tolerated error), or NoRegister
	SkipOK uint16 // how many of the next operations are left out after success
	Allow  []Tolerance
}

// NoSlot and NoRegister stand for none.
const (
	NoSlot     = -1
	NoRegister = -1
)

// Reloc is a pointer inside the data: the 8 bytes at Data[At] become the address of Data[To].
type Reloc struct{ At, To uint32 }

// IDMap is a line of /proc/PID/uid_map or gid_map.
type IDMap struct{ Inside, Outside, Count uint32 }

// Exec is the end of a program.
type Exec struct {
	Name   string   // argv[0] as the user gave it
	Search bool     // Paths come from PATH: what can't be executed is passed over, as exec.LookPath of Go does
	Paths  []uint32 // offsets of the candidates' strings, tried in order; none: "not found"
	Argv   uint32   // offset of the NULL-terminated table
	Envp   uint32   // the same
}

// Program is a launch program. See the package's documentation for the words.
type Program struct {
	Clone     uint64 // CLONE_NEW* flags of clone3(2)
	Cgroup    int    // slot of a cgroup v2 folder that the child is born in, or NoSlot
	JoinPID   int    // slot of a pidfd or namespace file whose pid namespace the child is born in, or NoSlot
	Keep      int    // descriptors 0..Keep-1 go through execve; at least 3
	UIDs      []IDMap
	GIDs      []IDMap
	Setgroups bool // setgroups(2) is allowed in the new user namespace

	Slots     []string // what each slot is, for people
	Registers int
	Ops       []Op
	Exec      Exec
	Data      []byte
	Relocs    []Reloc
}

// Limits of a program that Validate enforces. The data holds argv and envp, which the kernel itself bounds (a quarter of the stack limit).
const (
	maxOps   = 16 << 10
	maxSlots = 1024
	maxRegs  = 1024
	maxData  = 16 << 20
	maxKeep  = 1024
	maxPaths = 1024
	maxMaps  = 340 // the kernel's UID_GID_MAP_MAX_EXTENTS
	maxAllow = 4
	maxName  = 4096
)

// cloneFlags are the flags a program may ask for.
const cloneFlags = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWUSER | unix.CLONE_NEWCGROUP
