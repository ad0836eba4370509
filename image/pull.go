package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
	"skiff/layer"
	"skiff/registry/remote"
)

// pull is one pull in progress.
type pull struct {
	s        *Service
	ref      reference.Named // with a tag or a digest
	repo     *remote.Repository
	platform ocispec.Platform
	explicit bool // the platform was asked for
	p        *progress
	hold     *layer.Hold

	indexes []*index // from the target down
	small   [][]byte // manifests and configuration, to be stored
}

// Pull fetches an image and gives it the name ref (without a tag: latest). It is durable when the call returns.
func (s *Service) Pull(ctx context.Context, ref string, opt PullOptions) (err error) {
	defer func() { s.clearAfter(ctx, err) }() // after the hold's release
	named, err := parsePull(ref)
	if err != nil {
		return err
	}
	p := &pull{
		s: s, ref: named, platform: s.platform, p: newProgress(opt.Progress), hold: s.store.Hold(),
		repo: s.registry.Repository(named, remote.Credentials(opt.Credentials)),
	}
	defer p.hold.Release()
	if opt.Platform != nil {
		p.platform, p.explicit = normalize(*opt.Platform), true
		if p.platform.OS == "" {
			p.platform.OS = "linux"
		}
	}
	target, r, err := p.run(ctx)
	if err != nil {
		return err
	}
	changed, err := p.record(target, r)
	if err != nil {
		return fmt.Errorf("pulling %s: %w", reference.FamiliarString(named), err)
	}
	p.p.say("", "Digest: "+target.String())
	status := "Status: Image is up to date for "
	if changed {
		status = "Status: Downloaded newer image for "
	}
	p.p.say("", status+reference.FamiliarString(named))
	s.publish(events.ActionPull, reference.FamiliarString(named), reference.FamiliarName(named), r.config.Config.Labels)
	return nil
}

// parsePull normalizes a reference; a tag beside a digest is dropped, as it says nothing more.
func parsePull(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, errs.New(errs.Invalid, "invalid reference format: %.200q: %w", ref, err)
	}
	if d, ok := named.(reference.Digested); ok {
		if d.Digest().Algorithm() != digest.SHA256 {
			return nil, errs.New(errs.NotImplemented, "pulling %.200q: only sha256 digests are supported", ref)
		}
		return reference.WithDigest(reference.TrimNamed(named), d.Digest())
	}
	return reference.TagNameOnly(named), nil
}

func tagOrDigest(ref reference.Named) string {
	if d, ok := ref.(reference.Digested); ok {
		return d.Digest().String()
	}
	if t, ok := ref.(reference.Tagged); ok {
		return t.Tag()
	}
	return ""
}

// run brings the image into the store, and says what the name is to point to.
func (p *pull) run(ctx context.Context) (digest.Digest, *record, error) {
	target, r, err := p.upToDate(ctx)
	if r != nil {
		p.begin()
	}
	if r != nil || err != nil {
		return target, r, err
	}
	m, err := p.repo.Manifest(ctx, p.ref)
	if err != nil {
		return "", nil, err
	}
	target = m.Descriptor.Digest
	if m, err = p.descend(ctx, m); err != nil {
		return "", nil, err
	}
	p.begin()
	r, err = p.fetchImage(ctx, m)
	return target, r, err
}

// begin says the first word. Until then an error can still be the whole answer to a request, with a status of its own.
func (p *pull) begin() { p.p.say(tagOrDigest(p.ref), "Pulling from "+reference.Path(p.ref)) }

// upToDate asks for the digest alone if the name is here already. A nil record: go on.
func (p *pull) upToDate(ctx context.Context) (digest.Digest, *record, error) {
	v := p.s.view.Load()
	n, ok := v.names[p.ref.String()]
	if !ok {
		return "", nil, nil
	}
	var r *record
	for _, e := range v.byName[p.ref.String()] {
		if rank(p.platform, *e.rec.desc.Platform) == 100 {
			for _, have := range v.below(n.target) {
				if have.id == e.ID {
					r = have
				}
			}
		}
	}
	if r == nil || !p.keep(v, n.target, r) {
		return "", nil, nil
	}
	if _, pinned := p.ref.(reference.Digested); pinned {
		return n.target, r, nil
	}
	if d, err := p.repo.Digest(ctx, p.ref); err != nil || d != n.target {
		if ctx.Err() != nil {
			return "", nil, context.Cause(ctx)
		}
		return "", nil, nil // the request for the manifest itself says why
	}
	p.p.announce(r.layers, func(int) bool { return true })
	return n.target, r, nil
}

// keep holds an image that is here; false if it is not complete any more.
func (p *pull) keep(v *view, target digest.Digest, r *record) bool {
	ok := p.hold.KeepChain(r.chain) && p.hold.Keep(r.desc.Digest) && p.hold.Keep(r.id)
	for _, l := range r.layers {
		ok = ok && p.hold.Keep(l.Digest)
	}
	v.walk(target, 0, func(d digest.Digest) {
		if x := v.indexes[d]; x != nil {
			ok = ok && p.hold.Keep(d)
			p.indexes = append(p.indexes, x)
		}
	})
	if !ok {
		p.indexes = nil
	}
	return ok
}

// descend goes down from an index to the manifest for the platform.
func (p *pull) descend(ctx context.Context, m remote.Manifest) (remote.Manifest, error) {
	for depth := 0; ; depth++ {
		if m.Descriptor.MediaType == remote.MediaTypeSchema1 {
			return m, errs.New(errs.Invalid, "%s is in the obsolete schema 1 format, which is not supported any more: ask for it to be pushed again in schema 2 or OCI format", reference.FamiliarString(p.ref))
		}
		p.small = append(p.small, m.Bytes)
		if !isIndex(m.Descriptor.MediaType) {
			break
		}
		if depth >= maxNesting {
			return m, errs.New(errs.Invalid, "%s has indexes in indexes, more than %d deep", reference.FamiliarString(p.ref), maxNesting)
		}
		x, err := parseIndex(m.Descriptor, m.Bytes)
		if err != nil {
			return m, err
		}
		p.indexes = append(p.indexes, x)
		child, ok := choose(x.children, p.platform)
		if !ok {
			return m, noMatch(x.children, p.platform)
		}
		if err := checkDescriptor("the manifest", child, maxManifest); err != nil {
			return m, err
		}
		ref, err := reference.WithDigest(reference.TrimNamed(p.ref), child.Digest)
		if err != nil {
			return m, errs.As(errs.Invalid, err)
		}
		if m, err = p.repo.Manifest(ctx, ref); err != nil {
			return m, err
		}
	}
	if !isManifest(m.Descriptor.MediaType) {
		return m, errs.New(errs.Invalid, "%s is of the unsupported media type %.100q", reference.FamiliarString(p.ref), m.Descriptor.MediaType)
	}
	return m, nil
}

// fetchImage brings configuration and layers.
func (p *pull) fetchImage(ctx context.Context, m remote.Manifest) (*record, error) {
	doc, err := parseManifest(m.Descriptor, m.Bytes)
	if err != nil {
		return nil, err
	}
	config, err := p.config(ctx, doc.Config)
	if err != nil {
		return nil, err
	}
	r, err := newRecord(m.Descriptor, doc, config)
	if err != nil {
		return nil, err
	}
	if p.explicit && len(p.indexes) == 0 && rank(p.platform, *r.desc.Platform) == 0 {
		return nil, errs.New(errs.NotFound, "image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
			reference.FamiliarString(p.ref), formatPlatform(*r.desc.Platform), formatPlatform(p.platform))
	}
	p.small = append(p.small, config)
	stored := make(chan error, 1)
	go func() { // its sync falls together with those of the layers
		_, err := p.hold.Put(ctx, p.small...)
		stored <- err
	}()
	have := p.s.haveLayers(r)
	p.p.announce(r.layers, func(i int) bool { return have[i] })
	_, err = p.hold.Apply(ctx, r.sources(p.open), p.p.layer)
	if perr := <-stored; err == nil {
		err = perr
	}
	if err != nil {
		return nil, fmt.Errorf("pulling %s: %w", reference.FamiliarString(p.ref), err)
	}
	return r, nil
}

// haveLayers tells which layers of an image are in the store.
func (s *Service) haveLayers(r *record) []bool {
	have := make([]bool, len(r.layers))
	for i, l := range r.layers {
		_, blob := s.store.HasBlob(l.Digest)
		have[i] = blob && s.store.HasDiff(r.config.RootFS.DiffIDs[i])
	}
	return have
}

// config fetches a configuration, or takes it from the store.
func (p *pull) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if p.hold.Keep(d.Digest) {
		if b, err := p.s.store.ReadBlob(d.Digest, maxConfig); err == nil {
			return b, nil
		}
	}
	rc, err := p.repo.Blob(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", reference.FamiliarString(p.ref), err)
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, maxConfig+1))
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("configuration of %s: %w", reference.FamiliarString(p.ref), err)
	case len(b) > maxConfig:
		return nil, errs.New(errs.Invalid, "configuration %s is larger than %d bytes", d.Digest, maxConfig)
	case digest.FromBytes(b) != d.Digest:
		return nil, errs.New(errs.Invalid, "configuration verification failed for digest %s", d.Digest)
	}
	return b, nil
}

func (p *pull) open(d ocispec.Descriptor) opener {
	return func(ctx context.Context) (io.ReadCloser, error) { return p.repo.Blob(ctx, d) }
}

// record gives the image its names. changed: a tag or digest did not point to this before.
func (p *pull) record(target digest.Digest, r *record) (changed bool, err error) {
	canonical, err := reference.WithDigest(reference.TrimNamed(p.ref), target)
	if err != nil {
		return false, errs.As(errs.Invalid, err)
	}
	v := p.s.view.Load()
	names := []reference.Named{canonical}
	if _, pinned := p.ref.(reference.Digested); !pinned {
		names = append(names, p.ref)
	}
	same := v.records[r.desc.Digest] != nil
	for _, n := range names {
		same = same && v.names[n.String()].target == target
	}
	if same {
		return false, nil
	}
	return true, p.s.commit(func(st *state) error {
		st.records[r.desc.Digest] = r
		for _, x := range p.indexes {
			st.indexes[x.desc.Digest] = x
		}
		now := time.Now()
		for _, n := range names {
			st.names[n.String()] = name{n, target, now}
		}
		return nil
	})
}
