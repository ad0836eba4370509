package image

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
	"skiff/layer"
)

// Import makes a one-layer image of a file system's tar, plain or compressed, and returns its id. A compressed tar is kept
// as it is, if an image may have such a layer.
func (s *Service) Import(ctx context.Context, r io.Reader, opt ImportOptions) (_ string, err error) {
	defer func() { s.clearAfter(ctx, err) }() // after the hold's release
	var to reference.NamedTagged
	if opt.Repo != "" {
		target := opt.Repo
		if opt.Tag != "" {
			target += ":" + opt.Tag
		}
		if to, err = parseTag(target); err != nil {
			return "", err
		}
	}
	config := dockerspec.DockerOCIImage{}
	if err := ApplyChanges(&config.Config, opt.Changes); err != nil {
		return "", err
	}
	hold := s.store.Hold()
	defer hold.Release()
	desc, chain, err := s.importLayer(ctx, hold, r)
	if err != nil {
		return "", fmt.Errorf("importing an image: %w", err)
	}
	now := time.Now().UTC()
	p := s.platform
	if opt.Platform != nil {
		p = normalize(*opt.Platform)
	}
	config.Created, config.Platform = &now, p
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: chain.Diffs}
	comment := opt.Message
	if comment == "" {
		comment = "Imported from -"
	}
	config.History = []ocispec.History{{Created: &now, Comment: comment}}
	rec, err := s.storeImage(ctx, hold, config, []ocispec.Descriptor{desc})
	if err != nil {
		return "", fmt.Errorf("importing an image: %w", err)
	}
	err = s.commit(func(st *state) error {
		st.records[rec.desc.Digest] = rec
		if to != nil {
			st.names[to.String()] = name{to, rec.desc.Digest, time.Now()}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	shown := rec.id.String()
	if to != nil {
		shown = reference.FamiliarString(to)
	}
	s.publish(events.ActionImport, rec.id.String(), shown, config.Config.Labels)
	return rec.id.String(), nil
}

func (s *Service) importLayer(ctx context.Context, hold *layer.Hold, r io.Reader) (ocispec.Descriptor, layer.Chain, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	in := io.Reader(br)
	if head, _ := br.Peek(3); string(head) == "BZh" { // no layer format: stored inflated
		plain, err := layer.Decompress(br)
		if err != nil {
			return ocispec.Descriptor{}, layer.Chain{}, err
		}
		defer plain.Close()
		in = plain
	}
	blob, err := hold.Stage(ctx, in)
	if err != nil {
		return ocispec.Descriptor{}, layer.Chain{}, err
	}
	defer blob.Discard()
	if blob.Size == 0 {
		return ocispec.Descriptor{}, layer.Chain{}, errs.New(errs.Invalid, "the tar is empty")
	}
	mt, err := layerType(blob)
	if err != nil {
		return ocispec.Descriptor{}, layer.Chain{}, err
	}
	if err := hold.Commit(blob); err != nil {
		return ocispec.Descriptor{}, layer.Chain{}, err
	}
	desc := ocispec.Descriptor{MediaType: mt, Digest: blob.Digest, Size: blob.Size}
	chain, err := hold.Apply(ctx, []layer.Source{{Blob: desc.Digest, Size: desc.Size, MediaType: mt, Open: s.openLocal(desc)}}, nil)
	return desc, chain, err
}

// storeImage makes configuration and manifest of an image whose layers are in the store.
func (s *Service) storeImage(ctx context.Context, hold *layer.Hold, config dockerspec.DockerOCIImage, layers []ocispec.Descriptor) (*record, error) {
	cb, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: layers,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(cb), Size: int64(len(cb))},
	}
	mb, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if _, err := hold.Put(ctx, cb, mb); err != nil {
		return nil, err
	}
	return newRecord(ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(mb), Size: int64(len(mb))}, m, cb)
}
