package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/distribution/reference"

	"skiff/internal/errs"
)

// Error is what a registry answered instead of what was asked for.
type Error struct {
	Status  int    // HTTP status
	Code    string // of the distribution specification, as "MANIFEST_UNKNOWN"; "" if the body had none
	Message string
	Host    string
}

// Error has the form that Docker gives these: the code in lower case, a colon, the message.
func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("received unexpected HTTP status from %s: %d %s", e.Host, e.Status, http.StatusText(e.Status))
	}
	code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	if e.Message == "" {
		return code
	}
	return code + ": " + e.Message
}

// responseError makes an Error of a response with its body, and gives it its class.
func responseError(resp *http.Response, body []byte) error {
	e := &Error{Status: resp.StatusCode, Host: resp.Request.URL.Host}
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"` // Docker Hub's token service
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &doc) == nil {
		switch {
		case len(doc.Errors) > 0:
			e.Code, e.Message = doc.Errors[0].Code, doc.Errors[0].Message
		case doc.Details != "":
			e.Message = doc.Details
		default:
			e.Message = doc.Message
		}
	}
	e.Code, e.Message = clean(e.Code, 64), clean(e.Message, 512)
	class := errs.Internal
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		class = errs.Unauthorized
		e.defaults("UNAUTHORIZED", "authentication required")
	case http.StatusForbidden:
		class = errs.Forbidden
		e.defaults("DENIED", "requested access to the resource is denied")
	case http.StatusNotFound:
		class = errs.NotFound
	case http.StatusTooManyRequests:
		class = errs.Unavailable
		e.defaults("TOOMANYREQUESTS", "the registry allows no more requests for now")
	default:
		if resp.StatusCode >= 500 {
			class = errs.Unavailable
		}
	}
	return errs.As(class, e)
}

func (e *Error) defaults(code, message string) {
	if e.Code == "" {
		e.Code = code
	}
	if e.Message == "" {
		e.Message = message
	}
}

// clean makes foreign text fit for a terminal.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// pullError adds what Docker says about a reference that can't be pulled.
func pullError(ref reference.Reference, name reference.Named, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	familiar := reference.FamiliarName(name)
	switch {
	case e.Code == "DENIED", e.Code == "UNAUTHORIZED" && e.Status == http.StatusUnauthorized:
		return errs.New(errs.NotFound, "pull access denied for %s, repository does not exist or may require 'docker login': %w", familiar, err)
	case e.Code == "NAME_UNKNOWN":
		return errs.New(errs.NotFound, "repository %s not found: %w", familiar, err)
	case e.Status == http.StatusNotFound:
		e.defaults("MANIFEST_UNKNOWN", "manifest unknown")
		return errs.New(errs.NotFound, "manifest for %s not found: %w", reference.FamiliarString(ref), err)
	}
	return err
}

// blobError is pullError for a blob: one that is missing says nothing about the reference.
func blobError(name reference.Named, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusNotFound {
		e.defaults("BLOB_UNKNOWN", "blob unknown to registry")
		return err
	}
	return pullError(name, name, err)
}
