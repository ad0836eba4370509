package api

import (
	"context"
	"io"

	apiimage "github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/image"
)

// Images is what the API needs of the image service. A ref is a name, a name with tag or digest, a full id or a unique id
// prefix.
type Images interface {
	Pull(ctx context.Context, ref string, opt image.PullOptions) error
	List(ctx context.Context, opt image.ListOptions) ([]apiimage.Summary, error)
	Inspect(ctx context.Context, ref string, platform *ocispec.Platform, manifests bool) (apiimage.InspectResponse, error)
	History(ctx context.Context, ref string, platform *ocispec.Platform) ([]apiimage.HistoryResponseItem, error)
	Tag(ctx context.Context, ref, target string) error
	Remove(ctx context.Context, ref string, opt image.RemoveOptions) ([]apiimage.DeleteResponse, error)
	// Load reads a docker-archive or OCI layout tar, plain or compressed, and reports what was loaded.
	Load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, progress func(image.Message)) (loaded []string, err error)
	// Save writes a tar that is an OCI layout and a docker-archive at once.
	Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error
	// Import makes a one-layer image of a file system tar and returns its id.
	Import(ctx context.Context, r io.Reader, opt image.ImportOptions) (id string, err error)
}
