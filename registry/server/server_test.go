package server

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

type client struct {
	t    *testing.T
	base string
}

func start(t *testing.T, root string) client {
	t.Helper()
	s, err := New(root, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	return client{t, ts.URL}
}

func (c client) do(method, path string, body []byte, header ...string) (*http.Response, []byte) {
	c.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = c.base + path
	}
	req, err := http.NewRequest(method, path, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, b
}

func (c client) want(status int, method, path string, body []byte, header ...string) (*http.Response, []byte) {
	c.t.Helper()
	resp, b := c.do(method, path, body, header...)
	if resp.StatusCode != status {
		c.t.Fatalf("%s %s: %d %s, want %d", method, path, resp.StatusCode, b, status)
	}
	return resp, b
}

func (c client) pushBlob(repo string, data []byte) digest.Digest {
	c.t.Helper()
	d := digest.FromBytes(data)
	resp, _ := c.want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
	loc := resp.Header.Get("Location")
	half := len(data) / 2
	resp, _ = c.want(202, "PATCH", loc, data[:half], "Content-Range", fmt.Sprintf("0-%d", half-1))
	c.want(201, "PUT", resp.Header.Get("Location")+"?digest="+d.String(), data[half:])
	return d
}

func TestPushAndPull(t *testing.T) {
	root := t.TempDir()
	c := start(t, root)
	c.want(200, "GET", "/v2/", nil)
	config, layer := []byte(`{"os":"linux"}`), bytes.Repeat([]byte("layer"), 1000)
	cd, ld := c.pushBlob("library/app", config), c.pushBlob("library/app", layer)
	m := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q},"layers":[{"digest":%q}]}`, cd, ld)
	const mt = "application/vnd.oci.image.manifest.v1+json"
	resp, _ := c.want(201, "PUT", "/v2/library/app/manifests/v1", m, "Content-Type", mt)
	md := resp.Header.Get("Docker-Content-Digest")

	c = start(t, root) // all of it is on disk
	for _, ref := range []string{"v1", md} {
		resp, b := c.want(200, "GET", "/v2/library/app/manifests/"+ref, nil)
		if !bytes.Equal(b, m) || resp.Header.Get("Content-Type") != mt {
			t.Errorf("manifest by %s: %s %q", ref, resp.Header.Get("Content-Type"), b)
		}
		c.want(200, "HEAD", "/v2/library/app/manifests/"+ref, nil)
	}
	_, b := c.want(200, "GET", "/v2/library/app/blobs/"+ld.String(), nil)
	if !bytes.Equal(b, layer) {
		t.Error("blob came back changed")
	}
	_, b = c.want(206, "GET", "/v2/library/app/blobs/"+ld.String(), nil, "Range", "bytes=4990-")
	if string(b) != "layerlayer" {
		t.Errorf("range: %q", b)
	}
	if _, b = c.want(200, "GET", "/v2/library/app/tags/list", nil); !strings.Contains(string(b), `"tags":["v1"]`) {
		t.Errorf("tags: %s", b)
	}
	c.want(404, "GET", "/v2/other/blobs/"+ld.String(), nil)
	c.want(201, "POST", "/v2/other/blobs/uploads/?mount="+ld.String()+"&from=library/app", nil)
	c.want(200, "GET", "/v2/other/blobs/"+ld.String(), nil)
	c.want(201, "POST", "/v2/other/blobs/uploads/?digest="+cd.String(), config)
}

func TestRefusals(t *testing.T) {
	root := t.TempDir()
	c := start(t, root)
	d := c.pushBlob("a/b", []byte("some bytes"))
	wrong := digest.FromString("other")
	for _, tc := range []struct {
		status       int
		method, path string
		body, words  string
	}{
		{404, "GET", "/v2/a/b/manifests/none", "", "MANIFEST_UNKNOWN"},
		{404, "GET", "/v2/a/b/blobs/" + wrong.String(), "", "BLOB_UNKNOWN"},
		{400, "GET", "/v2/a/b/blobs/sha256:abc", "", "DIGEST_INVALID"},
		{404, "GET", "/v2/nowhere/tags/list", "", "NAME_UNKNOWN"},
		{400, "GET", "/v2/A/b/tags/list", "", "NAME_INVALID"},
		{400, "GET", "/v2/a%2f..%2f..%2fx/tags/list", "", "NAME_INVALID"},
		{400, "GET", "/v2/_blobs/x/tags/list", "", "NAME_INVALID"},
		{400, "PUT", "/v2/a/b/manifests/v1", "no json", "MANIFEST_INVALID"},
		{400, "PUT", "/v2/a/b/manifests/.hidden", "{}", "MANIFEST_INVALID"},
		{400, "PUT", "/v2/a/b/manifests/" + wrong.String(), "{}", "MANIFEST_INVALID"},
		{404, "PUT", "/v2/a/b/manifests/v1", `{"layers":[{"digest":"` + wrong.String() + `"}]}`, "MANIFEST_BLOB_UNKNOWN"},
		{400, "POST", "/v2/a/b/blobs/uploads/?digest=" + wrong.String(), "not it", "DIGEST_INVALID"},
		{404, "PATCH", "/v2/a/b/blobs/uploads/" + strings.Repeat("0", 32), "x", "BLOB_UPLOAD_UNKNOWN"},
		{404, "PATCH", "/v2/a/b/blobs/uploads/..%2f..%2fx", "x", ""},
		{405, "DELETE", "/v2/a/b/blobs/" + d.String(), "", "UNSUPPORTED"},
		{404, "GET", "/nothing", "", "UNSUPPORTED"},
	} {
		resp, b := c.do(tc.method, tc.path, []byte(tc.body))
		if resp.StatusCode != tc.status || !strings.Contains(string(b), tc.words) {
			t.Errorf("%s %s: %d %s, want %d %s", tc.method, tc.path, resp.StatusCode, b, tc.status, tc.words)
		}
	}
	left, err := os.ReadDir(filepath.Join(root, "uploads"))
	if err != nil || len(left) != 0 {
		t.Errorf("uploads left behind: %v %v", left, err)
	}
}

func FuzzName(f *testing.F) {
	f.Add("library/ubuntu")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, name string) {
		if nameRE.MatchString(name) {
			if p := filepath.Join("/root", name); p != "/root/"+name || strings.Contains(name, "/_") {
				t.Errorf("%q is taken as a name and becomes %q", name, p)
			}
		}
	})
}
