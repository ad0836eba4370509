package layer

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"skiff/internal/errs"
)

// MaxLayers is how many layers an image may have; overlayfs takes 500, frames included.
const MaxLayers = 240

// Apply makes a chain of layers, bottom first, available: it transfers what is missing, verifies it, and unpacks it, all
// layers side by side. Blobs and layers are durable when it returns. The same layer is worked on once, however many pulls
// want it at the same time. progress may be called from several goroutines; it may be nil.
//
// If one layer fails, the others that were complete stay for the next attempt until the hold is released and Collect
// called.
func (h *Hold) Apply(ctx context.Context, layers []Source, progress Progress) (Chain, error) {
	if len(layers) > MaxLayers {
		return Chain{}, errs.New(errs.Invalid, "image has %d layers; more than %d can't be stacked", len(layers), MaxLayers)
	}
	for _, l := range layers {
		if err := validDigest(l.Blob); err != nil {
			return Chain{}, err
		}
		if l.DiffID != "" {
			if err := validDigest(l.DiffID); err != nil {
				return Chain{}, err
			}
		}
	}
	if len(layers) == 0 {
		return Chain{}, nil
	}
	diffs := make([]*diff, len(layers))
	g, gctx := errgroup.WithContext(ctx)
	for i, l := range layers {
		g.Go(func() error {
			d, err := h.applyOne(gctx, l, progress)
			diffs[i] = d
			return err
		})
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return Chain{}, context.Cause(ctx)
		}
		return Chain{}, err
	}
	return h.stack(diffs)
}

func (h *Hold) applyOne(ctx context.Context, src Source, progress Progress) (*diff, error) {
	w := &waiter{progress}
	f := h.s.join(ctx, src, w)
	defer f.leave(w)
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if f.err != nil {
		return nil, f.err
	}
	// Taken over from the flight's hold, which is still there.
	h.s.mu.Lock()
	h.keep(heldDiff(f.diff.name))
	h.keep(heldBlob(src.Blob))
	h.s.mu.Unlock()
	return f.diff, nil
}

// stack records the chain of unpacked layers, durably.
func (h *Hold) stack(diffs []*diff) (Chain, error) {
	s := h.s
	ids := make([]digest.Digest, len(diffs))
	for i, d := range diffs {
		ids[i] = d.meta.DiffID
	}
	id := ChainID(ids)
	if h.KeepChain(id) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.chains[id].public(), nil
	}
	var full []*diff
	for i, d := range diffs {
		full = append(full, d)
		frame, err := h.frame(ChainID(ids[:i+1]), full)
		if err != nil {
			return Chain{}, fmt.Errorf("stacking layer %s: %w", d.meta.DiffID, err)
		}
		if frame != nil {
			full = append(full, frame)
		}
	}
	c, err := newChain(id, full)
	if err != nil {
		return Chain{}, err
	}
	var f chainFile
	for _, d := range full {
		f.Layers = append(f.Layers, d.name)
	}
	b, err := json.Marshal(f)
	if err != nil {
		return Chain{}, err
	}
	// The layers' and blobs' names first, then what refers to them.
	for _, dir := range []string{s.path("diff"), filepath.Join(s.root, "blobs", "sha256")} {
		if err := syncDir(dir); err != nil {
			return Chain{}, err
		}
	}
	if err := s.WriteFile(s.path("chain", id.Encoded()), b); err != nil {
		return Chain{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chains[id] == nil {
		s.chains[id] = c
	}
	h.keep(heldChain(id))
	return c.public(), nil
}
