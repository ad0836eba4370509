package container

import (
	"context"
	"os"

	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/image"
	"skiff/keeper"
	"skiff/layer"
	"skiff/network"
)

// Images is what containers need of the image service.
type Images interface {
	// Resolve finds an image by name, digest, id or unique id prefix; errs.NotFound with Docker's "No such image: …" text.
	Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (image.Image, error)
}

// Layers is what containers need of the layer store.
type Layers interface {
	// Prepare makes the snapshot of a new container; nothing is mounted.
	Prepare(ctx context.Context, id string, chain digest.Digest, volatile bool) (layer.Snapshot, error)
	// Snapshot finds it again.
	Snapshot(ctx context.Context, id string) (layer.Snapshot, error)
	// Mount gives a detached mount of the snapshot (open_tree/fsmount descriptor). It vanishes when the last user is gone.
	Mount(ctx context.Context, s layer.Snapshot) (*os.File, error)
	// Usage is the number of bytes in the snapshot's own files.
	Usage(ctx context.Context, id string) (int64, error)
	// Discard removes the snapshot: renamed to the trash folder at once, its files deleted in the background.
	Discard(ctx context.Context, id string) error
	// Snapshots lists the ids of all snapshots, for reconciling at start.
	Snapshots(ctx context.Context) ([]string, error)
}

// Networks is what containers need of the network manager.
type Networks interface {
	Connect(ctx context.Context, r network.Request) (network.Endpoint, error)
	// Isolated gives a namespace with lo alone (--network none), from the same pool.
	Isolated(ctx context.Context, containerID string, sysctls map[string]string) (*os.File, error)
	// Release gives back the address and ports of a container, and removes its interface off the caller's path. Unknown ids are no error.
	Release(ctx context.Context, containerID string) error
	// Adopt takes over what the running containers hold, after a restart of the daemon, and removes everything else.
	Adopt(ctx context.Context, held []network.Held) error
	// Hosts and ResolvConf are the contents of a container's /etc/hosts and /etc/resolv.conf. ep is nil without an interface.
	Hosts(cfg network.DNSConfig, ep *network.Endpoint) ([]byte, error)
	ResolvConf(cfg network.DNSConfig, ep *network.Endpoint) ([]byte, error)
}

// Keeper is what containers need of the supervisor.
type Keeper interface {
	Launch(ctx context.Context, r keeper.LaunchRequest) (keeper.Process, error)
	Subscribe(ctx context.Context, id string, s keeper.Subscriber) error
	CloseStdin(ctx context.Context, id string) error
	// List tells all processes that were not forgotten, with new pidfds, and the streams' files for those that run.
	List(ctx context.Context) ([]keeper.State, error)
	// Forget drops an ended process from the keeper's books. Until then its exit is told again after each restart.
	Forget(ctx context.Context, id string) error
}

// Runtime is what containers need of the packages runtime, runtime/spec and runtime/cgroup. Native implements it.
type Runtime interface {
	// CgroupnsMode is the default: private on cgroup v2, else host.
	CgroupnsMode() api.CgroupnsMode
	// Validate says what of a configuration is ignored on this host (warnings, in Docker's words), or why it is refused.
	Validate(c *api.Config, h *api.HostConfig) (warnings []string, err error)
	// NewGroup makes a container's control group, with its limits.
	NewGroup(ctx context.Context, id string, h *api.HostConfig) (Group, error)
	// FindGroup gives it again; it may not be there.
	FindGroup(id string, h *api.HostConfig) (Group, error)
	// Groups lists the containers that have a control group.
	Groups(ctx context.Context) ([]string, error)
	// Terminal makes a pty of the given size (0: the kernel's default).
	Terminal(height, width uint) (*Terminal, error)
	// ExecTerminal is Terminal in the devpts of the container whose first process is pid.
	ExecTerminal(pid int, height, width uint) (*Terminal, error)
	// Container and Exec compile a process. The caller closes the program, after the launch.
	Container(ctx context.Context, in ContainerProcess) (*Program, error)
	Exec(ctx context.Context, in ExecProcess) (*Program, error)
}

// Group is a container's control group in all hierarchies.
type Group interface {
	Procs() ([]int, error)
	// OOMKilled tells whether the kernel killed one of its processes for want of memory.
	OOMKilled() (bool, error)
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	// Kill ends all its processes and waits for their end.
	Kill(ctx context.Context) error
	// Remove removes the groups; processes that are ending are waited for.
	Remove(ctx context.Context) error
}

// Terminal is a new pty. The caller closes the files.
type Terminal struct {
	Master, Slave *os.File
	DevPTS        *os.File // the detached devpts that holds the slave, or nil
}

// Program is a compiled launch program with the files it needs.
type Program struct {
	Binary []byte
	Files  []*os.File
	Close  func()
}

// Stdio are the child's ends of the streams; nil is /dev/null.
type Stdio struct {
	In, Out, Err *os.File
	DevPTS       *os.File
}

// ContainerProcess is a container's first process to be.
type ContainerProcess struct {
	ID         string
	Config     *api.Config
	HostConfig *api.HostConfig
	Root       *os.File // detached mount
	NetNS      *os.File // nil: the host's
	// Join are pids of the containers whose namespaces are shared; 0: none.
	JoinPID, JoinIPC int
	// Hosts, Hostname and ResolvConf are files to be mounted in /etc.
	Hosts, Hostname, ResolvConf string
	Group                       Group
	Init                        bool
	Stdio                       Stdio
}

// ExecProcess is a further process to be.
type ExecProcess struct {
	ContainerID string
	Config      *api.Config
	HostConfig  *api.HostConfig
	Request     api.ExecCreateRequest
	PID         int
	PIDFD       *os.File
	Group       Group
	Stdio       Stdio
}
