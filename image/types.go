package image

import (
	"log/slog"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/layer"
	"skiff/registry/remote"
)

// Image is one platform's image in the store, ready to be run.
type Image struct {
	ID          digest.Digest             // digest of the image's configuration, what Docker calls the image id
	Manifest    ocispec.Descriptor        // the platform's manifest in the blob store
	Config      dockerspec.DockerOCIImage // the parsed configuration (OCI plus Docker's extensions)
	Chain       digest.Digest             // chain id of the top layer, "" if the image has no layer
	RepoTags    []string                  // familiar names, as "ubuntu:latest"
	RepoDigests []string                  // as "ubuntu@sha256:…"
	Created     time.Time                 // zero if the configuration has none
	Size        int64                     // bytes of the unpacked layers
}

// Credentials for a registry, as they come in the X-Registry-Auth header.
type Credentials struct {
	Username, Password string
	IdentityToken      string // OAuth2 refresh token; used instead of the password if set
	RegistryToken      string // bearer token sent as it is
}

// PullOptions say what to pull and how.
type PullOptions struct {
	Platform    *ocispec.Platform // nil: the host's
	Credentials Credentials
	Progress    func(Message) // called from one goroutine at a time; nil: no progress
}

// Message is one line of a pull's or load's progress, in the terms of Docker's JSON stream.
type Message struct {
	ID      string // short layer id, or the tag, or ""
	Status  string
	Current int64
	Total   int64
}

// ListOptions select images.
type ListOptions struct {
	All, Digests, SharedSize, Manifests bool
	Filters                             map[string][]string // dangling, label, before, since, until, reference
}

// RemoveOptions say how an image is removed.
type RemoveOptions struct {
	Force   bool
	NoPrune bool
}

// ImportOptions describe an imported image.
type ImportOptions struct {
	Repo, Tag string   // "" : no name
	Message   string   // history comment
	Changes   []string // Dockerfile instructions: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, ONBUILD
	Platform  *ocispec.Platform
}

// Options of New.
type Options struct {
	Store    *layer.Store
	Registry *remote.Client
	Events   Publisher // nil: nobody listens
	// InUse lists the containers that were made from an image; nil: none. It is called without any lock held.
	InUse    func(id digest.Digest) []Use
	Platform *ocispec.Platform // what a pull chooses if it isn't told; nil: the host's
	Logger   *slog.Logger      // nil: slog.Default
}

// Publisher is told what happened to images. Publish must not block.
type Publisher interface {
	Publish(events.Message)
}

// Use is one container that was made from an image.
type Use struct {
	ContainerID string
	Running     bool
}
