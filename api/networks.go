package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"

	"skiff/internal/errs"
)

// Networks is what the API needs of the network manager.
type Networks interface {
	List(ctx context.Context) ([]network.Summary, error)
	// Inspect finds a network by name, id or unique id prefix, with its containers.
	Inspect(ctx context.Context, name string) (network.Inspect, error)
}

func (s *Server) networksJSON(c *call) error {
	filters, err := c.filters()
	if err != nil {
		return err
	}
	match, err := networkFilter(filters)
	if err != nil {
		return err
	}
	list, err := s.Networks.List(c.Context())
	if err != nil {
		return err
	}
	if c.version >= 52 {
		found := []network.Summary{}
		for _, n := range list {
			if match(n.Network) {
				found = append(found, n)
			}
		}
		return c.answer(http.StatusOK, found)
	}
	found := []network.Inspect{}
	for _, n := range list {
		if match(n.Network) {
			found = append(found, networkFor(c.version, network.Inspect{Network: n.Network}))
		}
	}
	return c.answer(http.StatusOK, found)
}

// networkFilter makes a predicate of the filters: values of one key are alternatives, different keys must all hold.
func networkFilter(filters map[string][]string) (func(network.Network) bool, error) {
	matches := map[string]func(n network.Network, value string) bool{
		"driver": func(n network.Network, v string) bool { return n.Driver == v },
		"name":   func(n network.Network, v string) bool { return strings.Contains(n.Name, v) },
		"id":     func(n network.Network, v string) bool { return strings.HasPrefix(n.ID, v) },
		"scope":  func(n network.Network, v string) bool { return n.Scope == v },
		"type":   func(n network.Network, v string) bool { return (v == "builtin") == predefined(n.Name) },
		"label": func(n network.Network, v string) bool {
			key, want, hasValue := strings.Cut(v, "=")
			got, ok := n.Labels[key]
			return ok && (!hasValue || got == want)
		},
		// No container is connected to several networks or can be parted from one: networks are used as long as they are there.
		"dangling": func(n network.Network, v string) bool { return truth(v) != predefined(n.Name) },
	}
	for key, values := range filters {
		if matches[key] == nil {
			return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
		for _, v := range values {
			if key == "type" && v != "builtin" && v != "custom" {
				return nil, errs.New(errs.Invalid, "invalid filter: 'type'='%s'", v)
			}
		}
	}
	return func(n network.Network) bool {
		for key, values := range filters {
			if len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return matches[key](n, v) }) {
				return false
			}
		}
		return true
	}, nil
}

// predefined says whether the engine made the network itself.
func predefined(name string) bool {
	return name == network.NetworkBridge || name == network.NetworkHost || name == network.NetworkNone
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
