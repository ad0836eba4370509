package image

import (
	"context"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
)

// lookup is a question that Resolve has answered before, on the same view.
type lookup struct {
	ref, platform string
}

// Resolve finds an image by name, digest, id or unique id prefix; class errs.NotFound with Docker's words if there is none.
// What it returns is shared and must not be changed. It reads memory alone, and never waits.
func (s *Service) Resolve(_ context.Context, ref string, platform *ocispec.Platform) (Image, error) {
	e, err := s.resolve(s.view.Load(), ref, platform)
	if err != nil {
		return Image{}, err
	}
	return e.Image, nil
}

func (s *Service) resolve(v *view, ref string, platform *ocispec.Platform) (*entry, error) {
	key := lookup{ref: ref}
	if platform != nil {
		key.platform = formatPlatform(*platform) + "/" + platform.OSVersion
	}
	if e, ok := v.found.Load(key); ok {
		return e.(*entry), nil
	}
	es, _, err := v.find(ref)
	if err != nil {
		return nil, err
	}
	e, err := s.pick(es, ref, platform)
	if err == nil {
		v.found.Store(key, e) // bounded by what there is: misses are not kept
	}
	return e, err
}

// pick chooses among the platforms of one name.
func (s *Service) pick(es []*entry, ref string, platform *ocispec.Platform) (*entry, error) {
	want := s.platform
	if platform != nil {
		want = normalize(*platform)
	}
	best, at := 0, 0
	for i, e := range es {
		if r := rank(want, *e.rec.desc.Platform); r > best {
			best, at = r, i
		}
	}
	if best == 0 && platform != nil {
		return nil, errs.New(errs.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", ref, formatPlatform(*platform))
	}
	return es[at], nil
}

// find gives the images that ref stands for, and the normalized name if it is one.
func (v *view) find(ref string) ([]*entry, string, error) {
	if ref == "" {
		return nil, "", errs.New(errs.Invalid, "invalid reference format: no image is named")
	}
	any, err := reference.ParseAnyReference(ref)
	if err != nil {
		return nil, "", errs.New(errs.Invalid, "invalid reference format: %.200q: %w", ref, err)
	}
	named, ok := any.(reference.Named)
	if !ok { // a digest alone
		if d, ok := any.(reference.Digested); ok {
			if e := v.byDigest(d.Digest()); e != nil {
				return e, "", nil
			}
		}
		if e, err := v.byPrefix(ref); e != nil || err != nil {
			return e, "", err
		}
		return nil, "", noSuchImage(ref)
	}
	named = reference.TagNameOnly(named)
	if d, ok := named.(reference.Digested); ok { // the tag beside it says nothing more
		c, err := reference.WithDigest(reference.TrimNamed(named), d.Digest())
		if err != nil {
			return nil, "", errs.New(errs.Invalid, "invalid reference format: %w", err)
		}
		named = c
	}
	if es := v.byName[named.String()]; len(es) > 0 {
		return es, named.String(), nil
	}
	if e, err := v.byPrefix(ref); e != nil || err != nil {
		return e, "", err
	}
	return nil, "", noSuchImage(reference.FamiliarString(named))
}

func noSuchImage(ref string) error { return errs.New(errs.NotFound, "No such image: %s", ref) }

// byDigest takes an image's id, or the digest of its manifest or index.
func (v *view) byDigest(d digest.Digest) []*entry {
	if e := v.byID[d]; e != nil {
		return []*entry{e}
	}
	if e := v.byMan[d]; e != nil {
		return []*entry{e}
	}
	var es []*entry
	if v.indexes[d] != nil {
		for _, r := range v.below(d) {
			es = append(es, v.byID[r.id])
		}
	}
	return es
}

// byPrefix takes the beginning of an id; nil if no image has it.
func (v *view) byPrefix(ref string) ([]*entry, error) {
	hex := strings.TrimPrefix(ref, "sha256:")
	if hex == "" || strings.Trim(hex, "0123456789abcdef") != "" {
		return nil, nil
	}
	i, _ := slices.BinarySearch(v.ids, hex)
	if i >= len(v.ids) || !strings.HasPrefix(v.ids[i], hex) {
		return nil, nil
	}
	if i+1 < len(v.ids) && strings.HasPrefix(v.ids[i+1], hex) {
		return nil, errs.New(errs.Invalid, "image id prefix %s is ambiguous", ref)
	}
	return []*entry{v.byID[digest.NewDigestFromEncoded(digest.SHA256, v.ids[i])]}, nil
}
