package image

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"skiff/internal/errs"
)

// List tells about images, the newest first.
func (s *Service) List(_ context.Context, opt ListOptions) ([]apiimage.Summary, error) {
	v := s.view.Load()
	f, err := s.filter(v, opt.Filters)
	if err != nil {
		return nil, err
	}
	shared := map[digest.Digest]int{}
	if opt.SharedSize {
		for _, e := range v.images {
			for _, d := range e.uniqueDiffs() {
				shared[d]++
			}
		}
	}
	list := make([]apiimage.Summary, 0, len(v.images))
	for _, e := range v.images {
		tags, digests, ok := f.match(e)
		if !ok {
			continue
		}
		sum := apiimage.Summary{
			ID: e.ID.String(), Created: unixOf(e.Created), Labels: e.Config.Config.Labels,
			RepoTags: tags, RepoDigests: digests, Size: e.Size, SharedSize: -1, Containers: -1,
		}
		if opt.SharedSize {
			sum.SharedSize = 0
			for i, d := range e.layers.Diffs {
				if shared[d] > 1 {
					sum.SharedSize += e.layers.Sizes[i]
				}
			}
		}
		if opt.SharedSize || opt.Manifests {
			sum.Containers = int64(len(s.inUse(e.ID)))
		}
		if opt.Manifests {
			d := e.rec.desc
			sum.Descriptor = &d
			sum.Manifests = s.manifests(v, e)
		}
		list = append(list, sum)
	}
	return list, nil
}

func (e *entry) uniqueDiffs() []digest.Digest {
	ds := slices.Clone(e.layers.Diffs)
	slices.Sort(ds)
	return slices.Compact(ds)
}

func unixOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// filter is a checked set of list filters.
type filter struct {
	v             *view
	dangling      *bool
	labels        []string
	before, since []time.Time
	patterns      []string
}

func (s *Service) filter(v *view, in map[string][]string) (*filter, error) {
	f := &filter{v: v}
	for _, key := range slices.Sorted(maps.Keys(in)) {
		for _, val := range in[key] {
			if err := s.addFilter(f, v, key, val); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

func (s *Service) addFilter(f *filter, v *view, key, val string) error {
	switch key {
	case "dangling":
		b, err := strconv.ParseBool(val)
		if err != nil {
			return errs.New(errs.Invalid, "invalid filter 'dangling=%s'", val)
		}
		f.dangling = &b
	case "label":
		f.labels = append(f.labels, val)
	case "reference":
		if _, err := reference.FamiliarMatch(val, mustName()); err != nil {
			return errs.New(errs.Invalid, "invalid filter 'reference=%s': %w", val, err)
		}
		f.patterns = append(f.patterns, val)
	case "before", "since":
		e, err := s.resolve(v, val, nil)
		if err != nil {
			return err
		}
		if key == "before" {
			f.before = append(f.before, e.Created)
		} else {
			f.since = append(f.since, e.Created)
		}
	case "until":
		t, err := parseTime(val, time.Now())
		if err != nil {
			return errs.New(errs.Invalid, "invalid filter 'until=%s': %w", val, err)
		}
		f.before = append(f.before, t)
	default:
		return errs.New(errs.Invalid, "invalid filter '%s'", key)
	}
	return nil
}

// mustName is some valid reference, to try a pattern on.
func mustName() reference.Reference {
	n, err := reference.WithName("docker.io/library/x")
	if err != nil {
		panic(err)
	}
	return n
}

// parseTime reads what Docker takes for a time: a duration before now, seconds after 1970, or a date.
func parseTime(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if n, err := strconv.ParseFloat(v, 64); err == nil && n >= 0 && n < 1<<40 {
		return time.UnixMicro(int64(n * 1e6)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errs.New(errs.Invalid, "%q is neither a duration, nor a time, nor seconds since 1970", v)
}

// match tells whether an image passes, and which of its names do.
func (f *filter) match(e *entry) (tags, digests []string, ok bool) {
	tags, digests = []string{}, []string{}
	for _, k := range e.names {
		n := f.v.names[k]
		if !f.matchName(n.ref) {
			continue
		}
		if _, isDigest := n.ref.(reference.Canonical); isDigest {
			digests = append(digests, reference.FamiliarString(n.ref))
		} else {
			tags = append(tags, reference.FamiliarString(n.ref))
		}
	}
	if len(f.patterns) > 0 && len(tags)+len(digests) == 0 {
		return nil, nil, false
	}
	if f.dangling != nil && *f.dangling != (len(e.RepoTags) == 0) {
		return nil, nil, false
	}
	for _, l := range f.labels {
		k, want, exact := strings.Cut(l, "=")
		got, has := e.Config.Config.Labels[k]
		if !has || exact && got != want {
			return nil, nil, false
		}
	}
	for _, t := range f.before {
		if !e.Created.Before(t) {
			return nil, nil, false
		}
	}
	for _, t := range f.since {
		if !e.Created.After(t) {
			return nil, nil, false
		}
	}
	return tags, digests, true
}

func (f *filter) matchName(ref reference.Named) bool {
	if len(f.patterns) == 0 {
		return true
	}
	for _, p := range f.patterns {
		if ok, err := reference.FamiliarMatch(p, ref); err == nil && ok {
			return true
		}
	}
	return false
}
