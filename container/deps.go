package container

import (
	"context"
	"os"

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
