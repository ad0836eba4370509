package layer

import (
	"context"
	"io"
	"log/slog"

	"github.com/opencontainers/go-digest"

	"skiff/layer/unpack"
)

// Snapshot is the read-write layer of one container on top of a chain of read-only layers (overlayfs).
type Snapshot struct {
	ID    string        // the container's id
	Chain digest.Digest // chain id of the image's top layer, "" for an empty image
	Lower []string      // absolute folders of the read-only layers, topmost first
	Upper string        // absolute folder of the container's own changes
	Work  string        // overlayfs work folder, on the same file system as Upper
	// Volatile says that nothing written here needs to survive a power cut (a --rm container): overlayfs skips its syncs.
	Volatile bool
}

// Source is one compressed or plain layer tar to be unpacked.
type Source struct {
	Blob      digest.Digest // digest of the bytes as transferred
	DiffID    digest.Digest // digest of the uncompressed tar, from the image's configuration
	Size      int64         // bytes of the blob as transferred; < 0 if unknown
	MediaType string        // OCI or Docker layer media type; the compression is sniffed from the bytes, not trusted from it
	// Open starts the transfer, from the blob's first byte. It is called only if the blob is not there yet. ctx outlives the
	// call of Apply if other calls wait for the same layer; it ends the transfer too.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Stage is what happens to a layer during Apply, for progress display. The texts are those of Docker's pull.
type Stage string

// The stages of a layer, in order.
const (
	StageWaiting     Stage = "Waiting"
	StageDownloading Stage = "Downloading"
	StageVerifying   Stage = "Verifying Checksum"
	StageDownloaded  Stage = "Download complete"
	StageExtracting  Stage = "Extracting"
	StageDone        Stage = "Pull complete"
	StageExists      Stage = "Already exists"
)

// Progress tells how far the layer with the given blob digest is. Current and total are bytes; total is 0 if unknown.
type Progress func(blob digest.Digest, stage Stage, current, total int64)

// Options of Open. The zero value is right.
type Options struct {
	Logger  *slog.Logger  // nil: slog.Default
	Fetches int           // transfers at a time; default 6
	Unpacks int           // layers unpacked at a time; default: the number of CPUs, at least 2
	Limits  unpack.Limits // bounds of one layer
}

// Chain is a stack of unpacked layers.
type Chain struct {
	ID    digest.Digest
	Diffs []digest.Digest // bottom first
	Sizes []int64         // bytes of each layer's files, as Diffs
	Size  int64           // their sum
}

// Live is what Collect must keep.
type Live struct {
	Blobs  map[digest.Digest]bool
	Chains map[digest.Digest]bool
}

// Freed is what Collect removed.
type Freed struct {
	Chains []digest.Digest
	Blobs  []digest.Digest
	Bytes  int64 // of blobs and unpacked files
}
