package image

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
)

func TestPull(t *testing.T) {
	f := newFixture(t)
	am, arm := f.reg.image(amd64, "base=1", "top=2"), f.reg.image(arm64, "base=1", "top=3")
	idx := f.reg.index(am, arm)
	f.reg.tag("foo/bar:latest", idx)
	name := f.reg.host() + "/foo/bar"
	f.pull(t, "foo/bar", nil)
	f.rec.mu.Lock()
	lines := f.rec.lines
	if want := "latest: Pulling from foo/bar"; lines[0] != want {
		t.Errorf("first line %q", lines[0])
	}
	var heads []string
	for _, l := range lines {
		if strings.HasSuffix(l, ": Pulling fs layer") || strings.HasSuffix(l, ": Pull complete") {
			heads = append(heads, l[14:])
		}
	}
	if want := []string{"Pulling fs layer", "Pulling fs layer", "Pull complete", "Pull complete"}; !slices.Equal(heads, want) {
		t.Errorf("%q", lines)
	}
	if want := []string{"Digest: " + idx.Digest.String(), "Status: Downloaded newer image for " + name + ":latest"}; !slices.Equal(lines[len(lines)-2:], want) {
		t.Errorf("last lines %q", lines)
	}
	f.rec.lines = nil
	f.rec.mu.Unlock()

	check := func() {
		t.Helper()
		img, err := f.Resolve(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{name + ":latest"}, img.RepoTags); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{name + "@" + idx.Digest.String()}, img.RepoDigests); diff != "" {
			t.Error(diff)
		}
		for _, ref := range []string{img.ID.String(), img.ID.Encoded(), img.ID.Encoded()[:7], "sha256:" + img.ID.Encoded()[:9], name + "@" + idx.Digest.String(), name + ":latest@" + idx.Digest.String()} {
			if other, err := f.Resolve(t.Context(), ref, nil); err != nil || other.ID != img.ID {
				t.Errorf("%s: %v", ref, err)
			}
		}
		if _, err := f.store.Prepare(t.Context(), "x", img.Chain, true); err != nil {
			t.Error(err)
		}
	}
	check()
	f.reopen(t)
	check()

	f.pull(t, "foo/bar", nil)
	if l := f.rec.lines[len(f.rec.lines)-1]; l != "Status: Image is up to date for "+name+":latest" {
		t.Error(l)
	}
	if n := f.reg.hits["GET /v2/foo/bar/manifests/latest"]; n != 1 {
		t.Errorf("the manifest was got %d times", n)
	}
	if _, err := f.Resolve(t.Context(), name, &arm64); !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "does not provide the specified platform (linux/arm64)") {
		t.Error(err)
	}
	f.pull(t, "foo/bar", &arm64)
	img, err := f.Resolve(t.Context(), name, &arm64)
	if err != nil || img.Config.Config.Labels["arch"] != "arm64" {
		t.Errorf("%v, %v", img.Config.Config.Labels, err)
	}
	if img, err := f.Resolve(t.Context(), name, nil); err != nil || img.Config.Architecture != "amd64" {
		t.Error(err)
	}
	if len(f.rec.events) != 3 || f.rec.events[0].Actor.ID != name+":latest" || f.rec.events[0].Actor.Attributes["name"] != name {
		t.Errorf("%+v", f.rec.events)
	}
	err = f.Pull(t.Context(), name, PullOptions{Platform: &armv6})
	if !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "no matching manifest for linux/arm/v6 in the manifest list entries (there are linux/amd64, linux/arm64)") {
		t.Error(err)
	}
}

func TestPullByDigestAndMovedTag(t *testing.T) {
	f := newFixture(t)
	one, two := f.reg.image(amd64, "a=1"), f.reg.image(amd64, "a=2")
	f.reg.tag("x:1", one)
	f.pull(t, "x:1", nil)
	a, err := f.Resolve(t.Context(), f.reg.host()+"/x:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.reg.tag("x:1", two)
	f.pull(t, "x:1", nil)
	b, err := f.Resolve(t.Context(), f.reg.host()+"/x:1", nil)
	if err != nil || a.ID == b.ID {
		t.Fatal(err, a.ID, b.ID)
	}
	old, err := f.Resolve(t.Context(), a.ID.String(), nil)
	if err != nil || len(old.RepoTags) != 0 || len(old.RepoDigests) != 1 {
		t.Errorf("%+v, %v", old, err)
	}
	f.pull(t, "x@"+one.Digest.String(), nil)
	if l := f.rec.lines[len(f.rec.lines)-1]; l != "Status: Image is up to date for "+f.reg.host()+"/x@"+one.Digest.String() {
		t.Error(l)
	}
	if f.rec.lines[len(f.rec.lines)-3] != one.Digest.String()+": Pulling from x" {
		t.Errorf("%q", f.rec.lines)
	}
}

func TestPullErrors(t *testing.T) {
	f := newFixture(t)
	good := f.reg.image(amd64, "a=1")
	f.reg.tag("x:ok", good)
	f.reg.tag("x:schema1", f.reg.put("application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1,"fsLayers":[]}`)))
	f.reg.tag("x:garbage", f.reg.put(ocispec.MediaTypeImageManifest, []byte("<html>")))
	f.reg.tag("x:both", f.reg.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{},"manifests":[]}`)))
	f.reg.tag("x:lies", f.reg.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)))
	f.reg.tag("x:helm", f.reg.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"}}`)))
	f.reg.tag("x:evil", f.reg.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:../../etc/passwd","size":3}}`)))
	huge := f.reg.put(ocispec.MediaTypeImageManifest, []byte(strings.Repeat(" ", 5<<20)+"{}"))
	f.reg.tag("x:huge", huge)
	win := ocispec.Platform{OS: "windows", Architecture: "amd64"}
	f.reg.tag("x:windows", f.reg.image(win, "a=1"))
	noconfig := f.reg.image(amd64, "a=noconfig")
	f.reg.tag("x:noconfig", noconfig)
	name := f.reg.host() + "/x"
	for _, c := range []struct {
		ref, want string
		class     errs.Class
	}{
		{"UPPER", "invalid reference format", errs.Invalid},
		{name + ":none", "manifest for " + name + ":none not found: manifest unknown: manifest unknown", errs.NotFound},
		{name + ":schema1", "schema 1", errs.Invalid},
		{name + ":garbage", "not a manifest", errs.Invalid},
		{name + ":both", "manifest and an index at once", errs.Invalid},
		{name + ":lies", "calls itself", errs.Invalid},
		{name + ":helm", "not of a container image", errs.Invalid},
		{name + ":evil", "not a sha256 digest", errs.Invalid},
		{name + ":huge", "larger than", errs.Invalid},
		{name + ":windows", "operating system is not supported", errs.Invalid},
		{"127.0.0.1:1/x", "connection refused", errs.Internal},
	} {
		err := f.Pull(t.Context(), c.ref, PullOptions{})
		if err == nil || !strings.Contains(err.Error(), c.want) || errs.Of(err) != c.class {
			t.Errorf("%s: class %v, %v", c.ref, errs.Of(err), err)
		}
	}
	if l, err := f.List(t.Context(), ListOptions{}); err != nil || len(l) != 0 {
		t.Errorf("%v, %v", l, err)
	}
	if es, _ := os.ReadDir(filepath.Join(f.root, "blobs/sha256")); len(es) != 0 {
		t.Errorf("blobs are left: %v", es)
	}
}

// Every request fails once: the pull succeeds nevertheless.
func TestPullThroughFaults(t *testing.T) {
	f := newFixture(t)
	f.reg.tag("x:1", f.reg.index(f.reg.image(amd64, "a="+strings.Repeat("x", 100000), "b=2")))
	var mu sync.Mutex
	n := map[string]int{}
	f.reg.fault = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		n[r.URL.Path]++
		if n[r.URL.Path] > 2 {
			return false
		}
		switch len(n) % 3 {
		case 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 1:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			if strings.Contains(r.URL.Path, "/blobs/") {
				b := f.reg.blobs[digest.Digest(filepath.Base(r.URL.Path))]
				w.Header().Set("Content-Length", fmt.Sprint(len(b)))
				w.Write(b[:len(b)/2])
			}
			panic(http.ErrAbortHandler)
		}
		return true
	}
	f.reg.Config.ErrorLog = nil
	f.pull(t, "x:1", nil)
}

func TestPullStalls(t *testing.T) {
	f := newFixture(t)
	f.reg.tag("x:1", f.reg.image(amd64, "a=1"))
	done := make(chan struct{})
	defer close(done)
	f.reg.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w.Header().Set("Content-Length", "1000000")
			w.(http.Flusher).Flush()
			select {
			case <-done:
			case <-r.Context().Done():
			}
			return true
		}
		return false
	}
	c := f.Service.registry
	_ = c
	t0 := time.Now()
	err := f.Pull(t.Context(), f.reg.host()+"/x:1", PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "sent nothing for 1s") {
		t.Errorf("after %v: %v", time.Since(t0), err)
	}
}

// A pull and the removal of an image with the same layers at the same time.
func TestPullAgainstCollect(t *testing.T) {
	f := newFixture(t)
	f.reg.tag("x:1", f.reg.image(amd64, "base=1", "a=1"))
	f.reg.tag("x:2", f.reg.image(amd64, "base=1", "a=2"))
	var wg sync.WaitGroup
	for _, tag := range []string{"x:1", "x:2"} {
		wg.Go(func() {
			for range 15 {
				f.pull(t, tag, nil)
				img, err := f.Resolve(t.Context(), f.reg.host()+"/"+tag, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := f.store.Prepare(t.Context(), tag, img.Chain, true); err != nil {
					t.Error(err)
				}
				if err := f.store.Discard(t.Context(), tag); err != nil {
					t.Error(err)
				}
				if _, err := f.Remove(t.Context(), f.reg.host()+"/"+tag, RemoveOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if es, _ := os.ReadDir(filepath.Join(f.root, "blobs/sha256")); len(es) != 0 {
		t.Errorf("%d blobs are left", len(es))
	}
	if es, _ := os.ReadDir(filepath.Join(f.root, "layer/diff")); len(es) != 0 {
		t.Errorf("%d layers are left", len(es))
	}
}

func BenchmarkResolve(b *testing.B) {
	f := newFixture(b)
	f.reg.tag("x:1", f.reg.image(amd64, "a=1"))
	f.pull(b, "x:1", nil)
	name := f.reg.host() + "/x:1"
	for b.Loop() {
		if _, err := f.Resolve(b.Context(), name, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPull pulls eight gzip layers of 400 files each from a registry on the loopback, into an empty store.
func BenchmarkPull(b *testing.B) {
	f := newFixture(b)
	var layers []string
	for i := range 8 {
		var files []string
		for j := range 400 {
			files = append(files, fmt.Sprintf("usr/%d/f%d=%s", i, j, strings.Repeat(fmt.Sprintf("%d text of file %d;", i, j), 300)))
		}
		layers = append(layers, strings.Join(files, "\x00"))
	}
	f.reg.tag("x:1", f.reg.image(amd64, layers...))
	for b.Loop() {
		f.pull(b, "x:1", nil)
		b.StopTimer()
		if _, err := f.Remove(b.Context(), f.reg.host()+"/x:1", RemoveOptions{}); err != nil {
			b.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // the trash
		b.StartTimer()
	}
}
