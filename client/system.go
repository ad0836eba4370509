package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
)

// ServerVersion returns the JSON text of GET /version.
func (c *Client) ServerVersion(ctx context.Context) (json.RawMessage, error) {
	return c.rawJSON(ctx, "/version")
}

// Info returns the JSON text of GET /info.
func (c *Client) Info(ctx context.Context) (json.RawMessage, error) { return c.rawJSON(ctx, "/info") }

// DiskUsage returns the JSON text of GET /system/df. Kinds are "container", "image", "volume", "build-cache"; none: all.
func (c *Client) DiskUsage(ctx context.Context, verbose bool, kinds ...string) (json.RawMessage, error) {
	q := url.Values{}
	if len(kinds) > 0 {
		q["type"] = kinds
	}
	if verbose {
		q.Set("verbose", "1")
	}
	return c.rawJSON(ctx, with("/system/df", q))
}

// Events streams what happens: a JSON Event after the other.
func (c *Client) Events(ctx context.Context, since, until string, filters Filters) (io.ReadCloser, error) {
	q := url.Values{}
	if since != "" {
		q.Set("since", since)
	}
	if until != "" {
		q.Set("until", until)
	}
	filters.into(q)
	return c.stream(ctx, &request{method: "GET", path: with("/events", q)})
}

// RawConn opens a connection to the daemon and does nothing with it, for dial-stdio.
func (c *Client) RawConn(ctx context.Context) (io.ReadWriteCloser, error) {
	nc, err := c.dialer(ctx)
	if err != nil {
		return nil, &ConnectError{Host: c.host, Err: err}
	}
	return nc, nil
}
