package runtime

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/runtime/cgroup"
	"skiff/runtime/launch"
	"skiff/runtime/seccomp"
)

// Assembly is a program together with the files its slots refer to. It is what the keeper is sent.
type Assembly struct {
	Program *launch.Program
	Files   []*os.File // slot i is Files[i]
	owned   []*os.File // opened by this package, closed by Close
}

// Stdio are the child's ends of a process's streams. With a terminal all three are the pty's slave. A nil file is /dev/null.
type Stdio struct {
	In, Out, Err *os.File
}

// ContainerInput is all that a container's first process needs.
type ContainerInput struct {
	Spec *specs.Spec
	// Root is the detached mount of the root file system (fsmount(2)), or nil: Spec.Root.Path is used.
	Root *os.File
	// NetNS, if not nil, is the network namespace to join; it overrides the specification's.
	NetNS *os.File
	// Cgroup is where the process is born, or nil: the caller's.
	Cgroup *cgroup.Cgroup
	Stdio  Stdio
	// DevPTS is a detached devpts mount that holds the terminal's slave (see NewPTY), or nil: a new devpts is mounted.
	DevPTS *os.File
	// Base is where the mount namespace starts from (see NewBase), or nil: a copy of the host's. It is not used for containers with
	// a user namespace, with hooks, or that join a mount namespace.
	Base *os.File
	// Preserved are further descriptors for the process, from 3 on.
	Preserved []*os.File
	// Filters remembers assembled seccomp filters between containers; nil: nothing is remembered.
	Filters *seccomp.Cache

	// KeepOrder: see CompileOptions.
	KeepOrder bool
	// NoKeyring leaves the container in our session keyring.
	NoKeyring bool

	// BeforePivot and Gate stop the child on its way, for an OCI runtime's two steps and hooks. The engine itself needs none.
	BeforePivot *Pause
	Gate        *Gate
}

// ExecInput is all that a further process in a running container needs.
type ExecInput struct {
	Process *specs.Process
	Seccomp *specs.LinuxSeccomp // nil: none
	PID     int                 // the container's first process, in our pid namespace
	PIDFD   *os.File            // the same, as a pidfd
	Cgroup  *cgroup.Cgroup
	Stdio   Stdio
	// Preserved are further descriptors for the process, from 3 on.
	Preserved []*os.File
	// Filters remembers assembled seccomp filters between processes; nil: nothing is remembered.
	Filters *seccomp.Cache
}
