package kit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// API makes plain Engine API requests, as a program without a library would.
type API struct{ http *http.Client }

// NewAPI speaks to the daemon's socket.
func NewAPI(socket string) *API {
	return &API{&http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 16,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// StatusError is an answer that is not a success.
type StatusError struct {
	Status  int
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Message) }

// Call makes a request and decodes the answer into out, if out is not nil. An answer of 400 or more is a *StatusError;
// every other error says that the answer is unknown: the request may have been carried out or not.
func (a *API) Call(ctx context.Context, method, path, body string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://skiff/v1.44"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		var m struct{ Message string }
		json.Unmarshal(b, &m)
		return &StatusError{resp.StatusCode, m.Message}
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: answer %q: %w", method, path, b, err)
	}
	return nil
}
