package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"skiff/test/kit"
)

// image is a one-layer image with the given layer tar, as a registry serves it.
type image struct {
	manifest, config, layer []byte
}

func newImage(layer []byte) image {
	im := image{layer: layer}
	im.config = []byte(fmt.Sprintf(`{"os":"linux","architecture":"amd64","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, digest.FromBytes(layer)))
	im.manifest = []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		digest.FromBytes(im.config), len(im.config), digest.FromBytes(layer), len(layer)))
	return im
}

func (im image) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/v2/":
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(im.manifest).String())
		w.Write(im.manifest)
	case strings.HasSuffix(r.URL.Path, digest.FromBytes(im.config).String()):
		w.Write(im.config)
	default:
		w.Write(im.layer)
	}
}

func layerOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg {
			h.Size = 3
		}
		h.Mode = 0o755
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			tw.Write([]byte("bad"))
		}
	}
	tw.Close()
	return b.Bytes()
}

// TestBadRegistry pulls from registries that fail in every way. Each pull ends with one clear sentence, and nothing is
// kept of it.
func TestBadRegistry(t *testing.T) {
	c := skiff(shared.daemon)
	good := newImage(layerOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "file"}))
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Error(w, `{"errors":[]}`, code) }
	}
	blobs := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, digest.FromBytes(good.layer).String()) {
				h(w, r)
				return
			}
			good.ServeHTTP(w, r)
		}
	}
	for _, tc := range []struct {
		name, words string
		h           http.Handler
	}{
		{"401", "unauthorized", status(401)},
		{"404", "not found", status(404)},
		{"500", "500", status(500)},
		{"garbage", "manifest", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Write([]byte("\x00garbage"))
		})},
		{"wrong digest of a layer", "digest", blobs(func(w http.ResponseWriter, r *http.Request) { w.Write(bytes.Repeat([]byte("x"), len(good.layer))) })},
		{"layer too long", "", blobs(func(w http.ResponseWriter, r *http.Request) {
			w.Write(append(append([]byte{}, good.layer...), "more"...))
		})},
		{"layer cut short for ever", "", blobs(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good.layer)))
			w.Write(good.layer[:700])
			panic(http.ErrAbortHandler)
		})},
		{"layer missing", "", blobs(status(404))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(tc.h)
			defer srv.Close()
			ref := strings.TrimPrefix(srv.URL, "http://") + "/team/app:v1"
			r := c.run(t, "", "pull", ref)
			if r.code != 1 || !strings.Contains(r.stderr, tc.words) || strings.Count(strings.TrimSpace(r.stderr), "\n") > 0 {
				t.Errorf("exit %d, stderr %q, want %q in one line", r.code, r.stderr, tc.words)
			}
			t.Logf("%s", strings.TrimSpace(r.stderr))
			if r := c.run(t, "", "inspect", ref); r.code == 0 {
				t.Error("an image was kept")
			}
		})
	}
}

// TestHostileLayers pulls images whose layers try to write outside, and looks outside.
func TestHostileLayers(t *testing.T) {
	c := skiff(shared.daemon)
	target := filepath.Join(t.TempDir(), "escaped")
	up := strings.Repeat("../", 20)
	for name, layer := range map[string][]byte{
		"dotdot":             layerOf(t, tar.Header{Typeflag: tar.TypeReg, Name: up + target[1:]}),
		"absolute":           layerOf(t, tar.Header{Typeflag: tar.TypeReg, Name: target}),
		"absolute symlink":   layerOf(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: filepath.Dir(target)}, tar.Header{Typeflag: tar.TypeReg, Name: "l/escaped"}),
		"relative symlink":   layerOf(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: up + filepath.Dir(target)[1:]}, tar.Header{Typeflag: tar.TypeReg, Name: "l/escaped"}),
		"looping symlink":    layerOf(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "b"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "b", Linkname: "a"}, tar.Header{Typeflag: tar.TypeReg, Name: "a/x"}),
		"hardlink out":       layerOf(t, tar.Header{Typeflag: tar.TypeLink, Name: "passwd", Linkname: up + "etc/passwd"}),
		"hardlink by a link": layerOf(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "etc", Linkname: "/etc"}, tar.Header{Typeflag: tar.TypeLink, Name: "p", Linkname: "etc/passwd"}),
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(newImage(layer))
			defer srv.Close()
			ref := strings.TrimPrefix(srv.URL, "http://") + "/bad:1"
			r := c.run(t, "", "pull", ref)
			defer c.run(t, "", "rmi", "-f", ref)
			if _, err := os.Lstat(target); err == nil {
				t.Fatalf("the layer wrote %s", target)
			}
			if r.code != 0 && !strings.Contains(r.stderr, "layer") && !strings.Contains(r.stderr, "link") {
				t.Errorf("refused in other words: %s", r.stderr)
			}
		})
	}
}

// TestWhoMayRunIt starts the daemon where it can't work.
func TestWhoMayRunIt(t *testing.T) {
	bin, err := kit.Bin("skiffd")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "skn")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, tc := range map[string]struct {
		uid    uint32
		config string
		args   []string
		words  string
	}{
		"not root":          {uid: 65534, config: "{}", words: "root"},
		"unknown key":       {config: `{"nosuchkey": 1}`, words: "nosuchkey"},
		"broken JSON":       {config: `{"debug": `, words: "daemon.json"},
		"clash with a flag": {config: `{"debug": true}`, args: []string{"--debug"}, words: "debug"},
		"open TCP":          {config: `{}`, args: []string{"-H", "tcp://0.0.0.0:0"}, words: "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			config := filepath.Join(dir, "daemon.json")
			if err := os.WriteFile(config, []byte(tc.config), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			// The binary is copied to where an ordinary user may execute it.
			prog := filepath.Join(dir, "skiffd")
			for _, b := range []string{"skiffd", "skiff-keeper"} {
				data, err := os.ReadFile(filepath.Join(filepath.Dir(bin), b))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, b), data, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			args := append([]string{
				"--config-file", config, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
				"-H", "unix://" + filepath.Join(dir, "s"), "--pidfile", filepath.Join(dir, "pid"),
			}, tc.args...)
			cmd := exec.CommandContext(t.Context(), prog, args...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tc.uid, Gid: tc.uid}}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(strings.ToLower(string(out)), tc.words) || strings.Count(strings.TrimSpace(string(out)), "\n") > 1 {
				t.Errorf("%v: %q, want one sentence with %q", err, out, tc.words)
			}
		})
	}
}

// TestBadRequests are what no client sends but everyone can.
func TestBadRequests(t *testing.T) {
	api := kit.NewAPI(shared.daemon.Socket)
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/containers/create", `{"Image":`, 400},
		{"POST", "/containers/create", `{"Image":"nosuchimage"}`, 404},
		{"POST", "/containers/create?name=-bad", `{"Image":"busybox"}`, 400},
		{"GET", "/containers/json?filters={", "", 400},
		{"GET", "/containers/json?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D", "", 400},
		{"POST", "/containers/nonesuch/start", "", 404},
		{"GET", "/nosuchpath", "", 404},
		{"POST", "/build", "", 501},
		{"GET", "/services", "", 503},
	} {
		err := api.Call(t.Context(), tc.method, tc.path, tc.body, nil)
		se, ok := err.(*kit.StatusError)
		if !ok || se.Status != tc.status && !(tc.path == "/services" && se.Status == 501) || se.Message == "" {
			b, _ := json.Marshal(se)
			t.Errorf("%s %s: %v %s, want %d", tc.method, tc.path, err, b, tc.status)
		}
	}
}
