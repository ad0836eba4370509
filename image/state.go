package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/layer"
)

// Annotations of index.json's entries.
const (
	annotationName   = "io.containerd.image.name" // as containerd and Docker export it
	annotationTagged = "skiff.tagged"             // when the name was given, RFC 3339
)

// state is what index.json says. A committed state is never changed.
type state struct {
	names   map[string]name // by normalized reference
	records map[digest.Digest]*record
	indexes map[digest.Digest]*index
}

type name struct {
	ref    reference.Named
	target digest.Digest
	tagged time.Time
}

func newState() *state {
	return &state{map[string]name{}, map[digest.Digest]*record{}, map[digest.Digest]*index{}}
}

func (st *state) clone() *state {
	return &state{maps.Clone(st.names), maps.Clone(st.records), maps.Clone(st.indexes)}
}

// below lists the manifests that are here under a target, in the index's order.
func (st *state) below(target digest.Digest) []*record {
	var out []*record
	st.walk(target, 0, func(d digest.Digest) {
		if r := st.records[d]; r != nil && !slices.Contains(out, r) {
			out = append(out, r)
		}
	})
	return out
}

// walk visits a target and what is below it.
func (st *state) walk(target digest.Digest, depth int, visit func(digest.Digest)) {
	visit(target)
	if x := st.indexes[target]; x != nil && depth < maxNesting {
		for _, c := range x.children {
			st.walk(c.Digest, depth+1, visit)
		}
	}
}

// maxNesting is how deep indexes may lie in indexes.
const maxNesting = 3

// dropUnnamedIndexes forgets indexes that no name leads to.
func (st *state) dropUnnamedIndexes() {
	used := map[digest.Digest]bool{}
	for _, n := range st.names {
		st.walk(n.target, 0, func(d digest.Digest) { used[d] = true })
	}
	maps.DeleteFunc(st.indexes, func(d digest.Digest, _ *index) bool { return !used[d] })
}

// live is what the layer store must keep.
func (st *state) live() layer.Live {
	l := layer.Live{Blobs: map[digest.Digest]bool{}, Chains: map[digest.Digest]bool{}}
	for d := range st.indexes {
		l.Blobs[d] = true
	}
	for d, r := range st.records {
		l.Blobs[d], l.Blobs[r.id] = true, true
		for _, y := range r.layers {
			l.Blobs[y.Digest] = true
		}
		l.Chains[r.chain] = true
	}
	return l
}

func (st *state) descriptor(target digest.Digest) (ocispec.Descriptor, bool) {
	if r := st.records[target]; r != nil {
		return r.desc, true
	}
	if x := st.indexes[target]; x != nil {
		return x.desc, true
	}
	return ocispec.Descriptor{}, false
}

// marshal writes index.json, in a stable order.
func (st *state) marshal() ([]byte, error) {
	doc := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	named := map[digest.Digest]bool{}
	for _, key := range slices.Sorted(maps.Keys(st.names)) {
		n := st.names[key]
		d, ok := st.descriptor(n.target)
		if !ok {
			return nil, fmt.Errorf("name %s has no target", key)
		}
		d.Annotations = map[string]string{
			annotationName:            key,
			ocispec.AnnotationRefName: key,
			annotationTagged:          n.tagged.UTC().Format(time.RFC3339Nano),
		}
		doc.Manifests = append(doc.Manifests, d)
		named[n.target] = true
	}
	for _, d := range slices.Sorted(maps.Keys(st.records)) {
		if !named[d] {
			doc.Manifests = append(doc.Manifests, st.records[d].desc)
		}
	}
	return json.MarshalIndent(doc, "", " ")
}

// load reads index.json. An entry that can't be used is dropped with a warning, and the others stay.
func (s *Service) load(path string) (*state, error) {
	st := newState()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return nil, err
	}
	var doc ocispec.Index
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	for _, d := range doc.Manifests {
		if isManifest(d.MediaType) {
			s.loadRecord(st, d)
		}
	}
	for _, d := range doc.Manifests {
		if isIndex(d.MediaType) {
			s.loadIndex(st, d, 0)
		}
	}
	for _, d := range doc.Manifests {
		key := d.Annotations[annotationName]
		if key == "" {
			continue
		}
		ref, err := reference.ParseNamed(key)
		if _, ok := st.descriptor(d.Digest); err != nil || !ok || len(st.below(d.Digest)) == 0 {
			s.log.Warn("an image's name is dropped", "name", key, "error", err)
			continue
		}
		tagged, _ := time.Parse(time.RFC3339Nano, d.Annotations[annotationTagged])
		st.names[key] = name{ref, d.Digest, tagged}
	}
	return st, nil
}

func (s *Service) loadRecord(st *state, d ocispec.Descriptor) {
	if st.records[d.Digest] != nil {
		return
	}
	r, err := s.readRecord(d)
	if err != nil {
		s.log.Warn("an image is dropped", "manifest", d.Digest, "error", err)
		return
	}
	st.records[d.Digest] = r
}

func (s *Service) loadIndex(st *state, d ocispec.Descriptor, depth int) {
	if st.indexes[d.Digest] != nil || depth > maxNesting {
		return
	}
	x, err := s.readIndex(d)
	if err != nil {
		s.log.Warn("an image index is dropped", "index", d.Digest, "error", err)
		return
	}
	st.indexes[d.Digest] = x
	for _, c := range x.children {
		if _, ok := s.store.HasBlob(c.Digest); ok && isIndex(c.MediaType) {
			s.loadIndex(st, c, depth+1)
		}
	}
}

// view is a state with what readers look for worked out.
type view struct {
	*state
	images []*entry // newest first
	byID   map[digest.Digest]*entry
	byName map[string][]*entry // target's images by normalized name
	byMan  map[digest.Digest]*entry
	ids    []string // hex, sorted

	found sync.Map // lookup → *entry, for Resolve
}

// entry is one image in a view.
type entry struct {
	Image
	rec     *record   // the manifest that stands for it
	records []*record // all manifests with this configuration
	names   []string  // normalized, sorted
	tagged  time.Time
	layers  layer.Chain
}

func (s *Service) newView(st *state) *view {
	v := &view{state: st, byID: map[digest.Digest]*entry{}, byName: map[string][]*entry{}, byMan: map[digest.Digest]*entry{}}
	for _, d := range slices.Sorted(maps.Keys(st.records)) {
		r := st.records[d]
		e := v.byID[r.id]
		if e == nil {
			c, _ := s.store.Chain(r.chain)
			e = &entry{rec: r, layers: c}
			e.Image = Image{ID: r.id, Manifest: r.desc, Config: r.config, Chain: r.chain, Created: r.created, Size: c.Size}
			v.byID[r.id] = e
			v.images = append(v.images, e)
			v.ids = append(v.ids, r.id.Encoded())
		}
		e.records = append(e.records, r)
		v.byMan[d] = e
	}
	for _, key := range slices.Sorted(maps.Keys(st.names)) {
		n := st.names[key]
		for _, r := range st.below(n.target) {
			e := v.byID[r.id]
			if slices.Contains(v.byName[key], e) {
				continue
			}
			v.byName[key] = append(v.byName[key], e)
			e.names = append(e.names, key)
			if n.tagged.After(e.tagged) {
				e.tagged = n.tagged
			}
			if _, ok := n.ref.(reference.Canonical); ok {
				e.RepoDigests = append(e.RepoDigests, reference.FamiliarString(n.ref))
			} else {
				e.RepoTags = append(e.RepoTags, reference.FamiliarString(n.ref))
			}
		}
	}
	slices.Sort(v.ids)
	slices.SortFunc(v.images, func(a, b *entry) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return v
}

// commit changes the state: change gets a copy. It is durable and visible when commit returns, or nothing changed.
func (s *Service) commit(change func(*state) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.view.Load().state.clone()
	if err := change(st); err != nil {
		return err
	}
	st.dropUnnamedIndexes()
	return s.write(st)
}

func (s *Service) write(st *state) error {
	b, err := st.marshal()
	if err != nil {
		return err
	}
	if err := s.store.WriteFile(filepath.Join(s.store.Root(), "index.json"), b); err != nil {
		return fmt.Errorf("recording the images: %w", err)
	}
	s.view.Store(s.newView(st))
	return nil
}
