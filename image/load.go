package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
	"skiff/layer"
)

// load is one Load in progress.
type load struct {
	s         *Service
	a         *archive
	hold      *layer.Hold
	p         *progress
	platforms []ocispec.Platform

	items   []*loaded
	indexes map[digest.Digest]*index
	blobs   []*layer.Staged // to be committed
	small   [][]byte        // made here, not in the archive
}

// loaded is one target with its names.
type loaded struct {
	target  digest.Digest
	names   []reference.NamedTagged
	records []*record
}

// Load reads an archive of images: a docker-archive (docker save) or an OCI layout, plain or compressed, with any number
// of images. Only the given platforms are taken, or all if there are none. It reports the names, or the ids of images
// without one. Either all is loaded, or nothing.
func (s *Service) Load(ctx context.Context, r io.Reader, platforms []ocispec.Platform, report func(Message)) (_ []string, err error) {
	defer func() { s.clearAfter(ctx, err) }() // after the hold's release
	l := &load{s: s, hold: s.store.Hold(), p: newProgress(report), platforms: platforms, indexes: map[digest.Digest]*index{}}
	defer l.hold.Release()
	l.a, err = readArchive(ctx, l.hold, r)
	defer l.a.discard()
	if err == nil {
		err = l.run(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("loading images: %w", err)
	}
	return l.finish()
}

func (l *load) run(ctx context.Context) error {
	var dockers []dockerManifest
	isDocker, err := l.a.json("manifest.json", maxManifest, &dockers)
	if err != nil {
		return err
	}
	var top ocispec.Index
	isOCI, err := l.a.json("index.json", maxManifest, &top)
	if err != nil {
		return err
	}
	switch {
	case isOCI:
		err = l.layout(top, dockers)
	case isDocker:
		err = l.docker(dockers)
	default:
		return errs.New(errs.Invalid, "the archive has neither an index.json (OCI layout) nor a manifest.json (docker save)")
	}
	if err != nil {
		return err
	}
	if len(l.items) == 0 {
		if len(l.platforms) > 0 {
			return errs.New(errs.NotFound, "the archive has no image for the platforms that were asked for")
		}
		return errs.New(errs.Invalid, "the archive has no image")
	}
	if err := l.hold.Commit(l.blobs...); err != nil {
		return err
	}
	if _, err := l.hold.Put(ctx, l.small...); err != nil {
		return err
	}
	for _, it := range l.items {
		for _, r := range it.records {
			if err := l.unpack(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *load) unpack(ctx context.Context, r *record) error {
	have := l.s.haveLayers(r)
	for i, y := range r.layers {
		if !have[i] {
			l.p.mu.Lock()
			l.p.send(Message{ID: short(r.config.RootFS.DiffIDs[i]), Status: "Loading layer", Current: y.Size, Total: y.Size})
			l.p.mu.Unlock()
		}
	}
	_, err := l.hold.Apply(ctx, r.sources(l.s.openLocal), nil)
	return err
}

func (l *load) wanted(r *record) bool {
	return len(l.platforms) == 0 || slices.ContainsFunc(l.platforms, func(p ocispec.Platform) bool { return rank(p, *r.desc.Platform) == 100 })
}

// docker takes a docker-archive: manifests are made, of the layers as they are.
func (l *load) docker(ms []dockerManifest) error {
	for _, dm := range ms {
		cf, ok := l.a.find(dm.Config)
		if !ok {
			return errs.New(errs.Invalid, "the archive lacks the configuration %.200q", dm.Config)
		}
		config, err := cf.Bytes(maxConfig)
		if err != nil {
			return err
		}
		m := ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: cf.Digest, Size: cf.Size},
			Layers: []ocispec.Descriptor{},
		}
		blobs := []*layer.Staged{cf}
		for _, name := range dm.Layers {
			f, ok := l.a.find(name)
			if !ok {
				return errs.New(errs.Invalid, "the archive lacks the layer %.200q", name)
			}
			mt, err := layerType(f)
			if err != nil {
				return err
			}
			m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mt, Digest: f.Digest, Size: f.Size})
			blobs = append(blobs, f)
		}
		b, err := json.Marshal(m)
		if err != nil {
			return err
		}
		desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		if m, err = parseManifest(desc, b); err != nil {
			return err
		}
		r, err := newRecord(desc, m, config)
		if err != nil {
			return err
		}
		names, err := parseNames(dm.RepoTags)
		if err != nil {
			return err
		}
		if l.wanted(r) {
			l.items = append(l.items, &loaded{desc.Digest, names, []*record{r}})
			l.blobs, l.small = append(l.blobs, blobs...), append(l.small, b)
		}
	}
	return nil
}

func parseNames(tags []string) ([]reference.NamedTagged, error) {
	var out []reference.NamedTagged
	for _, t := range tags {
		n, err := parseTag(t)
		if err != nil {
			return nil, fmt.Errorf("a name in the archive: %w", err)
		}
		out = append(out, n)
	}
	return out, nil
}

// layout takes an OCI layout. Names are in annotations, or in a manifest.json beside it.
func (l *load) layout(top ocispec.Index, dockers []dockerManifest) error {
	if len(top.Manifests) > maxChildren {
		return errs.New(errs.Invalid, "index.json has %d entries, more than %d", len(top.Manifests), maxChildren)
	}
	byTarget := map[digest.Digest]*loaded{}
	for _, d := range top.Manifests {
		if err := checkDescriptor("an entry of index.json", d, 0); err != nil {
			return err
		}
		it := byTarget[d.Digest]
		if it == nil {
			it = &loaded{target: d.Digest}
			if err := l.descend(it, d, 0); err != nil {
				return err
			}
			if len(it.records) == 0 {
				continue
			}
			byTarget[d.Digest] = it
			l.items = append(l.items, it)
		}
		name, err := l.nameOf(d)
		if err != nil {
			return err
		}
		if name != nil {
			it.names = append(it.names, name)
		}
	}
	for _, it := range l.items {
		if len(it.names) > 0 {
			continue
		}
		for _, dm := range dockers {
			cf, ok := l.a.find(dm.Config)
			if ok && slices.ContainsFunc(it.records, func(r *record) bool { return r.id == cf.Digest }) {
				names, err := parseNames(dm.RepoTags)
				if err != nil {
					return err
				}
				it.names = append(it.names, names...)
			}
		}
	}
	return nil
}

// nameOf reads an entry's annotations. A bare tag, as some tools write it, is no name.
func (l *load) nameOf(d ocispec.Descriptor) (reference.NamedTagged, error) {
	s := d.Annotations[annotationName]
	if s == "" {
		if s = d.Annotations[ocispec.AnnotationRefName]; !strings.ContainsAny(s, ":/") {
			return nil, nil
		}
	}
	if strings.Contains(s, "@") { // ours: under which digest a registry had it
		return nil, nil
	}
	n, err := parseTag(s)
	if err != nil {
		return nil, fmt.Errorf("a name in the archive: %w", err)
	}
	return n, nil
}

// descend takes what the archive has below a descriptor.
func (l *load) descend(it *loaded, d ocispec.Descriptor, depth int) error {
	f, ok := l.a.blob(d.Digest)
	if !ok {
		if depth > 0 {
			return nil // a platform that was not saved
		}
		return errs.New(errs.Invalid, "the archive lacks %s, or has other bytes under this name", d.Digest)
	}
	if !isIndex(d.MediaType) {
		if !isManifest(d.MediaType) {
			return nil // attestations' layers and other things that are no images
		}
		return l.manifest(it, d, f, depth)
	}
	if depth >= maxNesting {
		return errs.New(errs.Invalid, "the archive has indexes in indexes, more than %d deep", maxNesting)
	}
	b, err := f.Bytes(maxManifest)
	if err != nil {
		return err
	}
	d.Size = f.Size
	x, err := parseIndex(d, b)
	if err != nil {
		return err
	}
	n := len(it.records)
	for _, c := range x.children {
		if c.Annotations[annotationKind] == "attestation-manifest" || c.Platform != nil && c.Platform.OS == "unknown" {
			continue
		}
		if err := l.descend(it, c, depth+1); err != nil {
			return err
		}
	}
	if len(it.records) > n {
		l.indexes[x.desc.Digest] = x
		l.blobs = append(l.blobs, f)
	}
	return nil
}

func (l *load) manifest(it *loaded, d ocispec.Descriptor, f *layer.Staged, depth int) error {
	b, err := f.Bytes(maxManifest)
	if err != nil {
		return err
	}
	d.Size = f.Size
	m, err := parseManifest(d, b)
	if err != nil {
		return err
	}
	blobs := []*layer.Staged{f}
	missing := func(what string, d digest.Digest) error {
		if l.hold.Keep(d) {
			return nil
		}
		return errs.New(errs.Invalid, "the archive lacks the %s %s, or has other bytes under this name", what, d)
	}
	cf, ok := l.a.blob(m.Config.Digest)
	if !ok {
		if depth > 0 {
			return nil // an index's platform of which only the manifest was saved
		}
		return missing("configuration", m.Config.Digest)
	}
	config, err := cf.Bytes(maxConfig)
	if err != nil {
		return err
	}
	r, err := newRecord(d, m, config)
	if err != nil {
		return err
	}
	if !l.wanted(r) {
		return nil
	}
	for _, y := range m.Layers {
		if yf, ok := l.a.blob(y.Digest); ok {
			blobs = append(blobs, yf)
		} else if err := missing("layer", y.Digest); err != nil {
			return err
		}
	}
	l.blobs = append(append(l.blobs, blobs...), cf)
	it.records = append(it.records, r)
	return nil
}

// finish names what was loaded.
func (l *load) finish() ([]string, error) {
	old := l.s.view.Load()
	err := l.s.commit(func(st *state) error {
		now := time.Now()
		for d, x := range l.indexes {
			st.indexes[d] = x
		}
		for _, it := range l.items {
			for _, r := range it.records {
				st.records[r.desc.Digest] = r
			}
			for _, n := range it.names {
				st.names[n.String()] = name{n, it.target, now}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, it := range l.items {
		id := it.records[0].id.String()
		for _, n := range it.names {
			if was := old.byName[n.String()]; len(was) > 0 && was[0].ID.String() != id {
				l.p.say("", fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string", reference.FamiliarString(n), was[0].ID))
			}
			out = append(out, reference.FamiliarString(n))
		}
		if len(it.names) == 0 {
			out = append(out, id)
		}
		l.s.publish(events.ActionLoad, id, id, it.records[0].config.Config.Labels)
	}
	return out, nil
}
