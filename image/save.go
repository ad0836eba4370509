package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
)

// saved is one image to be written, with the tags it is to have.
type saved struct {
	e    *entry
	tags []reference.Named
}

// Save writes images as one tar, which is an OCI layout and a docker-archive at once; the layers' bytes are those that
// came. A repository without a tag stands for all its tags, an id for the image without names. Nothing is written if a ref is not found.
func (s *Service) Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error {
	v := s.view.Load()
	var images []*saved
	for _, ref := range refs {
		var err error
		if images, err = s.addSaved(v, images, ref, platforms); err != nil {
			return err
		}
	}
	if len(images) == 0 {
		return errs.New(errs.Invalid, "no image to save")
	}
	hold := s.store.Hold()
	defer hold.Release()
	for _, im := range images {
		for _, d := range im.blobs() {
			if !hold.Keep(d) {
				return errs.New(errs.NotFound, "No such image: %s (it was removed a moment ago)", im.e.ID)
			}
		}
	}
	if err := s.writeArchive(ctx, images, w); err != nil {
		return fmt.Errorf("saving images: %w", err)
	}
	for _, im := range images {
		s.publish(events.ActionSave, im.e.ID.String(), im.e.ID.String(), im.e.Config.Config.Labels)
	}
	return nil
}

func (im *saved) blobs() []digest.Digest {
	ds := []digest.Digest{im.e.rec.desc.Digest, im.e.ID}
	for _, l := range im.e.rec.layers {
		ds = append(ds, l.Digest)
	}
	return ds
}

func (s *Service) addSaved(v *view, images []*saved, ref string, platforms []ocispec.Platform) ([]*saved, error) {
	add := func(es []*entry, tag reference.Named) error {
		want := []*ocispec.Platform{nil}
		if len(platforms) > 0 {
			want = nil
			for i := range platforms {
				want = append(want, &platforms[i])
			}
		}
		for _, p := range want {
			e, err := s.pick(es, ref, p)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(images, func(im *saved) bool { return im.e == e })
			if i < 0 {
				i = len(images)
				images = append(images, &saved{e: e})
			}
			if tag != nil && !slices.ContainsFunc(images[i].tags, func(t reference.Named) bool { return t.String() == tag.String() }) {
				images[i].tags = append(images[i].tags, tag)
			}
		}
		return nil
	}
	if any, err := reference.ParseAnyReference(ref); err == nil {
		if named, ok := any.(reference.Named); ok && reference.IsNameOnly(named) {
			found := false
			for _, key := range sortedNames(v) {
				n := v.names[key]
				if _, isDigest := n.ref.(reference.Canonical); isDigest || n.ref.Name() != named.Name() {
					continue
				}
				found = true
				if err := add(v.byName[key], n.ref); err != nil {
					return nil, err
				}
			}
			if found {
				return images, nil
			}
		}
	}
	es, key, err := v.find(ref)
	if err != nil {
		return nil, err
	}
	var tag reference.Named
	if n, ok := v.names[key]; ok {
		if _, isDigest := n.ref.(reference.Canonical); !isDigest {
			tag = n.ref
		}
	}
	return images, add(es, tag)
}

func sortedNames(v *view) []string {
	keys := make([]string, 0, len(v.names))
	for k := range v.names {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func blobName(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// writeArchive writes the small files first, so that a reader knows what comes.
func (s *Service) writeArchive(ctx context.Context, images []*saved, w io.Writer) error {
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	var dockers []dockerManifest
	for _, im := range images {
		dm := dockerManifest{Config: blobName(im.e.ID), RepoTags: []string{}, Layers: []string{}}
		for _, l := range im.e.rec.layers {
			dm.Layers = append(dm.Layers, blobName(l.Digest))
		}
		for _, t := range im.tags {
			d := im.e.rec.desc
			d.Annotations = map[string]string{annotationName: t.String(), ocispec.AnnotationRefName: t.(reference.Tagged).Tag()}
			idx.Manifests = append(idx.Manifests, d)
			dm.RepoTags = append(dm.RepoTags, reference.FamiliarString(t))
		}
		if len(im.tags) == 0 {
			idx.Manifests = append(idx.Manifests, im.e.rec.desc)
		}
		dockers = append(dockers, dm)
	}
	tw := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		doc  any
	}{{"oci-layout", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}, {"index.json", idx}, {"manifest.json", dockers}} {
		b, err := json.Marshal(f.doc)
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(header(f.name, tar.TypeReg, int64(len(b)))); err != nil {
			return err
		}
		if _, err := tw.Write(b); err != nil {
			return err
		}
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := tw.WriteHeader(header(dir, tar.TypeDir, 0)); err != nil {
			return err
		}
	}
	written := map[digest.Digest]bool{}
	for _, im := range images {
		for _, d := range im.blobs() {
			if written[d] {
				continue
			}
			written[d] = true
			if err := s.writeBlob(ctx, tw, d); err != nil {
				return err
			}
		}
	}
	return tw.Close()
}

// header has no time of now: the same images give the same bytes.
func header(name string, kind byte, size int64) *tar.Header {
	h := &tar.Header{Name: name, Typeflag: kind, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if kind == tar.TypeDir {
		h.Mode = 0o755
	}
	return h
}

func (s *Service) writeBlob(ctx context.Context, tw *tar.Writer, d digest.Digest) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f, err := s.store.Blob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(header(blobName(d), tar.TypeReg, fi.Size())); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
