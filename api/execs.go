package api

import (
	"net/http"

	"github.com/moby/moby/api/types/common"
	apicontainer "github.com/moby/moby/api/types/container"

	"skiff/container"
	"skiff/internal/errs"
)

func (s *Server) execCreate(c *call) error {
	var req apicontainer.ExecCreateRequest
	if err := c.read(&req); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return errs.New(errs.Invalid, "No exec command specified")
	}
	if c.version < 42 {
		req.ConsoleSize = nil
	}
	id, err := s.Execs.ExecCreate(c.Context(), c.name, req)
	if err != nil {
		return err
	}
	return c.answer(http.StatusCreated, common.IDResponse{ID: id})
}

func (s *Server) execStart(c *call) error {
	var req apicontainer.ExecStartRequest
	if err := c.read(&req); err != nil {
		return err
	}
	if c.version < 42 || !req.Tty {
		req.ConsoleSize = nil
	}
	sess, err := s.Execs.ExecStart(c.Context(), c.name, container.ExecStartOptions{
		Detach:      req.Detach,
		Tty:         req.Tty,
		ConsoleSize: req.ConsoleSize,
		Stdin:       !req.Detach,
	})
	if err != nil {
		return err
	}
	if req.Detach || sess == nil {
		return c.done(http.StatusOK)
	}
	return c.run(sess, "exec")
}

func (s *Server) execJSON(c *call) error {
	r, err := s.Execs.ExecInspect(c.Context(), c.name)
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, r)
}

func (s *Server) execResize(c *call) error {
	height, width, err := c.size()
	if err != nil {
		return err
	}
	if err := s.Execs.ExecResize(c.Context(), c.name, height, width); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}
