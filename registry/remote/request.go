package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// request is one call of the protocol, to be made as often as needed.
type request struct {
	method, path string
	header       http.Header
	scope        string // "repository:NAME:pull"
	cred         Credentials
}

// maxRetryAfter is how long a registry may keep us waiting before it counts as refusing.
const maxRetryAfter = 30 * time.Second

// do makes the request until it is answered with a status below 300, authenticating when asked to, and repeating what
// may pass (5xx, 429, a lost connection). The caller closes the body; a body that stalls fails.
func (c *Client) do(ctx context.Context, e endpoint, r request) (*http.Response, error) {
	if e.mirror {
		r.cred = Credentials{}
	}
	authenticated := false
	for attempt := 1; ; {
		resp, err := c.send(ctx, e, r)
		wait := c.opt.Backoff << (attempt - 1)
		wait += rand.N(wait/2 + 1)
		switch {
		case err != nil:
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if !passing(err) || attempt >= c.opt.Attempts {
				return nil, err
			}
		case resp.StatusCode < 300:
			return resp, nil
		default:
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
			resp.Body.Close()
			err = responseError(resp, body)
			if resp.StatusCode == http.StatusUnauthorized && !authenticated && r.cred.RegistryToken == "" {
				authenticated = true
				c.forgetToken(resp.Request.URL.Host, r.scope, r.cred)
				if err := c.answer(ctx, resp, r.scope, r.cred); err != nil {
					return nil, err
				}
				continue
			}
			if !passingStatus(resp.StatusCode) || attempt >= c.opt.Attempts {
				return nil, err
			}
			if after, ok := retryAfter(resp.Header); ok {
				if after > maxRetryAfter {
					return nil, err
				}
				wait = max(after, c.opt.Backoff)
			}
		}
		c.log.Debug("registry request failed, trying again", "host", e.base.Host, "path", r.path, "attempt", attempt, "wait", wait, "error", err)
		attempt++
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// send makes one attempt, with https or, for an insecure host that does not speak it, http.
func (c *Client) send(ctx context.Context, e endpoint, r request) (*http.Response, error) {
	scheme := e.base.Scheme
	if scheme != "" {
		return c.sendTo(ctx, scheme, e.base, r)
	}
	c.mu.Lock()
	scheme = c.schemes[e.base.Host]
	c.mu.Unlock()
	if scheme != "" {
		return c.sendTo(ctx, scheme, e.base, r)
	}
	resp, err := c.sendTo(ctx, "https", e.base, r)
	scheme = "https"
	if err != nil && ctx.Err() == nil {
		resp, err = c.sendTo(ctx, "http", e.base, r)
		scheme = "http"
	}
	if err == nil {
		c.mu.Lock()
		c.schemes[e.base.Host] = scheme
		c.mu.Unlock()
	}
	return resp, err
}

func (c *Client) sendTo(ctx context.Context, scheme string, base *url.URL, r request) (*http.Response, error) {
	u := *base
	u.Scheme = scheme
	u.Path = base.Path + r.path
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.opt.UserAgent)
	if a := c.authorization(u.Host, r.scope, r.cred); a != "" {
		req.Header.Set("Authorization", a)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = newPatient(ctx, resp.Body, c.opt.Stall, u.Host, cancel)
	// A redirect's target answers for the host that was asked: tokens and errors belong to that.
	resp.Request = req
	return resp, nil
}

// passing tells whether an attempt that got no answer is worth another.
func passing(err error) bool {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return dns.IsTemporary || dns.IsTimeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return false // nobody is there: say so at once
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return true
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return true
	}
	s := err.Error()
	return strings.Contains(s, "http2: ") || strings.Contains(s, "stream error") || strings.Contains(s, "server closed idle connection")
}

func passingStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110, section 10.2.3).
func retryAfter(h http.Header) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if v == "" {
		return 0, false
	}
	if n, err := strconv.Atoi(v); err == nil && n >= 0 {
		return time.Duration(min(n, 86400)) * time.Second, true
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(time.Until(t), 0), true
	}
	return 0, false
}

// patient is a response body that fails when nothing came for the stall time.
type patient struct {
	ctx    context.Context // of the request
	body   io.ReadCloser
	stall  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

type stallError struct {
	host  string
	stall time.Duration
}

func (e *stallError) Error() string   { return fmt.Sprintf("%s sent nothing for %s", e.host, e.stall) }
func (e *stallError) Timeout() bool   { return true }
func (e *stallError) Temporary() bool { return true }

func newPatient(ctx context.Context, body io.ReadCloser, stall time.Duration, host string, cancel context.CancelCauseFunc) *patient {
	p := &patient{ctx: ctx, body: body, stall: stall, cancel: cancel}
	p.timer = time.AfterFunc(stall, func() { cancel(&stallError{host, stall}) })
	p.timer.Stop()
	return p
}

func (p *patient) Read(b []byte) (int, error) {
	p.timer.Reset(p.stall)
	n, err := p.body.Read(b)
	p.timer.Stop()
	var stalled *stallError
	if err != nil && errors.As(context.Cause(p.ctx), &stalled) {
		err = stalled // the transport only says "context canceled"
	}
	return n, err
}

func (p *patient) Close() error {
	p.timer.Stop()
	err := p.body.Close()
	p.cancel(nil)
	return err
}
