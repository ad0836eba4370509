package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
)

// PullOptions say what to pull.
type PullOptions struct {
	Image    string // repository
	Tag      string // tag or digest; "" : all tags
	Platform string
	Auth     string // X-Registry-Auth: base64url of JSON; "" : none
}

// Pull pulls an image; the answer is a stream of Progress messages.
func (c *Client) Pull(ctx context.Context, opt PullOptions) (io.ReadCloser, error) {
	q := url.Values{"fromImage": {opt.Image}}
	if opt.Tag != "" {
		q.Set("tag", opt.Tag)
	}
	if opt.Platform != "" {
		q.Set("platform", opt.Platform)
	}
	r := &request{method: "POST", path: with("/images/create", q)}
	if opt.Auth != "" {
		r.header = append(r.header, "X-Registry-Auth: "+opt.Auth)
	}
	return c.stream(ctx, r)
}

// ImportOptions describe an image that is made of a file system's tar.
type ImportOptions struct {
	Source   string // URL, or "-" for the body
	Ref      string // repository[:tag]
	Message  string
	Changes  []string
	Platform string
}

// Import makes an image; the answer is a stream of Progress messages.
func (c *Client) Import(ctx context.Context, body io.Reader, opt ImportOptions) (io.ReadCloser, error) {
	q := url.Values{"fromSrc": {opt.Source}}
	for key, v := range map[string]string{"repo": opt.Ref, "message": opt.Message, "platform": opt.Platform} {
		if v != "" {
			q.Set(key, v)
		}
	}
	if len(opt.Changes) > 0 {
		q["changes"] = opt.Changes
	}
	return c.stream(ctx, &request{method: "POST", path: with("/images/create", q), stream: body, kind: "application/x-tar"})
}

// ImageListOptions select images.
type ImageListOptions struct {
	All, SharedSize, Manifests bool
	Filters                    Filters
}

// Images lists images.
func (c *Client) Images(ctx context.Context, opt ImageListOptions) ([]Image, error) {
	q := url.Values{}
	for key, on := range map[string]bool{"all": opt.All, "shared-size": opt.SharedSize, "manifests": opt.Manifests} {
		if on {
			q.Set(key, "1")
		}
	}
	opt.Filters.into(q)
	var out []Image
	err := c.call(ctx, "GET", with("/images/json", q), nil, &out)
	return out, err
}

// InspectImage returns the JSON text that describes an image. The platform is JSON, or "".
func (c *Client) InspectImage(ctx context.Context, ref, platform string) (json.RawMessage, error) {
	q := url.Values{}
	if platform != "" {
		q.Set("platform", platform)
	}
	return c.rawJSON(ctx, with(pathf("/images/%s/json", ref), q))
}

// HistoryItem is a step of an image's making.
type HistoryItem struct {
	ID        string `json:"Id"`
	Created   int64
	CreatedBy string
	Tags      []string
	Size      int64
	Comment   string
}

// History lists the steps of an image's making, newest first.
func (c *Client) History(ctx context.Context, ref, platform string) ([]HistoryItem, error) {
	q := url.Values{}
	if platform != "" {
		q.Set("platform", platform)
	}
	var out []HistoryItem
	err := c.call(ctx, "GET", with(pathf("/images/%s/history", ref), q), nil, &out)
	return out, err
}

// Tag gives an image another name.
func (c *Client) Tag(ctx context.Context, source, repo, tag string) error {
	q := url.Values{"repo": {repo}}
	if tag != "" {
		q.Set("tag", tag)
	}
	return c.call(ctx, "POST", with(pathf("/images/%s/tag", source), q), nil, nil)
}

// RemoveImage takes a name from an image and removes the image if that was the last. Platforms are JSON.
func (c *Client) RemoveImage(ctx context.Context, ref string, force, noPrune bool, platforms []string) ([]Deleted, error) {
	q := url.Values{}
	if force {
		q.Set("force", "1")
	}
	if noPrune {
		q.Set("noprune", "1")
	}
	if len(platforms) > 0 {
		q["platforms"] = platforms
	}
	var out []Deleted
	err := c.call(ctx, "DELETE", with(pathf("/images/%s", ref), q), nil, &out)
	return out, err
}

// Load loads images from a tar; the answer is a stream of Progress messages.
func (c *Client) Load(ctx context.Context, body io.Reader, quiet bool, platforms []string) (io.ReadCloser, error) {
	q := url.Values{}
	if quiet {
		q.Set("quiet", "1")
	} else {
		q.Set("quiet", "0")
	}
	if len(platforms) > 0 {
		q["platform"] = platforms
	}
	return c.stream(ctx, &request{method: "POST", path: with("/images/load", q), stream: body, kind: "application/x-tar"})
}

// Save writes images as a tar.
func (c *Client) Save(ctx context.Context, refs, platforms []string) (io.ReadCloser, error) {
	q := url.Values{"names": refs}
	if len(platforms) > 0 {
		q["platform"] = platforms
	}
	return c.stream(ctx, &request{method: "GET", path: with("/images/get", q)})
}
