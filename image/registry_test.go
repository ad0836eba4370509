package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/layer"
	"skiff/registry/remote"
)

// fakeRegistry serves what tests put into it.
type fakeRegistry struct {
	*httptest.Server
	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	manifests map[string]ocispec.Descriptor // "repo:tag"
	types     map[digest.Digest]string
	hits      map[string]int
	fault     func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

func newFakeRegistry(t testing.TB) *fakeRegistry {
	f := &fakeRegistry{
		blobs: map[digest.Digest][]byte{}, manifests: map[string]ocispec.Descriptor{},
		types: map[digest.Digest]string{}, hits: map[string]int{},
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeRegistry) host() string { return strings.TrimPrefix(f.URL, "http://") }

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.hits[r.Method+" "+r.URL.Path]++
	fault := f.fault
	f.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	n := len(parts)
	if n < 3 {
		return
	}
	repo, kind, what := strings.Join(parts[:n-2], "/"), parts[n-2], parts[n-1]
	f.mu.Lock()
	d := digest.Digest(what)
	if kind == "manifests" && d.Validate() != nil {
		d = f.manifests[repo+":"+what].Digest
	}
	b, ok := f.blobs[d]
	mt := f.types[d]
	f.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		code := "MANIFEST_UNKNOWN"
		if kind == "blobs" {
			code = "BLOB_UNKNOWN"
		}
		fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, strings.ToLower(strings.ReplaceAll(code, "_", " ")))
		return
	}
	if kind == "manifests" {
		w.Header().Set("Content-Type", mt)
		w.Header().Set("Docker-Content-Digest", d.String())
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

func (f *fakeRegistry) put(mediaType string, b []byte) ocispec.Descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := digest.FromBytes(b)
	f.blobs[d], f.types[d] = b, mediaType
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

func (f *fakeRegistry) tag(name string, d ocispec.Descriptor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.manifests[name] = d
}

func toJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// image makes an image of layers that hold one file each, given as "path=contents".
func (f *fakeRegistry) image(p ocispec.Platform, files ...string) ocispec.Descriptor {
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	config := ocispec.Image{Created: &created, Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}
	config.Config.Cmd = []string{"/bin/sh"}
	config.Config.Labels = map[string]string{"arch": p.Architecture}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	for _, file := range files {
		plain := tarOf(strings.Split(file, "\x00")...)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: "ADD " + file[:min(40, len(file))]})
		m.Layers = append(m.Layers, f.put(ocispec.MediaTypeImageLayerGzip, gz(plain)))
	}
	config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: "CMD", EmptyLayer: true})
	m.Config = f.put(ocispec.MediaTypeImageConfig, toJSON(config))
	d := f.put(ocispec.MediaTypeImageManifest, toJSON(m))
	d.Platform = &p
	return d
}

func (f *fakeRegistry) index(ds ...ocispec.Descriptor) ocispec.Descriptor {
	return f.put(ocispec.MediaTypeImageIndex, toJSON(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: ds,
	}))
}

func tarOf(files ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		name, body, _ := strings.Cut(f, "=")
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			panic(err)
		}
		io.WriteString(w, body)
	}
	w.Close()
	return b.Bytes()
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// recorder collects events and messages.
type recorder struct {
	mu     sync.Mutex
	events []events.Message
	lines  []string
}

func (r *recorder) Publish(m events.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, m)
}

func (r *recorder) line(m Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := m.Status
	if m.ID != "" {
		l = m.ID + ": " + l
	}
	r.lines = append(r.lines, l)
}

type fixture struct {
	*Service
	store *layer.Store
	reg   *fakeRegistry
	rec   *recorder
	root  string
	uses  map[digest.Digest][]Use
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{reg: newFakeRegistry(t), rec: &recorder{}, root: t.TempDir(), uses: map[digest.Digest][]Use{}}
	f.open(t)
	t.Cleanup(func() { f.store.Close() })
	return f
}

func (f *fixture) open(t testing.TB) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := layer.Open(t.Context(), f.root, layer.Options{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	client, err := remote.New(remote.Options{Logger: log, Backoff: time.Millisecond, Stall: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	f.store = store
	f.Service, err = New(context.Background(), Options{
		Store: store, Registry: client, Events: f.rec, Logger: log, Platform: &amd64,
		InUse: func(id digest.Digest) []Use { return f.uses[id] },
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reopen is a restart of the daemon.
func (f *fixture) reopen(t testing.TB) {
	t.Helper()
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	f.open(t)
}

var (
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	armv6 = ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}
)

func (f *fixture) pull(t testing.TB, ref string, p *ocispec.Platform) {
	t.Helper()
	if err := f.Pull(t.Context(), f.reg.host()+"/"+ref, PullOptions{Platform: p, Progress: f.rec.line}); err != nil {
		t.Fatal(err)
	}
}
