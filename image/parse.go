package image

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
	"skiff/layer"
	"skiff/registry/remote"
)

// Bounds of what is read into memory, in bytes, and of lists.
const (
	maxManifest = remote.MaxManifest
	maxConfig   = 8 << 20
	maxChildren = 10_000
)

// Media types of Docker's for layers; the OCI's are in ocispec.
const (
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	dockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	ociLayer           = "application/vnd.oci.image.layer.v1.tar"
	ociForeignLayer    = "application/vnd.oci.image.layer.nondistributable.v1.tar"
)

// record is one image manifest with its configuration. It is immutable.
type record struct {
	desc       ocispec.Descriptor // of the manifest, with the platform
	id         digest.Digest
	configDesc ocispec.Descriptor
	layers     []ocispec.Descriptor
	config     dockerspec.DockerOCIImage
	comment    string
	chain      digest.Digest
	created    time.Time
}

// index is a list of manifests. It is immutable.
type index struct {
	desc     ocispec.Descriptor
	children []ocispec.Descriptor
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == remote.MediaTypeDockerList
}

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == remote.MediaTypeDockerManifest
}

// checkDescriptor refuses what could not be stored.
func checkDescriptor(what string, d ocispec.Descriptor, limit int64) error {
	if err := d.Digest.Validate(); err != nil || d.Digest.Algorithm() != digest.SHA256 {
		return errs.New(errs.Invalid, "%s has the digest %.100q, which is not a sha256 digest", what, string(d.Digest))
	}
	if d.Size < 0 || limit > 0 && d.Size > limit {
		return errs.New(errs.Invalid, "%s %s has a size of %d bytes, which is out of range", what, d.Digest, d.Size)
	}
	return nil
}

// parseIndex reads an index or manifest list.
func parseIndex(desc ocispec.Descriptor, b []byte) (*index, error) {
	var doc ocispec.Index
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, errs.New(errs.Invalid, "index %s: %w", desc.Digest, err)
	}
	if len(doc.Manifests) > maxChildren {
		return nil, errs.New(errs.Invalid, "index %s has %d entries, more than %d", desc.Digest, len(doc.Manifests), maxChildren)
	}
	for _, m := range doc.Manifests {
		if err := checkDescriptor("a manifest of index "+desc.Digest.String(), m, 0); err != nil {
			return nil, err
		}
	}
	return &index{desc: bare(desc), children: doc.Manifests}, nil
}

// bare is a descriptor without what its place said about it.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
}

// parseManifest reads an image manifest; the configuration is still to come.
func parseManifest(desc ocispec.Descriptor, b []byte) (ocispec.Manifest, error) {
	var doc ocispec.Manifest
	if err := json.Unmarshal(b, &doc); err != nil {
		return doc, errs.New(errs.Invalid, "manifest %s: %w", desc.Digest, err)
	}
	switch doc.Config.MediaType {
	case ocispec.MediaTypeImageConfig, dockerspec.DockerOCIImageMediaType, "application/octet-stream", "":
	default:
		return doc, errs.New(errs.Invalid, "manifest %s is not of a container image, but of %.100q", desc.Digest, doc.Config.MediaType)
	}
	if err := checkDescriptor("the configuration of manifest "+desc.Digest.String(), doc.Config, maxConfig); err != nil {
		return doc, err
	}
	if len(doc.Layers) > layer.MaxLayers {
		return doc, errs.New(errs.Invalid, "manifest %s has %d layers, more than %d", desc.Digest, len(doc.Layers), layer.MaxLayers)
	}
	for _, l := range doc.Layers {
		if err := checkDescriptor("a layer of manifest "+desc.Digest.String(), l, 0); err != nil {
			return doc, err
		}
		base, _, _ := strings.Cut(strings.ReplaceAll(l.MediaType, ".gzip", "+gzip"), "+")
		switch {
		case strings.HasSuffix(l.MediaType, "+encrypted"):
			return doc, errs.New(errs.NotImplemented, "layer %s is encrypted, which is not implemented", l.Digest)
		case base == ociLayer, base == dockerLayer, base == ociForeignLayer, base == dockerForeignLayer:
		default:
			return doc, errs.New(errs.Invalid, "layer %s has the unsupported media type %.100q", l.Digest, l.MediaType)
		}
	}
	return doc, nil
}

// newRecord joins a manifest and its configuration, which must fit together.
func newRecord(desc ocispec.Descriptor, m ocispec.Manifest, config []byte) (*record, error) {
	r := &record{desc: bare(desc), id: m.Config.Digest, configDesc: bare(m.Config), layers: m.Layers}
	if err := json.Unmarshal(config, &r.config); err != nil {
		return nil, errs.New(errs.Invalid, "configuration %s: %w", r.id, err)
	}
	var extra struct {
		Comment string `json:"comment"` // Docker's, older than history
	}
	_ = json.Unmarshal(config, &extra) // it was JSON a moment ago; a comment of another type is none
	r.comment = extra.Comment
	if n := len(r.config.RootFS.DiffIDs); n != len(m.Layers) {
		return nil, errs.New(errs.Invalid, "configuration %s describes %d layers, its manifest %d", r.id, n, len(m.Layers))
	}
	for _, d := range r.config.RootFS.DiffIDs {
		if err := checkDescriptor("a layer of configuration "+r.id.String(), ocispec.Descriptor{Digest: d}, 0); err != nil {
			return nil, err
		}
	}
	if r.config.OS != "" && r.config.OS != "linux" {
		return nil, errs.New(errs.Invalid, "image operating system %q cannot be used on this platform: operating system is not supported", r.config.OS)
	}
	r.chain = layer.ChainID(r.config.RootFS.DiffIDs)
	if r.config.Created != nil {
		r.created = *r.config.Created
	}
	p := normalize(ocispec.Platform{OS: r.config.OS, Architecture: r.config.Architecture, Variant: r.config.Variant, OSVersion: r.config.OSVersion, OSFeatures: r.config.OSFeatures})
	r.desc.Platform = &p
	return r, nil
}

// readIndex and readRecord load from the blob store.
func (s *Service) readIndex(desc ocispec.Descriptor) (*index, error) {
	b, err := s.store.ReadBlob(desc.Digest, maxManifest)
	if err != nil {
		return nil, err
	}
	return parseIndex(desc, b)
}

func (s *Service) readRecord(desc ocispec.Descriptor) (*record, error) {
	b, err := s.store.ReadBlob(desc.Digest, maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(desc, b)
	if err != nil {
		return nil, err
	}
	c, err := s.store.ReadBlob(m.Config.Digest, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return newRecord(desc, m, c)
}

// sources are the layers of an image for the layer store; open begins the transfer of one.
func (r *record) sources(open func(ocispec.Descriptor) opener) []layer.Source {
	srcs := make([]layer.Source, len(r.layers))
	for i, l := range r.layers {
		srcs[i] = layer.Source{Blob: l.Digest, DiffID: r.config.RootFS.DiffIDs[i], Size: l.Size, MediaType: l.MediaType, Open: open(l)}
	}
	return srcs
}
