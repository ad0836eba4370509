package image

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
	"skiff/layer"
	"skiff/registry/remote"
)

// Service is the image store with all that can be done to it. All methods may be called from several goroutines.
type Service struct {
	store    *layer.Store
	registry *remote.Client
	events   Publisher
	inUse    func(digest.Digest) []Use
	platform ocispec.Platform
	log      *slog.Logger

	mu   sync.Mutex // held by one change at a time
	view atomic.Pointer[view]
}

// opener begins the transfer of one blob.
type opener = func(context.Context) (io.ReadCloser, error)

// New opens the image store that lies in the layer store's root. Images whose unpacked layers are missing are unpacked
// again from their blobs; what a killed predecessor left is collected.
func New(ctx context.Context, opt Options) (*Service, error) {
	s := &Service{
		store: opt.Store, registry: opt.Registry, events: opt.Events, inUse: opt.InUse, log: opt.Logger,
		platform: hostPlatform(),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.inUse == nil {
		s.inUse = func(digest.Digest) []Use { return nil }
	}
	if opt.Platform != nil {
		s.platform = normalize(*opt.Platform)
	}
	path := filepath.Join(s.store.Root(), "index.json")
	st, err := s.load(path)
	if err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	if err := s.mend(ctx, st); err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	s.view.Store(s.newView(st))
	if _, err := os.Stat(path); err != nil {
		if err := s.write(st); err != nil {
			return nil, fmt.Errorf("opening the image store: %w", err)
		}
	}
	if _, err := s.store.Collect(ctx, st.live()); err != nil {
		s.log.Warn("collecting unused layers", "error", err)
	}
	return s, nil
}

// mend unpacks images again whose layers are gone, and drops those for which that fails.
func (s *Service) mend(ctx context.Context, st *state) error {
	hold := s.store.Hold()
	defer hold.Release()
	for d, r := range st.records {
		if _, ok := s.store.Chain(r.chain); ok && s.complete(r) {
			continue
		}
		_, err := hold.Apply(ctx, r.sources(s.openLocal), nil)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			s.log.Warn("an image is dropped: its layers are incomplete", "image", r.id, "error", err)
			delete(st.records, d)
		}
	}
	maps.DeleteFunc(st.names, func(_ string, n name) bool { return len(st.below(n.target)) == 0 })
	st.dropUnnamedIndexes()
	return nil
}

func (s *Service) complete(r *record) bool {
	for _, l := range r.layers {
		if _, ok := s.store.HasBlob(l.Digest); !ok {
			return false
		}
	}
	return true
}

// openLocal is for blobs that ought to be in the store: the layer store asks only if they are not.
func (s *Service) openLocal(d ocispec.Descriptor) opener {
	return func(context.Context) (io.ReadCloser, error) { return s.store.Blob(d.Digest) }
}

// publish tells what happened to the image with this id, or under this name.
func (s *Service) publish(action events.Action, id, name string, labels map[string]string) {
	if s.events == nil {
		return
	}
	attrs := maps.Clone(labels)
	if attrs == nil {
		attrs = map[string]string{}
	}
	if name != "" {
		attrs["name"] = name
	}
	now := time.Now()
	s.events.Publish(events.Message{
		Type: events.ImageEventType, Action: action, Actor: events.Actor{ID: id, Attributes: attrs},
		Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
	})
}

// clearAfter deletes what an operation has brought before it failed, once its hold is released. What a lost connection left
// stays until the next collection: whoever pulls again begins there.
func (s *Service) clearAfter(ctx context.Context, err error) {
	if class := errs.Of(err); class != errs.Invalid && class != errs.Exhausted {
		return
	}
	if _, err := s.collect(context.WithoutCancel(ctx)); err != nil {
		s.log.Warn("collecting what a failed operation left", "error", err)
	}
}
