package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
)

func newClient(t *testing.T, opt Options) *Client {
	t.Helper()
	opt.Logger = slog.New(slog.DiscardHandler)
	if opt.Backoff == 0 {
		opt.Backoff = time.Millisecond
	}
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func serve(t *testing.T, h http.HandlerFunc) (*httptest.Server, string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s, strings.TrimPrefix(s.URL, "http://")
}

func named(t *testing.T, s string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		t.Fatal(err)
	}
	return reference.TagNameOnly(n)
}

const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`

func sendManifest(w http.ResponseWriter) {
	w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	io.WriteString(w, manifest)
}

func TestBearerToken(t *testing.T) {
	var tokens, asked atomic.Int32
	auth, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		tokens.Add(1)
		u, p, _ := r.BasicAuth()
		if r.Method == http.MethodPost {
			r.ParseForm()
			u, p = r.PostForm.Get("grant_type"), r.PostForm.Get("refresh_token")
		}
		fmt.Fprintf(w, `{"token":"T-%s-%s-%s-%s","expires_in":300}`, u, p, r.FormValue("service"), r.FormValue("scope"))
	})
	var got string
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		got = r.Header.Get("Authorization")
		if got == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+auth.URL+`/token",service="reg",scope="repository:a/b:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Header.Get("User-Agent") != "skiff" {
			t.Errorf("agent %q", r.Header.Get("User-Agent"))
		}
		sendManifest(w)
	})
	for _, c := range []struct {
		cred Credentials
		want string
	}{
		{Credentials{}, "Bearer T---reg-repository:a/b:pull"},
		{Credentials{Username: "u", Password: "p"}, "Bearer T-u-p-reg-repository:a/b:pull"},
		{Credentials{IdentityToken: "id"}, "Bearer T-refresh_token-id-reg-repository:a/b:pull"},
		{Credentials{RegistryToken: "reg"}, "Bearer reg"},
	} {
		cl := newClient(t, Options{})
		tokens.Store(0)
		asked.Store(0)
		for range 3 {
			ref := named(t, host+"/a/b")
			m, err := cl.Repository(ref, c.cred).Manifest(t.Context(), ref)
			if err != nil || m.Descriptor.Digest != digest.FromString(manifest) {
				t.Fatal(err)
			}
		}
		if got != c.want || tokens.Load() > 1 || asked.Load() > 4 {
			t.Errorf("%q after %d tokens and %d requests", got, tokens.Load(), asked.Load())
		}
	}
}

func TestBasicAndLogin(t *testing.T) {
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "u" || p != "p" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		sendManifest(w)
	})
	cl := newClient(t, Options{})
	ref := named(t, host+"/a")
	if _, err := cl.Repository(ref, Credentials{Username: "u", Password: "p"}).Manifest(t.Context(), ref); err != nil {
		t.Error(err)
	}
	if _, err := cl.Repository(ref, Credentials{}).Manifest(t.Context(), ref); err == nil || err.Error() != "no basic auth credentials" || !errs.Is(err, errs.Unauthorized) {
		t.Error(err)
	}
	_, err := cl.Repository(ref, Credentials{Username: "u", Password: "wrong"}).Manifest(t.Context(), ref)
	if !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "pull access denied for "+host+"/a, repository does not exist or may require 'docker login': unauthorized: authentication required") {
		t.Error(err)
	}
	if err := cl.Login(t.Context(), host, Credentials{Username: "u", Password: "p"}); err != nil {
		t.Error(err)
	}
	if err := cl.Login(t.Context(), "http://"+host+"/v2/", Credentials{Username: "u", Password: "x"}); !errs.Is(err, errs.Unauthorized) {
		t.Error(err)
	}
}

func TestErrorWords(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   string
		class  errs.Class
		times  int32
	}{
		{404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}`, "manifest for HOST/a:latest not found: manifest unknown: manifest unknown", errs.NotFound, 1},
		{404, `<html>`, "manifest for HOST/a:latest not found: manifest unknown: manifest unknown", errs.NotFound, 1},
		{404, `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`, "repository HOST/a not found: name unknown: repository name not known to registry", errs.NotFound, 1},
		{403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`, "pull access denied for HOST/a, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", errs.NotFound, 1},
		{429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`, "toomanyrequests: You have reached your pull rate limit.", errs.Unavailable, 3},
		{500, `oops`, "received unexpected HTTP status from HOST: 500 Internal Server Error", errs.Unavailable, 3},
		{418, "{\"errors\":[{\"code\":\"TEA\",\"message\":\"\\u001b[31mred\\n\"}]}", "tea:  [31mred ", errs.Internal, 1},
		{200, `not json`, "manifest for HOST/a:latest: the registry's answer is not a manifest: invalid character 'o' in literal null (expecting 'u')", errs.Invalid, 1},
		{200, ``, "manifest for HOST/a:latest: the registry's answer is not a manifest: EOF", errs.Invalid, 1},
	} {
		var n atomic.Int32
		_, host := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			n.Add(1)
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		})
		ref := named(t, host+"/a")
		_, err := newClient(t, Options{Attempts: 3}).Repository(ref, Credentials{}).Manifest(t.Context(), ref)
		if err == nil {
			t.Errorf("%d was taken", c.status)
			continue
		}
		if diff := cmp.Diff(strings.ReplaceAll(c.want, "HOST", host), err.Error()); diff != "" || errs.Of(err) != c.class || n.Load() != c.times {
			t.Errorf("class %v, %d requests: %s", errs.Of(err), n.Load(), diff)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	var n atomic.Int32
	wait := "1"
	_, host := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			w.Header().Set("Retry-After", wait)
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		sendManifest(w)
	})
	ref := named(t, host+"/a")
	cl := newClient(t, Options{})
	t0 := time.Now()
	if _, err := cl.Repository(ref, Credentials{}).Manifest(t.Context(), ref); err != nil || time.Since(t0) < time.Second {
		t.Errorf("%v after %v", err, time.Since(t0))
	}
	n.Store(0)
	wait = "3600"
	if _, err := cl.Repository(ref, Credentials{}).Manifest(t.Context(), ref); err == nil || n.Load() != 1 {
		t.Errorf("%v after %d requests", err, n.Load())
	}
}

func TestDigestIsVerified(t *testing.T) {
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/lie") {
			w.Header().Set("Docker-Content-Digest", digest.FromString("x").String())
		}
		sendManifest(w)
	})
	cl := newClient(t, Options{})
	good, err := reference.WithDigest(named(t, host+"/a"), digest.FromString(manifest))
	if err != nil {
		t.Fatal(err)
	}
	bad, _ := reference.WithDigest(named(t, host+"/a"), digest.FromString("other"))
	if _, err := cl.Repository(good, Credentials{}).Manifest(t.Context(), good); err != nil {
		t.Error(err)
	}
	if _, err := cl.Repository(bad, Credentials{}).Manifest(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "manifest verification failed for digest") {
		t.Error(err)
	}
	ref := named(t, host+"/a:lie")
	if _, err := cl.Repository(ref, Credentials{}).Manifest(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "the registry says its digest is") {
		t.Error(err)
	}
}

func TestMirrors(t *testing.T) {
	var log []string
	hit := func(name string, status int) *httptest.Server {
		s, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			log = append(log, name+" "+r.URL.Path)
			if r.Header.Get("Authorization") != "" {
				t.Errorf("%s got credentials", name)
			}
			if status != 200 {
				w.WriteHeader(status)
				return
			}
			sendManifest(w)
		})
		return s
	}
	a, b := hit("a", 404), hit("b", 200)
	cl := newClient(t, Options{Mirrors: []string{a.URL, b.URL + "/proxy/"}})
	ref := named(t, "busybox:1")
	repo := cl.Repository(ref, Credentials{Username: "u", Password: "p", RegistryToken: "t"})
	for range 2 {
		if _, err := repo.Manifest(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"a /v2/library/busybox/manifests/1", "b /proxy/v2/library/busybox/manifests/1", "b /proxy/v2/library/busybox/manifests/1"}, log); diff != "" {
		t.Error(diff)
	}
	// The upstream is Docker Hub.
	cl = newClient(t, Options{Mirrors: []string{a.URL}, Proxy: func(r *http.Request) (*url.URL, error) {
		if r.URL.Host == "registry-1.docker.io" {
			return nil, fmt.Errorf("asked for %s", r.URL)
		}
		return nil, nil
	}})
	_, err := cl.Repository(ref, Credentials{}).Manifest(t.Context(), ref)
	if err == nil || !strings.Contains(err.Error(), "asked for https://registry-1.docker.io/v2/library/busybox/manifests/1") {
		t.Error(err)
	}
	if es := cl.endpoints("quay.io"); len(es) != 1 || es[0].base.String() != "https://quay.io" {
		t.Errorf("%v", es)
	}
	for _, bad := range []string{"", "ftp://x", "x.y", "https://", "https://u:p@x", "https://x?y", "https://x#y", "::"} {
		if _, err := New(Options{Mirrors: []string{bad}}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestInsecure(t *testing.T) {
	l, err := parseInsecure([]string{"Reg.Example:5000", "10.0.0.0/8", "plain"})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"reg.example:5000": true, "reg.example": false, "10.1.2.3:80": true, "11.1.2.3": false, "plain": true, "plain:99": true,
		"localhost": true, "localhost:5000": true, "127.9.9.9:1": true, "[::1]:5000": true, "::1": true, "example.com": false,
	} {
		if l.has(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
	for _, bad := range []string{"http://x", "", "a/b"} {
		if _, err := New(Options{Insecure: []string{bad}}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	// https with a certificate of nobody's, on a loopback address
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { sendManifest(w) }))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	ref := named(t, strings.TrimPrefix(s.URL, "https://")+"/a")
	if _, err := newClient(t, Options{}).Repository(ref, Credentials{}).Manifest(t.Context(), ref); err != nil {
		t.Error(err)
	}
	strict := newClient(t, Options{})
	strict.peers.Store(&peers{})
	if _, err := strict.Repository(ref, Credentials{}).Manifest(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Error(err)
	}
}

func TestRedirectDropsCredentials(t *testing.T) {
	body := []byte("blob")
	store, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials went along")
		}
		w.Write(body)
	})
	var same bool
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/elsewhere":
			same = r.Header.Get("Authorization") == "Bearer tok"
			w.Write(body)
		case strings.HasSuffix(r.URL.Path, digest.FromString("here").String()):
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case strings.HasSuffix(r.URL.Path, digest.FromString("loop").String()):
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		default:
			http.Redirect(w, r, strings.Replace(store.URL, "127.0.0.1", "localhost", 1)+"/x", http.StatusTemporaryRedirect)
		}
	})
	repo := newClient(t, Options{}).Repository(named(t, host+"/a"), Credentials{RegistryToken: "tok"})
	for _, d := range []string{"here", "there"} {
		rc, err := repo.Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromString(d), Size: 4})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(rc); err != nil || !bytes.Equal(b, body) {
			t.Errorf("%q, %v", b, err)
		}
		rc.Close()
	}
	if !same {
		t.Error("the registry itself got no credentials")
	}
	if _, err := repo.Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromString("loop"), Size: 4}); err == nil || !strings.Contains(err.Error(), "redirects") {
		t.Error(err)
	}
}

// A stream that is cut again and again arrives whole, with ranges and without.
func TestBlobResumes(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	for _, ranges := range []bool{true, false} {
		var n atomic.Int32
		_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			part := data
			if from := r.Header.Get("Range"); from != "" && ranges {
				var off int
				fmt.Sscanf(from, "bytes=%d-", &off)
				part = data[off:]
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, len(data)-1, len(data)))
				w.Header().Set("Content-Length", fmt.Sprint(len(part)))
				w.WriteHeader(http.StatusPartialContent)
			} else {
				w.Header().Set("Content-Length", fmt.Sprint(len(part)))
			}
			end := int(n.Load()) * 200_000
			if ranges {
				end = 200_000
			}
			w.Write(part[:min(end, len(part))])
			w.(http.Flusher).Flush()
			if end < len(part) {
				panic(http.ErrAbortHandler)
			}
		})
		rc, err := newClient(t, Options{}).Repository(named(t, host+"/a"), Credentials{}).Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rc)
		rc.Close()
		if err != nil || !bytes.Equal(b, data) || n.Load() < 5 {
			t.Errorf("ranges %v: %d bytes, %d requests, %v", ranges, len(b), n.Load(), err)
		}
	}
}

func TestBlobGivesUp(t *testing.T) {
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		if r.Header.Get("Range") == "" {
			w.Write([]byte("start"))
		}
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	rc, err := newClient(t, Options{Attempts: 2}).Repository(named(t, host+"/a"), Credentials{}).Blob(t.Context(), ocispec.Descriptor{Digest: digest.FromString(""), Size: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if b, err := io.ReadAll(rc); err == nil || string(b) != "start" || !strings.Contains(err.Error(), "after 5 of 100 bytes") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestStallAndCancel(t *testing.T) {
	release := make(chan struct{})
	_, host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	repo := newClient(t, Options{Stall: 100 * time.Millisecond, Attempts: 1}).Repository(named(t, host+"/a"), Credentials{})
	if _, err := repo.Manifest(t.Context(), named(t, host+"/a")); err == nil || !strings.Contains(err.Error(), "timeout awaiting response headers") {
		t.Error(err)
	}
	desc := ocispec.Descriptor{Digest: digest.FromString(""), Size: 100}
	rc, err := repo.Blob(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(rc); err == nil || !strings.Contains(err.Error(), "sent nothing for 100ms") {
		t.Error(err)
	}
	rc.Close()
	slow := newClient(t, Options{Stall: time.Hour}).Repository(named(t, host+"/a"), Credentials{})
	if rc, err = slow.Blob(t.Context(), desc); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { rc.Close() })
	if _, err := io.ReadAll(rc); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(errors.New("enough")) })
	if _, err := slow.Manifest(ctx, named(t, host+"/a")); err == nil || err.Error() != "enough" {
		t.Error(err)
	}
}

func TestParseChallenges(t *testing.T) {
	for in, want := range map[string][]challenge{
		`Bearer realm="https://a/b",service="x, \"y\"" , scope=z`: {{"bearer", map[string]string{"realm": "https://a/b", "service": `x, "y"`, "scope": "z"}}},
		`Basic realm="r", Bearer realm="s"`:                       {{"basic", map[string]string{"realm": "r"}}, {"bearer", map[string]string{"realm": "s"}}},
		`Negotiate`:                                               {{"negotiate", map[string]string{}}},
		`Bearer realm="unfinished`:                                {{"bearer", map[string]string{"realm": "unfinished"}}},
		``:                                                        nil,
		`=,"`:                                                     nil,
	} {
		if diff := cmp.Diff(want, parseChallenges([]string{in}), cmp.AllowUnexported(challenge{})); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer realm="a\"b",x=y Basic`)
	f.Fuzz(func(t *testing.T, s string) { parseChallenges([]string{s}) })
}
