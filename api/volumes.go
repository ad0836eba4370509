package api

import (
	"net/http"

	"github.com/moby/moby/api/types/volume"
)

// volumesJSON lists the volumes: there are none, as none can be made yet.
func (s *Server) volumesJSON(c *call) error {
	if _, err := c.filters(); err != nil {
		return err
	}
	return c.answer(http.StatusOK, volume.ListResponse{Volumes: []volume.Volume{}, Warnings: []string{}})
}
