package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"

	"skiff/internal/errs"
)

// Options of New. The zero value reaches Docker Hub and any registry with a valid certificate.
type Options struct {
	Mirrors   []string      // base URLs for docker.io, in order, before Docker Hub itself
	Insecure  []string      // host, host:port or CIDR whose certificates are not verified, or that speak plain HTTP
	UserAgent string        // default "skiff"
	Stall     time.Duration // a peer that sends nothing for so long is given up; default 45 s
	Attempts  int           // of a request that fails in a way that may pass; default 5
	Backoff   time.Duration // wait before the second attempt, doubled for each further one; default 300 ms
	Logger    *slog.Logger
	Proxy     func(*http.Request) (*url.URL, error) // default http.ProxyFromEnvironment
}

// Credentials of a user at one registry.
type Credentials struct {
	Username, Password string
	IdentityToken      string // OAuth2 refresh token; used instead of the password if set
	RegistryToken      string // bearer token, sent as it is
}

// Client talks to registries. It keeps connections and tokens; one is enough for the whole program.
type Client struct {
	opt    Options
	log    *slog.Logger
	peers  atomic.Pointer[peers]
	http   *http.Client
	strict *http.Transport
	lax    *http.Transport

	mu      sync.Mutex
	tokens  map[tokenKey]token
	schemes map[string]string // host → "http" or "https", for insecure hosts
}

// New checks the options and makes a client. It contacts nobody.
func New(opt Options) (*Client, error) {
	if opt.UserAgent == "" {
		opt.UserAgent = "skiff"
	}
	if opt.Stall <= 0 {
		opt.Stall = 45 * time.Second
	}
	if opt.Attempts <= 0 {
		opt.Attempts = 5
	}
	if opt.Backoff <= 0 {
		opt.Backoff = 300 * time.Millisecond
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.Proxy == nil {
		opt.Proxy = http.ProxyFromEnvironment
	}
	c := &Client{opt: opt, log: opt.Logger, tokens: map[tokenKey]token{}, schemes: map[string]string{}}
	if err := c.SetPeers(opt.Mirrors, opt.Insecure); err != nil {
		return nil, err
	}
	c.strict = c.transport(nil)
	c.lax = c.transport(&tls.Config{InsecureSkipVerify: true}) //nolint:gosec // only for hosts the user has named
	c.http = &http.Client{Transport: byHost{c}, CheckRedirect: c.redirect}
	return c, nil
}

// peers is what can be changed while the client works.
type peers struct {
	mirrors  []*url.URL
	insecure insecureList
}

// SetPeers replaces Options.Mirrors and Options.Insecure, for pulls that begin from now on. On error nothing is changed.
func (c *Client) SetPeers(mirrors, insecure []string) error {
	p := new(peers)
	for _, m := range mirrors {
		u, err := ParseMirror(m)
		if err != nil {
			return err
		}
		p.mirrors = append(p.mirrors, u)
	}
	var err error
	if p.insecure, err = parseInsecure(insecure); err != nil {
		return err
	}
	c.peers.Store(p)
	return nil
}

// isInsecure tells whether a host, or host:port, needs no valid certificate.
func (c *Client) isInsecure(host string) bool { return c.peers.Load().insecure.has(host) }

// Close gives the idle connections up.
func (c *Client) Close() {
	c.strict.CloseIdleConnections()
	c.lax.CloseIdleConnections()
}

// ParseMirror checks a --registry-mirror: an http or https URL without path beyond "/", query, fragment or user.
func ParseMirror(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errs.New(errs.Invalid, "invalid mirror: %q is not a valid URI: %w", s, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errs.New(errs.Invalid, "invalid mirror: %q: the scheme must be http or https", s)
	case u.Host == "":
		return nil, errs.New(errs.Invalid, "invalid mirror: %q has no host", s)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errs.New(errs.Invalid, "invalid mirror: %q: query and fragment are not allowed", s)
	case u.User != nil:
		return nil, errs.New(errs.Invalid, "invalid mirror: username/password not allowed in URI %q", u.Redacted())
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u, nil
}

func (c *Client) transport(t *tls.Config) *http.Transport {
	d := net.Dialer{Timeout: 20 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                 c.opt.Proxy,
		DialContext:           d.DialContext,
		TLSClientConfig:       t,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: c.opt.Stall,
		IdleConnTimeout:       60 * time.Second,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     true,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true, // blobs are what they are
	}
}

// byHost verifies certificates but those of insecure hosts, also after a redirect.
type byHost struct{ c *Client }

func (b byHost) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.c.isInsecure(r.URL.Host) {
		return b.c.lax.RoundTrip(r)
	}
	return b.c.strict.RoundTrip(r)
}

func (c *Client) redirect(r *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return fmt.Errorf("stopped after %d redirects", len(via))
	}
	if r.URL.Host != via[0].URL.Host {
		r.Header.Del("Authorization")
	}
	if r.URL.Scheme == "http" && via[0].URL.Scheme == "https" && !c.isInsecure(r.URL.Host) {
		return fmt.Errorf("refusing the redirect from https to %s", r.URL.Redacted())
	}
	r.Header.Del("Referer") // it may hold a signed URL
	return nil
}

// insecureList are hosts that need no valid certificate.
type insecureList struct {
	hosts map[string]bool
	nets  []netip.Prefix
}

func parseInsecure(entries []string) (insecureList, error) {
	l := insecureList{hosts: map[string]bool{}, nets: []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	}}
	for _, e := range entries {
		e = strings.TrimSuffix(e, "/")
		if p, err := netip.ParsePrefix(e); err == nil {
			l.nets = append(l.nets, p)
			continue
		}
		if e == "" || strings.Contains(e, "/") {
			return l, errs.New(errs.Invalid, "insecure registry %q must be host, host:port or a CIDR, without scheme and path", e)
		}
		l.hosts[strings.ToLower(e)] = true
	}
	return l, nil
}

// has tells whether host or host:port is on the list. Names are looked up only if they are literal addresses or localhost.
func (l insecureList) has(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || l.hosts[strings.ToLower(hostport)] || l.hosts[host] {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		for _, n := range l.nets {
			if n.Contains(ip.Unmap()) {
				return true
			}
		}
	}
	return false
}

// endpoint is one place where a repository can be found.
type endpoint struct {
	base   *url.URL // scheme "" : https, and http for an insecure host that doesn't speak https
	mirror bool
}

func (c *Client) endpoints(domain string) []endpoint {
	if domain == "docker.io" {
		var es []endpoint
		for _, m := range c.peers.Load().mirrors {
			es = append(es, endpoint{m, true})
		}
		return append(es, endpoint{&url.URL{Scheme: "https", Host: "registry-1.docker.io"}, false})
	}
	e := endpoint{base: &url.URL{Scheme: "https", Host: domain}}
	if c.isInsecure(domain) {
		e.base.Scheme = ""
	}
	return []endpoint{e}
}

// Repository is one repository at its registry, with one user's credentials.
type Repository struct {
	c         *Client
	name      reference.Named // without tag and digest
	cred      Credentials
	endpoints []endpoint

	mu   sync.Mutex
	good int // the endpoint that answered last
}

// Repository names a repository. It contacts nobody.
func (c *Client) Repository(name reference.Named, cred Credentials) *Repository {
	return &Repository{
		c: c, name: reference.TrimNamed(name), cred: cred,
		endpoints: c.endpoints(reference.Domain(name)),
	}
}

// each tries f on the endpoint that was good before, then on the others, until one succeeds. The last endpoint's error is
// the one to tell, since it is the registry itself.
func (r *Repository) each(ctx context.Context, f func(endpoint) error) error {
	r.mu.Lock()
	good := r.good
	r.mu.Unlock()
	order := []int{good}
	for i := range r.endpoints {
		if i != good {
			order = append(order, i)
		}
	}
	var told, absent error // absent: a mirror says that it is not there
	for _, i := range order {
		err := f(r.endpoints[i])
		if err == nil {
			r.mu.Lock()
			r.good = i
			r.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if told == nil || !r.endpoints[i].mirror {
			told = err
		}
		if r.endpoints[i].mirror {
			if errs.Is(err, errs.NotFound) {
				absent = err
			}
			r.c.log.Warn("a registry mirror failed, trying the next", "mirror", r.endpoints[i].base.Redacted(), "repository", r.name.Name(), "error", err)
		}
	}
	var answer *Error
	if absent != nil && !errors.As(told, &answer) { // the registry itself could not be asked: the mirror knows best
		return fmt.Errorf("%w (so a mirror says; %s could not be asked: %v)", absent, reference.Domain(r.name), told)
	}
	return told
}
