package image

import (
	"context"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"

	"skiff/internal/errs"
)

// Tag gives an image one more name. A name that was given to another image moves.
func (s *Service) Tag(_ context.Context, ref, target string) error {
	to, err := parseTag(target)
	if err != nil {
		return err
	}
	var e *entry
	err = s.commit(func(st *state) error {
		v := s.view.Load() // the same: commits come one at a time
		es, from, err := v.find(ref)
		if err != nil {
			return err
		}
		if e, err = s.pick(es, ref, nil); err != nil {
			return err
		}
		d := e.rec.desc.Digest
		if from != "" {
			d = st.names[from].target
		}
		st.names[to.String()] = name{to, d, time.Now()}
		return nil
	})
	if err != nil {
		return err
	}
	s.publish(events.ActionTag, e.ID.String(), reference.FamiliarString(to), e.Config.Config.Labels)
	return nil
}

// parseTag checks a name that is to be given; without a tag it is latest.
func parseTag(target string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(target)
	if err != nil {
		return nil, errs.New(errs.Invalid, "invalid reference format: %.200q: %w", target, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, errs.New(errs.Invalid, "refusing to create a tag with a digest reference")
	}
	tagged := reference.TagNameOnly(named).(reference.NamedTagged)
	if reference.FamiliarName(tagged) == "sha256" {
		return nil, errs.New(errs.Invalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	return tagged, nil
}
