package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"

	"skiff/container"
	"skiff/internal/errs"
)

func (s *Server) containersJSON(c *call) error {
	limit, err := c.number("limit", 0)
	if err != nil {
		return err
	}
	filters, err := c.filters()
	if err != nil {
		return err
	}
	list, err := s.Containers.List(c.Context(), container.ListOptions{
		All:     c.flag("all"),
		Limit:   limit,
		Size:    c.flag("size"),
		Filters: filters,
	})
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, summariesFor(c.version, list))
}

func (s *Server) containersCreate(c *call) error {
	var body createBody
	if err := c.read(&body); err != nil {
		return err
	}
	opt, warnings, err := body.options(c.version, s.CgroupV2)
	if err != nil {
		return err
	}
	opt.Name = c.query("name")
	if c.version >= 41 {
		if opt.Platform, err = platformOf(c.query("platform")); err != nil {
			return err
		}
	}
	id, more, err := s.Containers.Create(c.Context(), opt)
	if err != nil {
		return err
	}
	warnings = append(warnings, more...)
	return c.answer(http.StatusCreated, apicontainer.CreateResponse{ID: id, Warnings: warnings})
}

func (s *Server) containerJSON(c *call) error {
	r, err := s.Containers.Inspect(c.Context(), c.name, c.flag("size"))
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, inspectFor(c.version, r))
}

func (s *Server) containerStart(c *call) error {
	// Until API 1.23 a host configuration could come here; "{}" and "null" are what old clients still send.
	if c.ContentLength > 7 || c.ContentLength == -1 {
		return errs.New(errs.Invalid, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if c.query("checkpoint") != "" {
		return errs.New(errs.NotImplemented, "skiff: starting from a checkpoint is not there yet")
	}
	if err := s.Containers.Start(c.Context(), c.name, c.query("detachKeys")); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

// stopOptions reads what stop and restart take.
func stopOptions(c *call) (container.StopOptions, error) {
	var opt container.StopOptions
	if c.version >= 42 {
		opt.Signal = c.query("signal")
	}
	if c.query("t") != "" {
		seconds, err := c.number("t", 0)
		if err != nil {
			return opt, err
		}
		opt.Timeout = &seconds
	}
	return opt, nil
}

func (s *Server) containerStop(c *call) error {
	opt, err := stopOptions(c)
	if err != nil {
		return err
	}
	if err := s.Containers.Stop(c.Context(), c.name, opt); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (s *Server) containerRestart(c *call) error {
	opt, err := stopOptions(c)
	if err != nil {
		return err
	}
	if err := s.Containers.Restart(c.Context(), c.name, opt); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (s *Server) containerKill(c *call) error {
	if err := s.Containers.Kill(c.Context(), c.name, c.query("signal")); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

// containerWait sends the header as soon as the wait is registered: clients start the container after they have seen it.
func (s *Server) containerWait(c *call) error {
	condition := c.query("condition")
	switch apicontainer.WaitCondition(condition) {
	case "", apicontainer.WaitConditionNotRunning, apicontainer.WaitConditionNextExit, apicontainer.WaitConditionRemoved:
	default:
		return errs.New(errs.Invalid, "invalid condition: %q", condition)
	}
	if condition == "" {
		condition = string(apicontainer.WaitConditionNotRunning)
	}
	result, err := s.Containers.Wait(c.Context(), c.name, container.WaitCondition(condition))
	if err != nil {
		return err
	}
	c.Header()["Content-Type"] = contentJSON
	c.WriteHeader(http.StatusOK)
	_ = c.flush()
	select {
	case <-c.Context().Done():
		return nil
	case r := <-result:
		answer := apicontainer.WaitResponse{StatusCode: r.StatusCode}
		if r.Err != nil {
			answer.Error = &apicontainer.WaitExitError{Message: r.Err.Error()}
		}
		_ = json.NewEncoder(c).Encode(answer)
		return nil
	}
}

func attachOptions(c *call) container.AttachOptions {
	return container.AttachOptions{
		Stdin:      c.flag("stdin"),
		Stdout:     c.flag("stdout"),
		Stderr:     c.flag("stderr"),
		Stream:     c.flag("stream"),
		Logs:       c.flag("logs"),
		DetachKeys: c.query("detachKeys"),
	}
}

func (s *Server) containerAttach(c *call) error {
	sess, err := s.Containers.Attach(c.Context(), c.name, attachOptions(c))
	if err != nil {
		return err
	}
	return c.run(sess, "attach", stream{})
}

func (s *Server) containerAttachWebsocket(c *call) error {
	if !strings.EqualFold(c.Request.Header.Get("Upgrade"), "websocket") {
		return errs.New(errs.Invalid, "GET /containers/%s/attach/ws needs the header \"Upgrade: websocket\"", c.name)
	}
	opt := attachOptions(c)
	if c.version < 42 { // the three parameters were documented, but had no effect
		opt.Stdin, opt.Stdout, opt.Stderr = true, true, true
	}
	sess, err := s.Containers.Attach(c.Context(), c.name, opt)
	if err != nil {
		return err
	}
	return c.runWebsocket(sess)
}

func (s *Server) containerResize(c *call) error {
	height, width, err := c.size()
	if err != nil {
		return err
	}
	if err := s.Containers.Resize(c.Context(), c.name, height, width); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

func (s *Server) containerLogs(c *call) error {
	opt := container.LogOptions{
		Stdout:     c.flag("stdout"),
		Stderr:     c.flag("stderr"),
		Timestamps: c.flag("timestamps"),
		Details:    c.flag("details"),
		Follow:     c.flag("follow"),
		Tail:       -1,
	}
	if !opt.Stdout && !opt.Stderr {
		return errs.New(errs.Invalid, "Bad parameters: you must choose at least one stream")
	}
	if n, err := strconv.Atoi(c.query("tail")); err == nil && n >= 0 { // "all" and anything else: everything
		opt.Tail = n
	}
	var err error
	if opt.Since, err = c.moment("since"); err != nil {
		return err
	}
	if opt.Until, err = c.moment("until"); err != nil {
		return err
	}
	r, tty, err := s.Containers.Logs(c.Context(), c.name, opt)
	if err != nil {
		return err
	}
	c.Header().Set("Content-Type", streamType(c.version, tty))
	return c.copyStream(r)
}

// moment reads a point in time: seconds since 1970 with an optional fraction, as the Engine API has them; "" and "0" are
// the zero value.
func (c *call) moment(key string) (time.Time, error) {
	s := c.query(key)
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	nsec := int64(0)
	if err == nil && fraction != "" {
		fraction = (fraction + "000000000")[:9]
		nsec, err = strconv.ParseInt(fraction, 10, 64)
	}
	if err != nil {
		return time.Time{}, errs.New(errs.Invalid, "invalid value %q for %s: it must be a unix time, in seconds with an optional fraction", s, key)
	}
	return time.Unix(sec, nsec), nil
}

func (s *Server) containerTop(c *call) error {
	top, err := s.Containers.Top(c.Context(), c.name, c.query("ps_args"))
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, top)
}

func (s *Server) containerDelete(c *call) error {
	err := s.Containers.Remove(c.Context(), c.name, container.RemoveOptions{
		Force:         c.flag("force"),
		RemoveVolumes: c.flag("v"),
		RemoveLink:    c.flag("link"),
	})
	if err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}
