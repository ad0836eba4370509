package api

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/network"
)

// Networks is what the API needs of the network manager.
type Networks interface {
	// List gives the networks that match the filters (validated by the manager), without their containers.
	List(ctx context.Context, filters map[string][]string) ([]network.Inspect, error)
	// Inspect finds a network by name, id or unique id prefix, with its containers.
	Inspect(ctx context.Context, name string) (network.Inspect, error)
}

func (s *Server) networksJSON(c *call) error {
	filters, err := c.filters()
	if err != nil {
		return err
	}
	list, err := s.Networks.List(c.Context(), filters)
	if err != nil {
		return err
	}
	if list == nil {
		list = []network.Inspect{}
	}
	for i := range list {
		list[i] = networkFor(c.version, list[i])
	}
	return c.answer(http.StatusOK, list)
}

func (s *Server) networkJSON(c *call) error {
	n, err := s.Networks.Inspect(c.Context(), c.name)
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, networkFor(c.version, n))
}

// networkFor gives a network the form that version v has.
func networkFor(v Version, n network.Inspect) network.Inspect {
	if v < 52 {
		n.Status = nil
	}
	if n.Containers == nil {
		n.Containers = map[string]network.EndpointResource{}
	}
	return n
}
