package image

import (
	"context"
	"slices"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"skiff/internal/errs"
	"skiff/layer"
)

// removal is one Remove, worked out on one state and then committed.
type removal struct {
	s       *Service
	opt     RemoveOptions
	uses    map[digest.Digest][]Use
	gone    []apiimage.DeleteResponse
	deleted []*entry
}

// Remove takes a name from an image, or the image itself away. A name: the image goes with its last name. An id: all its
// names, if they are of one repository, or opt.Force. Class errs.Conflict, in Docker's words, if containers or other
// names are in the way. What nothing else uses is deleted from the disk, and listed.
func (s *Service) Remove(ctx context.Context, ref string, opt RemoveOptions) ([]apiimage.DeleteResponse, error) {
	rm := &removal{s: s, opt: opt, uses: map[digest.Digest][]Use{}}
	v := s.view.Load()
	es, _, err := v.find(ref)
	if err != nil {
		return nil, err
	}
	for _, e := range es { // asked before anything is locked
		rm.uses[e.ID] = s.inUse(e.ID)
	}
	err = s.commit(func(st *state) error { return rm.change(st, ref) })
	if err != nil {
		return nil, err
	}
	freed, err := s.collect(ctx)
	if err != nil {
		s.log.Warn("collecting what an image has left", "image", ref, "error", err)
	}
	rm.listLayers(freed)
	for _, g := range rm.gone {
		if g.Untagged != "" {
			s.publish(events.ActionUnTag, es[0].ID.String(), g.Untagged, es[0].Config.Config.Labels)
		}
	}
	for _, e := range rm.deleted {
		s.publish(events.ActionDelete, e.ID.String(), e.ID.String(), e.Config.Config.Labels)
	}
	return rm.gone, nil
}

// collect deletes what no image needs. No commit can come between the list of what is needed and the deleting.
func (s *Service) collect(ctx context.Context) (layer.Freed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Collect(ctx, s.view.Load().live())
}

func (rm *removal) change(st *state, ref string) error {
	v := rm.s.view.Load()
	es, key, err := v.find(ref)
	if err != nil {
		return err
	}
	if key == "" {
		return rm.byID(st, v, es)
	}
	return rm.byName(st, v, key, es)
}

// byName untags, and deletes the images that have no name any more.
func (rm *removal) byName(st *state, v *view, key string, es []*entry) error {
	named := v.names[key].ref
	if !rm.opt.Force {
		for _, e := range es {
			if uses := rm.uses[e.ID]; len(uses) > 0 && v.singleReference(e) {
				return errs.New(errs.Conflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
					reference.FamiliarString(named), shortID(uses[0].ContainerID), short(e.ID))
			}
		}
	}
	rm.untag(st, key, named)
	if _, isDigest := named.(reference.Canonical); !isDigest {
		rm.dropDigests(st, es, named)
	}
	for _, e := range es {
		if rm.stillNamed(st, e) {
			continue
		}
		if c := rm.conflict(e, false); c != nil && len(rm.uses[e.ID]) > 0 {
			continue // it stays without a name, as in Docker
		}
		rm.drop(st, e)
	}
	return nil
}

// dropDigests takes the digests of a repository from images that have no tag left in it.
func (rm *removal) dropDigests(st *state, es []*entry, named reference.Named) {
	var digests []string
	for _, e := range es {
		for _, k := range e.names {
			n, ok := st.names[k]
			if !ok || n.ref.Name() != named.Name() {
				continue
			}
			if _, tag := n.ref.(reference.Tagged); tag {
				return
			}
			if !slices.Contains(digests, k) {
				digests = append(digests, k)
			}
		}
	}
	for _, k := range digests {
		rm.untag(st, k, st.names[k].ref)
	}
}

func (rm *removal) stillNamed(st *state, e *entry) bool {
	return slices.ContainsFunc(e.names, func(k string) bool { _, ok := st.names[k]; return ok })
}

// byID removes images with all their names. There is more than one only if an index was named by its digest.
func (rm *removal) byID(st *state, v *view, es []*entry) error {
	for _, e := range es {
		if !rm.opt.Force && !v.singleReference(e) {
			return conflict(e, "must be forced", "image is referenced in multiple repositories")
		}
		if err := rm.conflict(e, !rm.opt.Force); err != nil {
			return err
		}
	}
	for _, e := range es {
		for _, k := range e.names {
			if n, ok := st.names[k]; ok {
				rm.untag(st, k, n.ref)
			}
		}
		rm.drop(st, e)
	}
	return nil
}

// conflict tells which container is in the way: a running one always, a stopped one only if soft.
func (rm *removal) conflict(e *entry, soft bool) error {
	for _, u := range rm.uses[e.ID] {
		if u.Running {
			return conflict(e, "cannot be forced", "image is being used by running container "+shortID(u.ContainerID))
		}
	}
	if soft && len(rm.uses[e.ID]) > 0 {
		return conflict(e, "must be forced", "image is being used by stopped container "+shortID(rm.uses[e.ID][0].ContainerID))
	}
	return nil
}

func conflict(e *entry, force, why string) error {
	return errs.New(errs.Conflict, "conflict: unable to delete %s (%s) - %s", short(e.ID), force, why)
}

func shortID(id string) string { return id[:min(12, len(id))] }

func (rm *removal) untag(st *state, key string, ref reference.Named) {
	delete(st.names, key)
	rm.gone = append(rm.gone, apiimage.DeleteResponse{Untagged: reference.FamiliarString(ref)})
}

func (rm *removal) drop(st *state, e *entry) {
	for _, r := range e.records {
		delete(st.records, r.desc.Digest)
	}
	rm.gone = append(rm.gone, apiimage.DeleteResponse{Deleted: e.ID.String()})
	rm.deleted = append(rm.deleted, e)
}

// singleReference: at most one tag, and all names of one repository.
func (v *view) singleReference(e *entry) bool {
	tags, repo := 0, ""
	for _, k := range e.names {
		n := v.names[k]
		if _, ok := n.ref.(reference.Canonical); !ok {
			tags++
		}
		if repo != "" && repo != n.ref.Name() {
			return false
		}
		repo = n.ref.Name()
	}
	return tags <= 1
}

// listLayers adds the stacks of layers that are gone, topmost first, as Docker does.
func (rm *removal) listLayers(freed layer.Freed) {
	if len(rm.deleted) == 0 {
		return
	}
	used := map[digest.Digest]bool{}
	for _, e := range rm.s.view.Load().images {
		for i := range e.layers.Diffs {
			used[layer.ChainID(e.layers.Diffs[:i+1])] = true
		}
	}
	for _, e := range rm.deleted {
		if !slices.Contains(freed.Chains, e.Chain) {
			continue // a container's snapshot keeps them
		}
		for i := len(e.layers.Diffs); i > 0; i-- {
			if id := layer.ChainID(e.layers.Diffs[:i]); !used[id] {
				used[id] = true
				rm.gone = append(rm.gone, apiimage.DeleteResponse{Deleted: id.String()})
			}
		}
	}
}
