package image

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
)

func (f *fixture) resolved(t testing.TB, ref string) Image {
	t.Helper()
	img, err := f.Resolve(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestTagAndRemove(t *testing.T) {
	f := newFixture(t)
	f.reg.tag("x:1", f.reg.index(f.reg.image(amd64, "base=1", "top=2")))
	f.pull(t, "x:1", nil)
	name := f.reg.host() + "/x:1"
	img := f.resolved(t, name)
	if err := f.Tag(t.Context(), img.ID.Encoded()[:5], "mine"); err != nil {
		t.Fatal(err)
	}
	if err := f.Tag(t.Context(), "mine", "other/name:v2"); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{"a@sha256:" + strings.Repeat("a", 64): "digest reference", "X": "invalid reference", "sha256:1": "ambiguous tag"} {
		if err := f.Tag(t.Context(), "mine", target); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", target, err)
		}
	}
	if err := f.Tag(t.Context(), "nothing", "y"); !errs.Is(err, errs.NotFound) || err.Error() != "No such image: nothing:latest" {
		t.Error(err)
	}
	f.reopen(t)
	if got := f.resolved(t, "mine").RepoTags; !slices.Equal(got, []string{name, "mine:latest", "other/name:v2"}) {
		t.Errorf("%q", got)
	}
	remove := func(ref string, opt RemoveOptions, want ...string) {
		t.Helper()
		got, err := f.Remove(t.Context(), ref, opt)
		var lines []string
		for _, g := range got {
			lines = append(lines, strings.TrimSpace(g.Untagged+" "+g.Deleted))
		}
		if err != nil {
			lines = []string{err.Error()}
			if !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound) {
				t.Errorf("%s: class %v", ref, errs.Of(err))
			}
		}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Errorf("%s: %s", ref, diff)
		}
	}
	id := img.ID.Encoded()
	remove("nope", RemoveOptions{}, "No such image: nope:latest")
	remove(id, RemoveOptions{}, "conflict: unable to delete "+id[:12]+" (must be forced) - image is referenced in multiple repositories")
	remove("other/name:v2", RemoveOptions{}, "other/name:v2")
	remove(name, RemoveOptions{}, name, img.RepoDigests[0])
	cid := strings.Repeat("c", 64)
	f.uses[img.ID] = []Use{{ContainerID: cid}}
	remove("mine", RemoveOptions{}, `conflict: unable to remove repository reference "mine:latest" (must force) - container cccccccccccc is using its referenced image `+id[:12])
	remove(id, RemoveOptions{}, "conflict: unable to delete "+id[:12]+" (must be forced) - image is being used by stopped container cccccccccccc")
	f.uses[img.ID] = []Use{{ContainerID: cid, Running: true}}
	remove(id, RemoveOptions{Force: true}, "conflict: unable to delete "+id[:12]+" (cannot be forced) - image is being used by running container cccccccccccc")
	remove("mine", RemoveOptions{Force: true}, "mine:latest")
	if got := f.resolved(t, id).RepoTags; len(got) != 0 {
		t.Errorf("%q", got)
	}
	f.uses[img.ID] = nil
	if _, err := f.store.Prepare(t.Context(), "snap", img.Chain, false); err != nil {
		t.Fatal(err)
	}
	remove(id, RemoveOptions{}, img.ID.String())
	if es, _ := os.ReadDir(filepath.Join(f.root, "blobs/sha256")); len(es) != 0 {
		t.Errorf("%d blobs are left", len(es))
	}
	if _, err := f.store.Snapshot(t.Context(), "snap"); err != nil {
		t.Error(err)
	}
	f.store.Discard(t.Context(), "snap")
	f.reopen(t) // collects
	if es, _ := os.ReadDir(filepath.Join(f.root, "layer/diff")); len(es) != 0 {
		t.Errorf("%d layers are left", len(es))
	}

	f.pull(t, "x:1", nil)
	diffs := img.Config.RootFS.DiffIDs
	remove(name, RemoveOptions{}, name, img.RepoDigests[0], img.ID.String(), img.Chain.String(), diffs[0].String())
	var acts []string
	for _, e := range f.rec.events {
		acts = append(acts, string(e.Action)+" "+e.Actor.Attributes["name"])
	}
	if acts[len(acts)-1] != "delete "+img.ID.String() || acts[len(acts)-2] != "untag "+img.RepoDigests[0] {
		t.Errorf("%q", acts)
	}
}

func TestListInspectHistory(t *testing.T) {
	f := newFixture(t)
	f.reg.tag("x:1", f.reg.index(f.reg.image(amd64, "base=1", "top=22"), f.reg.image(arm64, "base=1", "top=333")))
	f.pull(t, "x:1", nil)
	f.pull(t, "x:1", &arm64)
	name := f.reg.host() + "/x:1"
	ids := func(filters map[string][]string) int {
		t.Helper()
		l, err := f.List(t.Context(), ListOptions{Filters: filters})
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	for _, c := range []struct {
		k, v string
		want int
	}{
		{"label", "arch=arm64", 1},
		{"label", "arch", 2},
		{"label", "nope", 0},
		{"dangling", "true", 0},
		{"dangling", "0", 2},
		{"reference", f.reg.host() + "/x:*", 2},
		{"reference", "y", 0},
		{"reference", f.reg.host() + "/*", 2},
		{"until", "2025-01-01", 0},
		{"until", "0s", 2},
		{"before", name, 0},
		{"since", name, 0},
	} {
		if got := ids(map[string][]string{c.k: {c.v}}); got != c.want {
			t.Errorf("%s=%s: %d, want %d", c.k, c.v, got, c.want)
		}
	}
	for k, v := range map[string]string{"what": "x", "dangling": "maybe", "until": "soon", "reference": "[", "before": "nope"} {
		if _, err := f.List(t.Context(), ListOptions{Filters: map[string][]string{k: {v}}}); err == nil {
			t.Errorf("%s=%s was taken", k, v)
		}
	}
	l, err := f.List(t.Context(), ListOptions{SharedSize: true, Manifests: true})
	if err != nil || l[0].SharedSize != 1 || l[0].Containers != 0 || len(l[0].Manifests) != 2 || !l[0].Manifests[1].Available {
		t.Errorf("%+v, %v", l, err)
	}
	in, err := f.Inspect(t.Context(), name, nil, true)
	if err != nil || in.Size != 3 || in.Architecture != "amd64" || in.Os != "linux" || in.Created != "2026-01-02T03:04:05Z" ||
		len(in.RootFS.Layers) != 2 || in.Config.Cmd[0] != "/bin/sh" || in.Metadata.LastTagTime.IsZero() || len(in.Manifests) != 2 {
		t.Errorf("%+v, %v", in, err)
	}
	h, err := f.History(t.Context(), name, &arm64)
	if err != nil {
		t.Fatal(err)
	}
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Unix()
	arm, _ := f.Resolve(t.Context(), name, &arm64)
	want := []apiimage.HistoryResponseItem{
		{ID: arm.ID.String(), Created: created, CreatedBy: "CMD", Tags: []string{name}},
		{ID: "<missing>", Created: created, CreatedBy: "ADD top=333", Size: 3},
		{ID: "<missing>", Created: created, CreatedBy: "ADD base=1", Size: 1},
	}
	if diff := cmp.Diff(want, h); diff != "" {
		t.Error(diff)
	}
}

func TestSaveAndLoad(t *testing.T) {
	f := newFixture(t)
	f.reg.tag("x:1", f.reg.index(f.reg.image(amd64, "base=1", "top=2"), f.reg.image(arm64, "base=1")))
	f.reg.tag("x:2", f.reg.image(amd64, "base=1", "top=3"))
	f.pull(t, "x:1", nil)
	f.pull(t, "x:2", nil)
	repo := f.reg.host() + "/x"
	var out bytes.Buffer
	if err := f.Save(t.Context(), []string{"nope"}, nil, &out); !errs.Is(err, errs.NotFound) || out.Len() != 0 {
		t.Error(err)
	}
	if err := f.Save(t.Context(), []string{repo + ":1"}, []ocispec.Platform{arm64}, &out); !errs.Is(err, errs.NotFound) || out.Len() != 0 {
		t.Error(err)
	}
	one := f.resolved(t, repo+":1")
	if err := f.Save(t.Context(), []string{repo}, nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"oci", "docker", "gzip"} {
		t.Run(kind, func(t *testing.T) {
			g := newFixture(t)
			in := out.Bytes()
			switch kind {
			case "docker":
				in = without(t, in, "index.json")
			case "gzip":
				in = gz(in)
			}
			names, err := g.Load(t.Context(), bytes.NewReader(in), nil, g.rec.line)
			if err != nil || !slices.Equal(names, []string{repo + ":1", repo + ":2"}) {
				t.Fatalf("%q, %v", names, err)
			}
			img := g.resolved(t, repo+":1")
			if img.ID != one.ID || img.Chain != one.Chain {
				t.Errorf("%+v", img)
			}
			if kind != "docker" && img.Manifest.Digest != one.Manifest.Digest {
				t.Error("the manifest has changed")
			}
			g.reopen(t)
			if _, err := g.store.Prepare(t.Context(), "x", g.resolved(t, repo+":2").Chain, false); err != nil {
				t.Error(err)
			}
			var again bytes.Buffer
			if err := g.Save(t.Context(), []string{repo}, nil, &again); err != nil || kind == "oci" && !bytes.Equal(again.Bytes(), out.Bytes()) {
				t.Errorf("saved again: %v", err)
			}
			if names, err := g.Load(t.Context(), bytes.NewReader(in), []ocispec.Platform{arm64}, g.rec.line); !errs.Is(err, errs.NotFound) {
				t.Errorf("%q, %v", names, err)
			}
		})
	}
	out.Reset()
	if err := f.Save(t.Context(), []string{one.ID.String()}, nil, &out); err != nil {
		t.Fatal(err)
	}
	g := newFixture(t)
	if names, err := g.Load(t.Context(), &out, nil, nil); err != nil || !slices.Equal(names, []string{one.ID.String()}) {
		t.Errorf("%q, %v", names, err)
	}
}

// without leaves entries out of a tar.
func without(t *testing.T, in []byte, name string) []byte {
	t.Helper()
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(in)), tar.NewWriter(&out)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == name {
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return out.Bytes()
}

func TestLoadRefuses(t *testing.T) {
	layer := string(tarOf("a=1"))
	good := string(toJSON(ocispec.Image{Platform: amd64, RootFS: ocispec.RootFS{DiffIDs: []digest.Digest{digest.FromString(layer)}}}))
	bad := string(toJSON(ocispec.Image{Platform: amd64, RootFS: ocispec.RootFS{DiffIDs: []digest.Digest{digest.FromString("other")}}}))
	manifest := `manifest.json=[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l/layer.tar"]}]`
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"nothing":      {nil, "neither"},
		"garbage":      {[]byte(strings.Repeat("x", 2000)), "not a tar"},
		"no images":    {tarOf("manifest.json=[]"), "no image"},
		"no config":    {tarOf(manifest), "lacks the configuration"},
		"no layer":     {tarOf(manifest, "c.json="+good), "lacks the layer"},
		"wrong layer":  {tarOf(manifest, "c.json="+bad, "l/layer.tar="+layer), "its contents have the digest"},
		"counts":       {tarOf(manifest, "c.json={}", "l/layer.tar="+layer), "describes 0 layers, its manifest 1"},
		"bad name":     {tarOf(strings.Replace(manifest, "a:b", "A B", 1), "c.json="+good, "l/layer.tar="+layer), "invalid reference"},
		"evil digest":  {tarOf(`index.json={"manifests":[{"digest":"sha256:../x","mediaType":"application/vnd.oci.image.manifest.v1+json"}]}`), "not a sha256 digest"},
		"lacking blob": {tarOf(`index.json={"manifests":[{"digest":"` + digest.FromString("").String() + `","mediaType":"application/vnd.oci.image.manifest.v1+json"}]}`), "lacks sha256:"},
		"hostile path": {tarOf(manifest, "c.json="+good, "l/layer.tar="+string(tarOf("../../../../tmp/skiff-evil=1"))), "leads out of the layer"},
		"bad json":     {tarOf("manifest.json={"), "manifest.json in the archive"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			names, err := f.Load(t.Context(), bytes.NewReader(c.in), nil, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || !errs.Is(err, errs.Invalid) {
				t.Errorf("%q, class %v, %v", names, errs.Of(err), err)
			}
			for _, dir := range []string{"blobs/sha256", "layer/diff", "layer/tmp"} {
				if es, _ := os.ReadDir(filepath.Join(f.root, dir)); len(es) != 0 {
					t.Errorf("%s has %v", dir, es)
				}
			}
		})
	}
	// A docker-archive with links, as old versions wrote it.
	f := newFixture(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.Write(nil)
	w.WriteHeader(&tar.Header{Name: "l/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../real/layer.tar"})
	w.Flush()
	in := append(bytes.Clone(b.Bytes()), tarOf(manifest, "c.json="+good, "real/layer.tar="+layer)...)
	if names, err := f.Load(t.Context(), bytes.NewReader(in), nil, nil); err != nil || !slices.Equal(names, []string{"a:b"}) {
		t.Errorf("%q, %v", names, err)
	}
}

func TestImport(t *testing.T) {
	for name, in := range map[string][]byte{"plain": tarOf("a=1", "d/b=22"), "gzip": gz(tarOf("a=1", "d/b=22"))} {
		f := newFixture(t)
		id, err := f.Import(t.Context(), bytes.NewReader(in), ImportOptions{Repo: "mine", Tag: "v1", Message: "hi", Changes: []string{"CMD echo hi", `ENV A=1 "B=x y"`}})
		if err != nil {
			t.Fatal(name, err)
		}
		img := f.resolved(t, "mine:v1")
		if img.ID.String() != id || img.Size != 3 || img.Config.Config.Cmd[2] != "echo hi" || img.Config.Config.Env[1] != "B=x y" {
			t.Errorf("%+v", img)
		}
		if h, err := f.History(t.Context(), id, nil); err != nil || h[0].Comment != "hi" {
			t.Errorf("%+v, %v", h, err)
		}
		if _, err := f.store.Prepare(t.Context(), "x", img.Chain, false); err != nil {
			t.Error(err)
		}
	}
	f := newFixture(t)
	for _, in := range []string{"", "no tar at all", strings.Repeat("x", 4000)} {
		if _, err := f.Import(t.Context(), strings.NewReader(in), ImportOptions{}); err == nil {
			t.Errorf("%.10q was taken", in)
		}
	}
}

func TestApplyChanges(t *testing.T) {
	var c dockerspec.DockerOCIImageConfig
	c.Env = []string{"PATH=/bin"}
	err := ApplyChanges(&c, []string{
		`CMD ["a", "b"]`, "entrypoint run it", "ENV PATH=/usr/bin X='a b'", "ENV OLD some  words", "LABEL k=v", "EXPOSE 80 53/udp 90-91",
		"USER me", "WORKDIR /a", "WORKDIR b", `VOLUME ["/v", "/w"]`, "VOLUME /x /y", "ONBUILD RUN x", "STOPSIGNAL SIGINT",
		"HEALTHCHECK --interval=5s --retries=2 CMD curl x",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := dockerspec.DockerOCIImageConfig{}
	want.Cmd, want.Entrypoint = []string{"a", "b"}, []string{"/bin/sh", "-c", "run it"}
	want.Env = []string{"PATH=/usr/bin", "X=a b", "OLD=some  words"}
	want.Labels = map[string]string{"k": "v"}
	want.ExposedPorts = map[string]struct{}{"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}
	want.User, want.WorkingDir, want.StopSignal = "me", "/a/b", "SIGINT"
	want.Volumes = map[string]struct{}{"/v": {}, "/w": {}, "/x": {}, "/y": {}}
	want.OnBuild = []string{"RUN x"}
	want.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD-SHELL", "curl x"}, Interval: 5 * time.Second, Retries: 2}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"RUN x", "ENV", "ENV A=1 b", "EXPOSE 0", "EXPOSE 1/icmp", `ENV A="x`, "ONBUILD FROM x", "HEALTHCHECK what", "SHELL x", "FROM y"} {
		if err := ApplyChanges(&c, []string{bad}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Unpacked layers that are gone are unpacked again at the start.
func TestMend(t *testing.T) {
	f := newFixture(t)
	f.reg.tag("x:1", f.reg.image(amd64, "base=1", "top=2"))
	f.reg.tag("x:2", f.reg.image(amd64, "base=1", "top=3"))
	f.pull(t, "x:1", nil)
	f.pull(t, "x:2", nil)
	repo := f.reg.host() + "/x"
	two := f.resolved(t, repo+":2")
	if err := os.RemoveAll(filepath.Join(f.root, "layer/diff")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(f.root, "blobs/sha256", two.ID.Encoded())); err != nil {
		t.Fatal(err)
	}
	f.reopen(t)
	if _, err := f.store.Prepare(t.Context(), "x", f.resolved(t, repo+":1").Chain, false); err != nil {
		t.Error(err)
	}
	if _, err := f.Resolve(t.Context(), repo+":2", nil); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	f.pull(t, "x:2", nil)
	f.resolved(t, repo+":2")
}

func TestPlatforms(t *testing.T) {
	p := func(s string) ocispec.Platform {
		parts := append(strings.Split(s, "/"), "", "")
		return ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	}
	for _, c := range []struct {
		want, have string
		ok         bool
	}{
		{"linux/amd64", "linux/amd64", true},
		{"linux/x86_64", "linux/amd64/v1", true},
		{"linux/amd64", "linux/amd64/v3", false},
		{"linux/amd64", "linux/386", true},
		{"linux/arm64", "linux/arm64/v8", true},
		{"linux/aarch64", "linux/arm64", true},
		{"linux/arm", "linux/arm/v7", true},
		{"linux/arm", "linux/arm/v6", true},
		{"linux/arm/v6", "linux/arm/v7", false},
		{"linux/amd64", "windows/amd64", false},
	} {
		if got := rank(p(c.want), p(c.have)) > 0; got != c.ok {
			t.Errorf("%s on %s: %v", c.have, c.want, got)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2},"layers":[]}`), []byte(`{"rootfs":{"diff_ids":[]}}`))
	f.Add([]byte(`{"manifests":[{"platform":{"os":"linux","architecture":"arm"}}]}`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, m, c []byte) {
		d := ocispec.Descriptor{Digest: digest.FromBytes(m), Size: int64(len(m)), MediaType: ocispec.MediaTypeImageManifest}
		if x, err := parseIndex(d, m); err == nil {
			if _, ok := choose(x.children, amd64); !ok {
				_ = noMatch(x.children, amd64).Error()
			}
		}
		if doc, err := parseManifest(d, m); err == nil {
			if r, err := newRecord(d, doc, c); err == nil && r.desc.Platform == nil {
				t.Error("no platform")
			}
		}
	})
}

func FuzzReference(f *testing.F) {
	for _, s := range []string{"ubuntu", "sha256:abc", "a@sha256:" + strings.Repeat("a", 64), "localhost:5000/x:y", "../x", ""} {
		f.Add(s)
	}
	fx := newFixture(f)
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := fx.Resolve(t.Context(), s, nil); err == nil {
			t.Errorf("%q was found", s)
		}
		if n, err := parsePull(s); err == nil && tagOrDigest(n) == "" {
			t.Errorf("%q has neither tag nor digest", s)
		}
	})
}
