package image

import (
	"context"
	"strings"
	"time"

	"github.com/distribution/reference"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
)

// Inspect tells all about an image, in the form of the newest API version.
func (s *Service) Inspect(_ context.Context, ref string, platform *ocispec.Platform, manifests bool) (apiimage.InspectResponse, error) {
	if manifests && platform != nil {
		return apiimage.InspectResponse{}, errs.New(errs.Invalid, "conflicting options: manifests and platform options cannot both be set")
	}
	v := s.view.Load()
	e, err := s.resolve(v, ref, platform)
	if err != nil {
		return apiimage.InspectResponse{}, err
	}
	config := e.Config.Config
	r := apiimage.InspectResponse{
		ID: e.ID.String(), RepoTags: append([]string{}, e.RepoTags...), RepoDigests: append([]string{}, e.RepoDigests...),
		Comment: e.rec.comment, Author: e.Config.Author, Config: &config,
		Architecture: e.Config.Architecture, Variant: e.Config.Variant, Os: e.Config.OS, OsVersion: e.Config.OSVersion,
		Size:     e.Size,
		RootFS:   apiimage.RootFS{Type: e.Config.RootFS.Type},
		Metadata: apiimage.Metadata{LastTagTime: e.tagged},
	}
	if !e.Created.IsZero() {
		r.Created = e.Created.UTC().Format(time.RFC3339Nano)
	}
	if n := len(e.Config.History); r.Comment == "" && n > 0 {
		r.Comment = e.Config.History[n-1].Comment
	}
	for _, d := range e.Config.RootFS.DiffIDs {
		r.RootFS.Layers = append(r.RootFS.Layers, d.String())
	}
	r.GraphDriver = &storage.DriverData{Name: "overlayfs", Data: map[string]string{"LowerDir": strings.Join(s.store.Lower(e.Chain), ":")}}
	if manifests {
		d := e.rec.desc
		r.Descriptor = &d
		r.Manifests = s.manifests(v, e)
	}
	return r, nil
}

// manifests lists the platforms of the indexes that an image's names lead to, or the image alone.
func (s *Service) manifests(v *view, e *entry) []apiimage.ManifestSummary {
	var out []apiimage.ManifestSummary
	seen := map[string]bool{}
	add := func(d ocispec.Descriptor) {
		if !isManifest(d.MediaType) || seen[d.Digest.String()] {
			return
		}
		seen[d.Digest.String()] = true
		out = append(out, s.manifest(v, d))
	}
	for _, k := range e.names {
		if x := v.indexes[v.names[k].target]; x != nil {
			for _, c := range x.children {
				add(c)
			}
		}
	}
	for _, r := range e.records {
		add(r.desc)
	}
	return out
}

// attestation annotations of BuildKit's index entries.
const (
	annotationKind    = "vnd.docker.reference.type"
	annotationSubject = "vnd.docker.reference.digest"
)

func (s *Service) manifest(v *view, d ocispec.Descriptor) apiimage.ManifestSummary {
	m := apiimage.ManifestSummary{ID: d.Digest.String(), Descriptor: d, Kind: apiimage.ManifestKindUnknown}
	if d.Annotations[annotationKind] == "attestation-manifest" {
		m.Kind = apiimage.ManifestKindAttestation
		if err := checkDescriptor("", ocispec.Descriptor{Digest: digest.Digest(d.Annotations[annotationSubject])}, 0); err == nil {
			m.AttestationData = &apiimage.AttestationProperties{For: digest.Digest(d.Annotations[annotationSubject])}
		}
		return m
	}
	if d.Platform != nil {
		m.Kind = apiimage.ManifestKindImage
		m.ImageData = &apiimage.ImageProperties{Platform: *d.Platform, Containers: []string{}}
	}
	e := v.byMan[d.Digest]
	if e == nil {
		return m
	}
	m.Available = true
	m.Size.Content = d.Size + e.rec.configDesc.Size
	for _, l := range v.records[d.Digest].layers {
		m.Size.Content += l.Size
	}
	m.Kind = apiimage.ManifestKindImage
	m.ImageData = &apiimage.ImageProperties{Platform: *e.rec.desc.Platform, Containers: []string{}}
	m.ImageData.Size.Unpacked = e.Size
	m.Size.Total = m.Size.Content + e.Size
	for _, u := range s.inUse(e.ID) {
		m.ImageData.Containers = append(m.ImageData.Containers, u.ContainerID)
	}
	return m
}

// History tells how an image was made, the last step first.
func (s *Service) History(_ context.Context, ref string, platform *ocispec.Platform) ([]apiimage.HistoryResponseItem, error) {
	v := s.view.Load()
	e, err := s.resolve(v, ref, platform)
	if err != nil {
		return nil, err
	}
	out := make([]apiimage.HistoryResponseItem, 0, len(e.Config.History))
	layer := 0
	for _, h := range e.Config.History {
		item := apiimage.HistoryResponseItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && layer < len(e.layers.Sizes) {
			item.Size = e.layers.Sizes[layer]
			layer++
		}
		out = append(out, item)
	}
	for ; layer < len(e.layers.Sizes); layer++ { // layers without a history
		out = append(out, apiimage.HistoryResponseItem{ID: "<missing>", Size: e.layers.Sizes[layer]})
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	if len(out) > 0 {
		out[0].ID = e.ID.String()
		for _, k := range e.names {
			if _, ok := v.names[k].ref.(reference.Canonical); !ok {
				out[0].Tags = append(out[0].Tags, reference.FamiliarString(v.names[k].ref))
			}
		}
	}
	return out, nil
}
