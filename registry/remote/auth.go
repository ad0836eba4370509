package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"skiff/internal/errs"
)

// tokenKey is what a bearer token is good for.
type tokenKey struct {
	host, scope string
	cred        Credentials
}

type token struct {
	value   string
	expires time.Time
}

// challenge is one WWW-Authenticate header (RFC 9110, section 11.6.1).
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// parseChallenges reads WWW-Authenticate headers; what makes no sense is skipped.
func parseChallenges(headers []string) []challenge {
	var cs []challenge
	for _, h := range headers {
		for h = strings.TrimLeft(h, " ,"); h != ""; h = strings.TrimLeft(h, " ,") {
			word, rest := cutToken(h)
			if word == "" {
				break
			}
			trimmed := strings.TrimLeft(rest, " ")
			if strings.HasPrefix(trimmed, "=") && len(cs) > 0 {
				var v string
				v, h = cutValue(strings.TrimLeft(trimmed[1:], " "))
				cs[len(cs)-1].params[strings.ToLower(word)] = v
				continue
			}
			cs = append(cs, challenge{strings.ToLower(word), map[string]string{}})
			h = rest
		}
	}
	return cs
}

func cutToken(s string) (word, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool { return strings.ContainsRune(" ,=\"", r) })
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

// cutValue takes a token or quoted string.
func cutValue(s string) (v, rest string) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, ", ")
		if i < 0 {
			return s, ""
		}
		return s[:i], s[i:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}

// authorization is the header for a request, from what is known already; "" if nothing is.
func (c *Client) authorization(host, scope string, cred Credentials) string {
	if cred.RegistryToken != "" {
		return "Bearer " + cred.RegistryToken
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tokens[tokenKey{host, scope, cred}]
	if !ok || time.Now().After(t.expires) {
		return ""
	}
	return t.value
}

func (c *Client) remember(host, scope string, cred Credentials, value string, life time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for k, t := range c.tokens { // few: one for each repository of the last minutes
		if now.After(t.expires) {
			delete(c.tokens, k)
		}
	}
	c.tokens[tokenKey{host, scope, cred}] = token{value, now.Add(life)}
}

func (c *Client) forgetToken(host, scope string, cred Credentials) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tokens, tokenKey{host, scope, cred})
}

// answer does what a 401 response asks for. It reports an error if that can't be done.
func (c *Client) answer(ctx context.Context, resp *http.Response, scope string, cred Credentials) error {
	host := resp.Request.URL.Host
	for _, ch := range parseChallenges(resp.Header.Values("WWW-Authenticate")) {
		switch ch.scheme {
		case "bearer":
			return c.bearer(ctx, resp.Request.URL, ch, scope, cred)
		case "basic":
			if cred.Username == "" {
				return errs.New(errs.Unauthorized, "no basic auth credentials")
			}
			c.remember(host, scope, cred, "Basic "+basic(cred), time.Hour)
			return nil
		}
	}
	return errs.New(errs.Unauthorized, "unauthorized: %s asks for no kind of authentication that is known", host)
}

func basic(cred Credentials) string {
	return base64.StdEncoding.EncodeToString([]byte(cred.Username + ":" + cred.Password))
}

// bearer gets a token from the service that the challenge names ("Token Authentication Specification" of distribution).
func (c *Client) bearer(ctx context.Context, from *url.URL, ch challenge, scope string, cred Credentials) error {
	realm, err := url.Parse(ch.params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "http" && realm.Scheme != "https" {
		return fmt.Errorf("registry %s names no valid token service: %q", from.Host, ch.params["realm"])
	}
	if realm.Scheme == "http" && from.Scheme == "https" && !c.isInsecure(realm.Host) {
		return fmt.Errorf("registry %s names a token service without encryption: %s", from.Host, realm.Redacted())
	}
	asked := scope
	if asked == "" {
		asked = ch.params["scope"]
	}
	req, err := tokenRequest(ctx, realm, ch.params["service"], asked, cred)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", c.opt.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("getting a token: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("getting a token: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return responseError(resp, body)
	}
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &t); err != nil {
		return fmt.Errorf("token service %s: %w", realm.Host, err)
	}
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	if t.Token == "" {
		return fmt.Errorf("token service %s gave no token", realm.Host)
	}
	life := time.Duration(max(t.ExpiresIn, 60)) * time.Second // 60 s is the specification's default and minimum
	c.remember(from.Host, scope, cred, "Bearer "+t.Token, min(life, time.Hour)*9/10)
	return nil
}

func tokenRequest(ctx context.Context, realm *url.URL, service, scope string, cred Credentials) (*http.Request, error) {
	q := realm.Query()
	if service != "" {
		q.Set("service", service)
	}
	if scope != "" {
		q.Set("scope", scope)
	}
	if cred.IdentityToken != "" {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", cred.IdentityToken)
		q.Set("client_id", "skiff")
		u := *realm
		u.RawQuery = ""
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(q.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	if cred.Username != "" {
		q.Set("account", cred.Username)
	}
	u := *realm
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err == nil && cred.Username != "" {
		req.SetBasicAuth(cred.Username, cred.Password)
	}
	return req, err
}

// Login verifies credentials at a registry: "" or a name or URL of Docker Hub, else a host. Class errs.Unauthorized if the
// registry refuses them.
func (c *Client) Login(ctx context.Context, server string, cred Credentials) error {
	host := strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		host = "docker.io"
	}
	es := c.endpoints(host)
	resp, err := c.do(ctx, es[len(es)-1], request{method: http.MethodGet, path: "/v2/", cred: cred})
	if err != nil {
		return err
	}
	resp.Body.Close()
	return nil
}
