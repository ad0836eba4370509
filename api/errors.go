package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/moby/moby/api/types/common"

	"skiff/internal/errs"
)

// statuses maps the classes of package errs to HTTP statuses. There is no other place where an error gets its status.
var statuses = map[errs.Class]int{
	errs.Internal:       http.StatusInternalServerError,
	errs.Invalid:        http.StatusBadRequest,
	errs.Unauthorized:   http.StatusUnauthorized,
	errs.Forbidden:      http.StatusForbidden,
	errs.NotFound:       http.StatusNotFound,
	errs.Conflict:       http.StatusConflict,
	errs.NotModified:    http.StatusNotModified,
	errs.NotImplemented: http.StatusNotImplemented,
	errs.Unavailable:    http.StatusServiceUnavailable,
	errs.Exhausted:      http.StatusInsufficientStorage,
}

// statusOf is the HTTP status of an error.
func statusOf(err error) int {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	if status, ok := statuses[errs.Of(err)]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// errNotFound answers paths that are in no version of the API, with dockerd's text.
func errNotFound(*call) error { return errs.New(errs.NotFound, "page not found") }

// notYet makes the handler of an endpoint that skiff does not have.
func notYet(endpoint string) handler {
	return func(*call) error {
		return errs.New(errs.NotImplemented, "skiff: %s is not there yet", endpoint)
	}
}

// fail answers a request with an error. Where part of another answer has gone out already, all that is left is to break
// the connection, so that the client does not take the part for the whole.
func (c *call) fail(err error) {
	status := statusOf(err)
	gone := c.Context().Err() != nil && errors.Is(err, context.Canceled)
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented && !gone {
		c.log.Error("request failed", "method", c.Method, "path", c.URL.Path, "status", status, "error", err)
	}
	if c.wrote {
		panic(http.ErrAbortHandler)
	}
	if gone {
		return
	}
	if status == http.StatusNotModified {
		c.WriteHeader(status)
		return
	}
	body, _ := json.Marshal(common.ErrorResponse{Message: err.Error()})
	c.Header().Set("Content-Type", "application/json")
	c.WriteHeader(status)
	if c.Method != http.MethodHead {
		_, _ = c.Write(append(body, '\n'))
	}
}
