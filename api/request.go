package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"skiff/internal/errs"
)

// maxBody bounds a request's JSON body. The largest that real clients send are creates with a few hundred labels.
const maxBody = 8 << 20

// call is one request while it is served. It is the ResponseWriter too, so that a handler's error can tell whether
// the answer has begun.
type call struct {
	*http.Request
	http.ResponseWriter
	log     *slog.Logger
	buffers *sync.Pool
	version Version
	name    string // the path's variable
	params  url.Values
	wrote   bool // the status line is out, or the connection is no longer ours
}

// Header is the answer's header (the request's is c.Request.Header).
func (c *call) Header() http.Header { return c.ResponseWriter.Header() }

// Write sends a part of the answer.
func (c *call) Write(b []byte) (int, error) {
	c.wrote = true
	return c.ResponseWriter.Write(b)
}

// WriteHeader sends the status line and the header.
func (c *call) WriteHeader(status int) {
	c.wrote = true
	c.ResponseWriter.WriteHeader(status)
}

// flush sends on what was written until now.
func (c *call) flush() error {
	c.wrote = true
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// query is the value of a query parameter, "" if it is not there.
func (c *call) query(key string) string { return c.params.Get(key) }

// flag reads a boolean as dockerd does: everything but a few words for no is yes.
func (c *call) flag(key string) bool { return truth(c.query(key)) }

func truth(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// number reads an optional integer.
func (c *call) number(key string, otherwise int) (int, error) {
	s := c.query(key)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errs.New(errs.Invalid, "invalid value %q for %s: it must be a whole number", s, key)
	}
	return n, nil
}

// size reads a terminal's height and width.
func (c *call) size() (height, width uint, err error) {
	h, err := strconv.ParseUint(c.query("h"), 10, 16)
	if err != nil {
		return 0, 0, errs.New(errs.Invalid, "invalid resize height %q: %w", c.query("h"), errors.Unwrap(err))
	}
	w, err := strconv.ParseUint(c.query("w"), 10, 16)
	if err != nil {
		return 0, 0, errs.New(errs.Invalid, "invalid resize width %q: %w", c.query("w"), errors.Unwrap(err))
	}
	return uint(h), uint(w), nil
}

// filters decodes the filters parameter: {"key":{"value":true}}, or {"key":["value"]} of old clients. Which keys there
// are is checked by the services.
func (c *call) filters() (map[string][]string, error) {
	s := c.query("filters")
	if s == "" {
		return nil, nil
	}
	out := map[string][]string{}
	var sets map[string]map[string]bool
	err := json.Unmarshal([]byte(s), &sets)
	if err == nil {
		for key, set := range sets {
			out[key] = []string{}
			for value, on := range set {
				if on {
					out[key] = append(out[key], value)
				}
			}
		}
		return out, nil
	}
	if json.Unmarshal([]byte(s), &out) != nil {
		return nil, errs.New(errs.Invalid, "invalid filters %q: %w", s, err)
	}
	return out, nil
}

// isJSON checks the Content-Type of a request that has a body, with dockerd's text.
func (c *call) isJSON() error {
	ct := c.Request.Header.Get("Content-Type")
	if ct == "" && (c.Body == nil || c.ContentLength == 0) {
		return nil
	}
	if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
		if err != nil && ct != "" {
			return errs.New(errs.Invalid, "malformed Content-Type header (%s): %w", ct, err)
		}
		return errs.New(errs.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", ct)
	}
	return nil
}

// read decodes a JSON body strictly, with dockerd's texts. No body at all leaves v as it is.
func (c *call) read(v any) error {
	if err := c.isJSON(); err != nil {
		return err
	}
	if c.Body == nil || c.ContentLength == 0 {
		return nil
	}
	dec := json.NewDecoder(http.MaxBytesReader(c.ResponseWriter, c.Body, maxBody))
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return errs.New(errs.Invalid, "invalid JSON: got EOF while reading request body")
		}
		return errs.New(errs.Invalid, "invalid JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errs.New(errs.Invalid, "unexpected content after JSON")
	}
	return nil
}

// keptBuffer is the largest buffer that is kept for the next answer. A list of 1,000 containers is a megabyte.
const keptBuffer = 4 << 20

// answer sends v as JSON. It is encoded as a whole first, so that what can't be encoded is a 500 and not half an answer.
func (c *call) answer(status int, v any) error {
	buf, _ := c.buffers.Get().(*bytes.Buffer)
	if buf == nil {
		buf = new(bytes.Buffer)
	}
	defer func() {
		if buf.Cap() <= keptBuffer {
			buf.Reset()
			c.buffers.Put(buf)
		}
	}()
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return errs.New(errs.Internal, "answer to %s %s: %w", c.Method, c.URL.Path, err)
	}
	c.Header()["Content-Type"] = contentJSON
	c.Header()["Content-Length"] = []string{strconv.Itoa(buf.Len())}
	c.WriteHeader(status)
	_, _ = c.Write(buf.Bytes()) // the client left: there is nobody to tell
	return nil
}

// done answers without a body.
func (c *call) done(status int) error {
	c.WriteHeader(status)
	return nil
}

var contentJSON = []string{"application/json"}
