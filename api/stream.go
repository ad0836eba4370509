package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/docker/go-units"

	"skiff/image"
)

// Media types of the API's streams.
const (
	mediaRaw         = "application/vnd.docker.raw-stream"         // a terminal's bytes
	mediaMultiplexed = "application/vnd.docker.multiplexed-stream" // stdcopy frames; so named since 1.42
	mediaJSON        = "application/json"
	mediaJSONLines   = "application/jsonl"
	mediaNDJSON      = "application/x-ndjson"
	mediaJSONSeq     = "application/json-seq" // RFC 7464
	mediaTar         = "application/x-tar"
)

// streamType names the format of a container's output for a version of the API.
func streamType(v Version, tty bool) string {
	if !tty && v >= 42 {
		return mediaMultiplexed
	}
	return mediaRaw
}

// flushed writes an answer's body and sends on each part at once.
type flushed struct{ c *call }

func (f flushed) Write(b []byte) (int, error) {
	n, err := f.c.Write(b)
	if err == nil {
		err = f.c.flush()
	}
	return n, err
}

// copyStream sends r on as it comes, until its end or until the client leaves. It closes r.
func (c *call) copyStream(r io.ReadCloser) error {
	defer context.AfterFunc(c.Context(), func() { _ = r.Close() })()
	defer r.Close()
	if err := c.flush(); err != nil {
		return nil // the client left
	}
	out := &watched{w: flushed{c}}
	_, err := io.CopyBuffer(out, onlyReader{r}, make([]byte, 32<<10))
	if out.failed || c.Context().Err() != nil {
		return nil
	}
	return err
}

// onlyReader hides WriteTo, so that copying keeps our buffer size and our flushes.
type onlyReader struct{ io.Reader }

// watched remembers whether an error was the writer's: then there is nobody left to tell.
type watched struct {
	w      io.Writer
	failed bool
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	w.failed = w.failed || err != nil
	return n, err
}

// progress sends a JSON stream of messages, as pull and load do. The header goes out with the first message, so that an
// error before it is still an HTTP status.
type progress struct {
	c       *call
	started bool
}

// progressDetail has no omitempty on the struct itself: clients expect {} where there is no number.
type progressDetail struct {
	Current int64 `json:"current,omitempty"`
	Total   int64 `json:"total,omitempty"`
}

type progressLine struct {
	Stream   string          `json:"stream,omitempty"`
	Status   string          `json:"status,omitempty"`
	Detail   *progressDetail `json:"progressDetail,omitempty"`
	Progress string          `json:"progress,omitempty"` // the bar as text; deprecated in 1.48
	ID       string          `json:"id,omitempty"`
	Error    *errorDetail    `json:"errorDetail,omitempty"`
	Text     string          `json:"error,omitempty"` // the error's text again, for clients that know no errorDetail
}

type errorDetail struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message"`
}

func (p *progress) send(line progressLine) {
	if !p.started {
		p.started = true
		p.c.Header().Set("Content-Type", mediaJSON)
	}
	b, err := json.Marshal(line)
	if err != nil {
		return
	}
	// A client that left cancels the request's context: the service stops by that.
	_, _ = flushed{p.c}.Write(append(b, '\r', '\n'))
}

// message sends one progress message of the image service.
func (p *progress) message(m image.Message) {
	line := progressLine{Status: m.Status, ID: m.ID}
	switch {
	case m.Current > 0 || m.Total > 0:
		line.Detail = &progressDetail{Current: m.Current, Total: m.Total}
		if p.c.version < 48 {
			line.Progress = bar(m.Current, m.Total)
		}
	case m.ID != "":
		line.Detail = &progressDetail{}
	}
	p.send(line)
}

// end finishes the stream: an error before the first message is the request's answer, one after it a last message.
func (p *progress) end(err error) error {
	if err == nil {
		if !p.started { // nothing to say is an empty stream
			p.c.Header().Set("Content-Type", mediaJSON)
			return p.c.done(http.StatusOK)
		}
		return nil
	}
	if !p.started {
		return err
	}
	if !errors.Is(err, context.Canceled) {
		p.c.log.Info("request failed in its stream", "method", p.c.Method, "path", p.c.URL.Path, "error", err)
	}
	p.send(progressLine{Error: &errorDetail{Message: err.Error()}, Text: err.Error()})
	return nil
}

// bar draws the progress as old clients show it: "[====>    ]  1.2MB/3.4MB".
func bar(current, total int64) string {
	const width = 50
	if total <= 0 {
		return units.HumanSize(float64(current))
	}
	current = min(current, total)
	n := int(current * width / total)
	line := make([]byte, width)
	for i := range line {
		switch {
		case i < n:
			line[i] = '='
		case i == n:
			line[i] = '>'
		default:
			line[i] = ' '
		}
	}
	return "[" + string(line) + "]  " + units.HumanSize(float64(current)) + "/" + units.HumanSize(float64(total))
}
