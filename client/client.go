package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// MaxVersion is the newest version of the Engine API that this client knows.
	MaxVersion = "1.56"
	// MinVersion is the oldest one.
	MinVersion = "1.40"
)

// Options describe how a daemon is reached.
type Options struct {
	Host    string   // as "unix:///run/skiff/skiff.sock", "tcp://host:2376", "ssh://user@host"
	TLS     *TLS     // nil: none
	Version string   // an API version that is not negotiated; "" : negotiated
	Header  []string // further header lines, "Name: value", for every request
	Helper  string   // path of the program that speaks TLS; "" : looked for
}

// Client is a connection to one daemon. It may be used by several goroutines.
type Client struct {
	host   string
	dialer dialer
	header []string
	revive func(ctx context.Context, err error) error

	mu         sync.Mutex
	version    string
	negotiated bool
	server     map[string]string // the header of the last answer
	idle       []*conn
}

// New makes a client. Nothing is dialled before it is needed.
func New(opt Options) (*Client, error) {
	dial, err := dialerFor(opt)
	if err != nil {
		return nil, err
	}
	c := &Client{host: opt.Host, dialer: dial, header: opt.Header, version: MaxVersion}
	if v := strings.TrimPrefix(opt.Version, "v"); v != "" {
		if _, _, ok := parseVersion(v); !ok {
			return nil, fmt.Errorf("invalid API version %q: it must be of the form 1.N", opt.Version)
		}
		c.version, c.negotiated = v, true
	}
	return c, nil
}

// Host returns where the daemon is.
func (c *Client) Host() string { return c.host }

// Version returns the API version in use; it is final after the first answer.
func (c *Client) Version() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// AtLeast reports whether the API version in use is v or newer.
func (c *Client) AtLeast(v string) bool { return !versionLess(c.Version(), v) }

// ServerHeader returns a header of the daemon's last answer ("server", "ostype", "api-version").
func (c *Client) ServerHeader(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server[name]
}

// Close closes idle connections. Calls in progress go on.
func (c *Client) Close() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, cn := range idle {
		_ = cn.Close()
	}
}

// Prepare opens a connection for a call that is going to be made, so that the call need not wait for it.
func (c *Client) Prepare(ctx context.Context) {
	if nc, err := c.dialer(ctx); err == nil {
		c.release(newConn(nc))
	}
}

// OnUnreachable sets what is done once when the daemon can't be reached. If f returns nil, the daemon is tried again.
func (c *Client) OnUnreachable(f func(ctx context.Context, err error) error) { c.revive = f }

// dial opens a connection.
func (c *Client) dial(ctx context.Context) (stream, error) {
	nc, err := c.dialer(ctx)
	if err == nil || ctx.Err() != nil {
		return nc, err
	}
	c.mu.Lock()
	revive := c.revive
	c.revive = nil
	c.mu.Unlock()
	if revive == nil || revive(ctx, err) != nil {
		return nil, err
	}
	return c.dialer(ctx)
}

func (c *Client) take(ctx context.Context) (*conn, error) {
	for {
		c.mu.Lock()
		n := len(c.idle)
		if n == 0 {
			c.mu.Unlock()
			break
		}
		cn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		if cn.alive() {
			return cn, nil
		}
		_ = cn.Close()
	}
	nc, err := c.dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &ConnectError{Host: c.host, Err: err}
	}
	return newConn(nc), nil
}

func (c *Client) release(cn *conn) {
	cn.since = time.Now()
	c.mu.Lock()
	c.idle = append(c.idle, cn)
	c.mu.Unlock()
}

// do sends a request and returns the answer's head; an answer with status 400 or more becomes an *Error.
func (c *Client) do(ctx context.Context, r *request) (*response, error) {
	if err := c.settleVersion(ctx, r); err != nil {
		return nil, err
	}
	asked := c.Version()
	res, err := c.once(ctx, r)
	if err != nil {
		return nil, err
	}
	if res.status == 400 && r.stream == nil && c.stepDown(res, asked) {
		_ = drain(res.body)
		if res, err = c.once(ctx, r); err != nil {
			return nil, err
		}
	}
	return c.judge(res)
}

// judge makes an error of an answer that is one.
func (c *Client) judge(res *response) (*response, error) {
	c.learn(res)
	if res.status >= 400 {
		return nil, readError(res)
	}
	return res, nil
}

// settleVersion asks for the version first where the request can't be sent twice.
func (c *Client) settleVersion(ctx context.Context, r *request) error {
	c.mu.Lock()
	settled := c.negotiated
	c.mu.Unlock()
	if settled || r.stream == nil {
		return nil
	}
	_, err := c.Ping(ctx)
	return err
}

// once sends a request on an idle or new connection and reads the answer's head.
func (c *Client) once(ctx context.Context, r *request) (*response, error) {
	s, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	return s.receive()
}

// sent is a request whose answer was not read yet.
type sent struct {
	c    *Client
	ctx  context.Context
	r    *request
	cn   *conn
	stop func() bool // ends the watch over ctx
	err  error       // of writing it; the daemon may say more
}

// send sends a request on an idle or new connection. The caller must call receive or abandon.
func (c *Client) send(ctx context.Context, r *request) (*sent, error) {
	cn, err := c.take(ctx)
	if err != nil {
		return nil, err
	}
	if len(c.header) > 0 {
		r2 := *r
		r2.header = append(append([]string(nil), r.header...), c.header...)
		r = &r2
	}
	s := &sent{c: c, ctx: ctx, r: r, cn: cn, stop: whenDone(ctx, cn)}
	s.err = r.write(cn, c.Version())
	return s, nil
}

// abandon gives the answer up.
func (s *sent) abandon() {
	s.stop()
	_ = s.cn.Close()
}

// receive reads the answer's head.
func (s *sent) receive() (*response, error) {
	res, err := readHead(s.cn) // also after a failed write
	if err != nil {
		if s.err != nil {
			err = s.err
		}
		return nil, s.failed(err)
	}
	if s.r.hijack && (res.status == 101 || res.status == 200) {
		if !s.stop() {
			return nil, s.failed(s.ctx.Err())
		}
		return res, nil
	}
	err = res.openBody(s.r.method, func(reusable bool) {
		if !s.stop() || !reusable || s.err != nil {
			_ = s.cn.Close()
			return
		}
		s.c.release(s.cn)
	})
	if err != nil {
		return nil, s.failed(err)
	}
	return res, nil
}

// failed ends the connection and words the error.
func (s *sent) failed(err error) error {
	s.abandon()
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	var op *net.OpError
	var file *fs.PathError
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) || errors.As(err, &file) {
		return &ConnectError{Host: s.c.host, Err: s.c.whyEnded(s.cn, err)}
	}
	return fmt.Errorf("%s %s: %w", s.r.method, s.r.path, err)
}

// whyEnded explains a connection that ended too early; a transport program may know more.
func (c *Client) whyEnded(cn *conn, err error) error {
	if w, ok := cn.stream.(interface{ Reason() string }); ok {
		if text := w.Reason(); text != "" {
			return errors.New(text)
		}
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the daemon closed the connection")
	}
	return err
}

// learn takes over what an answer tells of the daemon.
func (c *Client) learn(res *response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server = res.header
	if c.negotiated {
		return
	}
	if v := res.header["api-version"]; v != "" {
		if versionLess(v, c.version) {
			c.version = v
		}
		c.negotiated = true
	}
}

// stepDown takes an older daemon's version after it refused ours, and reports whether that makes a second try worth it. Another
// call may have stepped down meanwhile.
func (c *Client) stepDown(res *response, asked string) bool {
	v := res.header["api-version"]
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.negotiated && v != "" && versionLess(v, c.version) {
		c.version, c.negotiated = v, true
	}
	return versionLess(c.version, asked)
}

// readError makes an *Error of an answer.
func readError(res *response) error {
	defer res.body.Close()
	text, err := io.ReadAll(io.LimitReader(res.body, 1<<20))
	if err != nil && len(text) == 0 {
		return fmt.Errorf("the daemon answered with status %d and an unreadable text: %w", res.status, err)
	}
	_, _ = res.body.Read(make([]byte, 1)) // sees the end, so that the connection stays
	var msg struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(text, &msg) != nil || msg.Message == "" {
		msg.Message = string(bytes.TrimSpace(text))
	}
	if msg.Message == "" {
		msg.Message = "status " + strconv.Itoa(res.status) + " without a text"
	}
	return &Error{Status: res.status, Message: strings.TrimSpace(msg.Message)}
}

// drain reads a body to its end, so that its connection can be used again.
func drain(r io.ReadCloser) error {
	_, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
	_ = r.Close()
	return err
}

// call sends a request without and with a JSON body and decodes a JSON answer into out, if that is not nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	r := &request{method: method, path: path}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the body of %s %s: %w", method, path, err)
		}
		r.body = b
	}
	return c.exchange(ctx, r, out)
}

func (c *Client) exchange(ctx context.Context, r *request, out any) error {
	res, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer res.body.Close()
	if out == nil {
		return drain(res.body)
	}
	text, err := io.ReadAll(res.body)
	if err == nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("read the answer to %s %s: %w", r.method, r.path, err)
	}
	return nil
}

// raw returns the JSON text of an answer.
func (c *Client) rawJSON(ctx context.Context, path string) (json.RawMessage, error) {
	res, err := c.do(ctx, &request{method: "GET", path: path})
	if err != nil {
		return nil, err
	}
	defer res.body.Close()
	text, err := io.ReadAll(res.body)
	if err != nil {
		return nil, fmt.Errorf("read the answer to GET %s: %w", path, err)
	}
	return bytes.TrimSpace(text), nil
}

// stream sends a request and returns the answer's body.
func (c *Client) stream(ctx context.Context, r *request) (io.ReadCloser, error) {
	res, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return res.body, nil
}

// Ping asks whether the daemon is there and settles the API version. It returns the daemon's API version.
func (c *Client) Ping(ctx context.Context) (string, error) {
	res, err := c.do(ctx, &request{method: "GET", path: "/_ping", raw: true})
	if err != nil {
		return "", err
	}
	return res.header["api-version"], drain(res.body)
}

// pathf builds a request path; every %s is escaped as part of a path, where a slash stays a slash.
func pathf(format string, args ...string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] == '%' && i+1 < len(format) && format[i+1] == 's' && len(args) > 0 {
			b.WriteString((&url.URL{Path: args[0]}).EscapedPath())
			args = args[1:]
			i++
			continue
		}
		b.WriteByte(format[i])
	}
	return b.String()
}

// with adds a query to a path.
func with(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func parseVersion(v string) (major, minor int, ok bool) {
	a, b, found := strings.Cut(v, ".")
	major, err1 := strconv.Atoi(a)
	minor, err2 := strconv.Atoi(b)
	return major, minor, found && err1 == nil && err2 == nil && major > 0 && minor >= 0
}

// versionLess reports whether API version a is older than b.
func versionLess(a, b string) bool {
	a1, a2, _ := parseVersion(a)
	b1, b2, _ := parseVersion(b)
	return a1 < b1 || a1 == b1 && a2 < b2
}
