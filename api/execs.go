package api

import (
	"context"
	"io"
	"net/http"
	"strconv"

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
	if c.Request.Header.Get(headerExec) == execAtOnce && c.Request.Header.Get("Upgrade") != "" {
		return s.execAtOnce(c, id, req)
	}
	return c.answer(http.StatusCreated, common.IDResponse{ID: id})
}

// Our own client asks with these header lines to have an exec started by the request that creates it (docs/skiff.md): one request
// in place of three. Other daemons don't know them and answer as ever.
const (
	headerExec   = "Skiff-Exec"
	execAtOnce   = "start"
	headerExecID = "Skiff-Exec-Id"
	// streamExit is the number of the frame after the output that carries the exit code as decimal text; Docker has 0 to 3.
	streamExit = 4
)

// execAtOnce starts the exec and connects the client with it. Without a terminal the stream ends with the exit code.
func (s *Server) execAtOnce(c *call, id string, req apicontainer.ExecCreateRequest) error {
	if !req.Tty {
		req.ConsoleSize = nil
	}
	sess, err := s.Execs.ExecStart(c.Context(), id, container.ExecStartOptions{Tty: req.Tty, ConsoleSize: req.ConsoleSize, Stdin: true})
	if err != nil {
		return err
	}
	return c.run(sess, "exec", stream{header: headerExecID + ": " + id + "\r\n", end: func(w io.Writer) {
		if r, err := s.Execs.ExecInspect(context.WithoutCancel(c.Context()), id); err == nil && r.ExitCode != nil && !req.Tty {
			_, _ = io.WriteString(frame{w, streamExit}, strconv.Itoa(*r.ExitCode))
		}
	}})
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
	return c.run(sess, "exec", stream{})
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
