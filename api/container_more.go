package api

import (
	"context"
	"net/http"

	apicontainer "github.com/moby/moby/api/types/container"
)

// What a container manager may have beyond Containers. An endpoint is there if the manager has its method.
type (
	pauser interface {
		Pause(ctx context.Context, name string) error
		Unpause(ctx context.Context, name string) error
	}
	renamer interface {
		Rename(ctx context.Context, name, to string) error
	}
	pruner interface {
		Prune(ctx context.Context, filters map[string][]string) (apicontainer.PruneReport, error)
	}
	updater interface {
		Update(ctx context.Context, name string, cfg apicontainer.UpdateConfig) (apicontainer.UpdateResponse, error)
	}
)

func (s *Server) addOptionalContainers() {
	if m, ok := s.Containers.(pauser); ok {
		s.table.add("POST /containers/{name}/pause", func(c *call) error {
			return c.doneUnless(m.Pause(c.Context(), c.name))
		})
		s.table.add("POST /containers/{name}/unpause", func(c *call) error {
			return c.doneUnless(m.Unpause(c.Context(), c.name))
		})
	}
	if m, ok := s.Containers.(renamer); ok {
		s.table.add("POST /containers/{name}/rename", func(c *call) error {
			return c.doneUnless(m.Rename(c.Context(), c.name, c.query("name")))
		})
	}
	if m, ok := s.Containers.(pruner); ok {
		s.table.add("POST /containers/prune", func(c *call) error {
			filters, err := c.filters()
			if err != nil {
				return err
			}
			report, err := m.Prune(c.Context(), filters)
			if err != nil {
				return err
			}
			return c.answer(http.StatusOK, report)
		})
	}
	if m, ok := s.Containers.(updater); ok {
		s.table.add("POST /containers/{name}/update", func(c *call) error {
			var cfg apicontainer.UpdateConfig
			if err := c.read(&cfg); err != nil {
				return err
			}
			answer, err := m.Update(c.Context(), c.name, cfg)
			if err != nil {
				return err
			}
			return c.answer(http.StatusOK, answer)
		})
	}
}

// doneUnless answers 204, unless there was an error.
func (c *call) doneUnless(err error) error {
	if err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}
