package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
)

// Filters are the key=value pairs of --filter. Values of one key are alternatives.
type Filters map[string]map[string]bool

// Add adds a value.
func (f Filters) Add(key, value string) {
	if f[key] == nil {
		f[key] = map[string]bool{}
	}
	f[key][value] = true
}

func (f Filters) into(q url.Values) {
	if len(f) > 0 {
		b, _ := json.Marshal(f) // maps of strings and bools can always be encoded
		q.Set("filters", string(b))
	}
}

// Create makes a container. It returns its id and the daemon's warnings.
func (c *Client) Create(ctx context.Context, name, platform string, body []byte) (string, []string, error) {
	q := url.Values{}
	if name != "" {
		q.Set("name", name)
	}
	if platform != "" {
		q.Set("platform", platform)
	}
	var out struct {
		ID       string `json:"Id"`
		Warnings []string
	}
	err := c.exchange(ctx, &request{method: "POST", path: with("/containers/create", q), body: body}, &out)
	return out.ID, out.Warnings, err
}

// Start starts a container.
func (c *Client) Start(ctx context.Context, name, detachKeys string) error {
	q := url.Values{}
	if detachKeys != "" {
		q.Set("detachKeys", detachKeys)
	}
	return c.call(ctx, "POST", with(pathf("/containers/%s/start", name), q), nil, nil)
}

// Stop asks a container to end. Timeout is seconds, nil for the container's own.
func (c *Client) Stop(ctx context.Context, name, signal string, timeout *int) error {
	return c.call(ctx, "POST", with(pathf("/containers/%s/stop", name), stopQuery(signal, timeout)), nil, nil)
}

// Restart stops and starts a container.
func (c *Client) Restart(ctx context.Context, name, signal string, timeout *int) error {
	return c.call(ctx, "POST", with(pathf("/containers/%s/restart", name), stopQuery(signal, timeout)), nil, nil)
}

func stopQuery(signal string, timeout *int) url.Values {
	q := url.Values{}
	if signal != "" {
		q.Set("signal", signal)
	}
	if timeout != nil {
		q.Set("t", strconv.Itoa(*timeout))
	}
	return q
}

// Kill sends a signal to a container's first process; "" is KILL.
func (c *Client) Kill(ctx context.Context, name, signal string) error {
	q := url.Values{}
	if signal != "" {
		q.Set("signal", signal)
	}
	return c.call(ctx, "POST", with(pathf("/containers/%s/kill", name), q), nil, nil)
}

// Waiting is a container's end that is waited for.
type Waiting struct {
	body io.ReadCloser
}

// Wait registers at the daemon before it returns. The condition is "not-running", "next-exit" or "removed".
func (c *Client) Wait(ctx context.Context, name, condition string) (*Waiting, error) {
	body, err := c.stream(ctx, waitRequest(name, condition))
	if err != nil {
		return nil, err
	}
	return &Waiting{body: body}, nil
}

func waitRequest(name, condition string) *request {
	q := url.Values{}
	if condition != "" {
		q.Set("condition", condition)
	}
	return &request{method: "POST", path: with(pathf("/containers/%s/wait", name), q)}
}

// Result waits for the end and returns the exit status.
func (w *Waiting) Result() (int, error) {
	defer w.body.Close()
	text, err := io.ReadAll(io.LimitReader(w.body, 1<<20))
	if err != nil {
		return 125, fmt.Errorf("error waiting for container: %w", err)
	}
	var out struct {
		StatusCode int64
		Error      *struct{ Message string }
		Message    string `json:"message"`
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return 125, fmt.Errorf("error waiting for container: %w", err)
	}
	if out.Error != nil && out.Error.Message != "" {
		return 125, fmt.Errorf("error waiting for container: %s", out.Error.Message)
	}
	if out.Message != "" {
		return 125, errors.New(out.Message)
	}
	return int(out.StatusCode), nil
}

// Close stops waiting.
func (w *Waiting) Close() error { return w.body.Close() }

// AttachOptions select the streams of an attach.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs                  bool   // what was written until now, first
	DetachKeys            string // "" : the daemon's default
	Framed                bool   // what the streams look like, should the daemon not say: frames, or a terminal's raw bytes
}

// Attach connects with a container's streams.
func (c *Client) Attach(ctx context.Context, name string, opt AttachOptions) (*Hijacked, error) {
	return c.hijack(ctx, opt.request(name), opt.Framed)
}

// AttachAndWait does both side by side. The version must be settled, as it is after any other call.
func (c *Client) AttachAndWait(ctx context.Context, name string, opt AttachOptions, condition string) (*Hijacked, *Waiting, error) {
	w, err := c.send(ctx, waitRequest(name, condition))
	if err != nil {
		return nil, nil, err
	}
	r := opt.request(name)
	r.hijack = true
	a, err := c.send(ctx, r)
	if err != nil {
		w.abandon()
		return nil, nil, err
	}
	attached, err := a.receive()
	if err == nil {
		attached, err = c.judge(attached)
	}
	var conn *Hijacked
	if err == nil {
		conn, err = c.takeOver(attached, opt.Framed)
	}
	if err != nil {
		w.abandon()
		return nil, nil, err
	}
	waits, err := w.receive()
	if err == nil {
		waits, err = c.judge(waits)
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, &Waiting{body: waits.body}, nil
}

func (opt AttachOptions) request(name string) *request {
	q := url.Values{"stream": {"1"}}
	for key, on := range map[string]bool{"stdin": opt.Stdin, "stdout": opt.Stdout, "stderr": opt.Stderr, "logs": opt.Logs} {
		if on {
			q.Set(key, "1")
		}
	}
	if opt.DetachKeys != "" {
		q.Set("detachKeys", opt.DetachKeys)
	}
	return &request{method: "POST", path: with(pathf("/containers/%s/attach", name), q), kind: "text/plain"}
}

// Resize sets the size of a container's terminal, in characters.
func (c *Client) Resize(ctx context.Context, name string, height, width uint) error {
	return c.call(ctx, "POST", with(pathf("/containers/%s/resize", name), sizeQuery(height, width)), nil, nil)
}

func sizeQuery(height, width uint) url.Values {
	return url.Values{"h": {strconv.Itoa(int(height))}, "w": {strconv.Itoa(int(width))}}
}

// LogOptions select lines of a container's log.
type LogOptions struct {
	Follow, Timestamps, Details bool
	Since, Until, Tail          string
}

// Logs reads a container's log; framed says in which form it comes, nil if the daemon does not say (before 1.42).
func (c *Client) Logs(ctx context.Context, name string, opt LogOptions) (r io.ReadCloser, framed *bool, err error) {
	q := url.Values{"stdout": {"1"}, "stderr": {"1"}}
	for key, on := range map[string]bool{"follow": opt.Follow, "timestamps": opt.Timestamps, "details": opt.Details} {
		if on {
			q.Set(key, "1")
		}
	}
	for key, v := range map[string]string{"since": opt.Since, "until": opt.Until, "tail": opt.Tail} {
		if v != "" {
			q.Set(key, v)
		}
	}
	res, err := c.do(ctx, &request{method: "GET", path: with(pathf("/containers/%s/logs", name), q)})
	if err != nil {
		return nil, nil, err
	}
	if c.AtLeast("1.42") {
		switch res.header["content-type"] {
		case mediaMulti:
			yes := true
			framed = &yes
		case mediaRaw:
			no := false
			framed = &no
		}
	}
	return res.body, framed, nil
}

// TopProcesses lists a container's processes.
func (c *Client) TopProcesses(ctx context.Context, name, psArgs string) (Top, error) {
	q := url.Values{}
	if psArgs != "" {
		q.Set("ps_args", psArgs)
	}
	var out Top
	err := c.call(ctx, "GET", with(pathf("/containers/%s/top", name), q), nil, &out)
	return out, err
}

// RemoveOptions say how a container is removed.
type RemoveOptions struct {
	Force, Volumes, Link bool
}

// Remove removes a container.
func (c *Client) Remove(ctx context.Context, name string, opt RemoveOptions) error {
	q := url.Values{}
	for key, on := range map[string]bool{"force": opt.Force, "v": opt.Volumes, "link": opt.Link} {
		if on {
			q.Set(key, "1")
		}
	}
	return c.call(ctx, "DELETE", with(pathf("/containers/%s", name), q), nil, nil)
}

// ListOptions select containers.
type ListOptions struct {
	All, Size bool
	Limit     int // the newest n; <= 0: no limit
	Filters   Filters
}

// List lists containers.
func (c *Client) List(ctx context.Context, opt ListOptions) ([]Summary, error) {
	q := url.Values{}
	if opt.All {
		q.Set("all", "1")
	}
	if opt.Limit > 0 {
		q.Set("limit", strconv.Itoa(opt.Limit))
	}
	if opt.Size {
		q.Set("size", "1")
	}
	opt.Filters.into(q)
	var out []Summary
	err := c.call(ctx, "GET", with("/containers/json", q), nil, &out)
	return out, err
}

// InspectContainer returns the JSON text that describes a container.
func (c *Client) InspectContainer(ctx context.Context, name string, size bool) (json.RawMessage, error) {
	q := url.Values{}
	if size {
		q.Set("size", "1")
	}
	return c.rawJSON(ctx, with(pathf("/containers/%s/json", name), q))
}

// ExecCreate prepares a further process in a container.
func (c *Client) ExecCreate(ctx context.Context, name string, body ExecBody) (string, error) {
	var out struct {
		ID string `json:"Id"`
	}
	err := c.call(ctx, "POST", pathf("/containers/%s/exec", name), body, &out)
	return out.ID, err
}

// RunExec prepares a further process in a container, starts it and connects with its streams. A skiffd does it all in one request
// and sends the exit code after the output (Hijacked.Exit); other daemons are asked step by step.
func (c *Client) RunExec(ctx context.Context, name string, body ExecBody) (id string, conn *Hijacked, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return "", nil, err
	}
	res, err := c.do(ctx, &request{
		method: "POST", path: pathf("/containers/%s/exec", name), header: []string{"Skiff-Exec: start"}, body: b, hijack: true,
	})
	if err != nil {
		return "", nil, err
	}
	if res.status == 101 {
		conn, err = c.takeOver(res, !body.Tty)
		return res.header["skiff-exec-id"], conn, err
	}
	var made struct {
		ID string `json:"Id"`
	}
	text, err := io.ReadAll(res.body)
	_ = res.body.Close()
	if err == nil {
		err = json.Unmarshal(text, &made)
	}
	if err == nil && made.ID == "" {
		err = errors.New("it has no ID")
	}
	if err != nil {
		return "", nil, fmt.Errorf("read the answer to POST /containers/%s/exec: %w", name, err)
	}
	conn, err = c.ExecStart(ctx, made.ID, ExecStartBody{Tty: body.Tty, ConsoleSize: body.ConsoleSize})
	return made.ID, conn, err
}

// ExecStart starts a prepared process and connects with its streams.
func (c *Client) ExecStart(ctx context.Context, id string, body ExecStartBody) (*Hijacked, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return c.hijack(ctx, &request{method: "POST", path: pathf("/exec/%s/start", id), body: b}, !body.Tty)
}

// ExecStartDetached starts a prepared process and leaves it alone.
func (c *Client) ExecStartDetached(ctx context.Context, id string, body ExecStartBody) error {
	body.Detach = true
	return c.call(ctx, "POST", pathf("/exec/%s/start", id), body, nil)
}

// ExecState is how a further process is doing.
type ExecState struct {
	Running  bool
	ExitCode *int
	Pid      int
}

// ExecInspect asks how a further process is doing.
func (c *Client) ExecInspect(ctx context.Context, id string) (ExecState, error) {
	var out ExecState
	err := c.call(ctx, "GET", pathf("/exec/%s/json", id), nil, &out)
	return out, err
}

// ExecResize sets the size of a further process's terminal, in characters.
func (c *Client) ExecResize(ctx context.Context, id string, height, width uint) error {
	return c.call(ctx, "POST", with(pathf("/exec/%s/resize", id), sizeQuery(height, width)), nil, nil)
}
