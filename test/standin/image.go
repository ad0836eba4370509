package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// epoch is the time of all that these images hold, so that the same packages give the same digests.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// files collects the entries of one layer; a later entry of the same name replaces an earlier one.
type files map[string]*entry

type entry struct {
	hdr  tar.Header
	data []byte
}

func (f files) add(hdr tar.Header, data []byte) {
	hdr.Name = strings.TrimPrefix(path.Clean("/"+hdr.Name), "/")
	if hdr.Name == "" {
		return
	}
	hdr.ModTime, hdr.AccessTime, hdr.ChangeTime = epoch, time.Time{}, time.Time{}
	hdr.Size, hdr.Uname, hdr.Gname = int64(len(data)), "", ""
	f[hdr.Name] = &entry{hdr, data}
}

func (f files) dir(mode int64, names ...string) {
	for _, n := range names {
		f.add(tar.Header{Typeflag: tar.TypeDir, Name: n, Mode: mode}, nil)
	}
}

func (f files) file(name string, mode int64, text string) {
	f.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, []byte(text))
}

func (f files) link(name, target string) {
	f.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// deb adds a package's files, without those that only people read.
func (f files) deb(debPath string) error {
	out, err := exec.Command("dpkg-deb", "--fsys-tarfile", debPath).Output()
	if err != nil {
		return fmt.Errorf("unpack %s: %w", debPath, err)
	}
	tr := tar.NewReader(bytes.NewReader(out))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", debPath, err)
		}
		n := path.Clean("/" + h.Name)
		if strings.HasPrefix(n, "/usr/share/doc/") || strings.HasPrefix(n, "/usr/share/man/") ||
			strings.HasPrefix(n, "/usr/share/locale/") || strings.HasPrefix(n, "/usr/share/info/") {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return fmt.Errorf("unpack %s: %w", debPath, err)
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
		}
		f.add(*h, data)
	}
}

// tar writes the layer, folders before their content and hard links after their targets.
func (f files) tar() ([]byte, error) {
	names := make([]string, 0, len(f))
	for n := range f {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool {
		li, lj := f[names[i]].hdr.Typeflag == tar.TypeLink, f[names[j]].hdr.Typeflag == tar.TypeLink
		if li != lj {
			return lj
		}
		return names[i] < names[j]
	})
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, n := range names {
		e := f[n]
		if err := tw.WriteHeader(&e.hdr); err != nil {
			return nil, fmt.Errorf("layer entry %s: %w", n, err)
		}
		if _, err := tw.Write(e.data); err != nil {
			return nil, fmt.Errorf("layer entry %s: %w", n, err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// system adds what every root file system has and no package ships.
func (f files) system() {
	f.dir(0o755, "bin", "dev", "etc", "proc", "sys", "run", "var", "usr", "usr/bin", "home")
	f.dir(0o700, "root")
	f.dir(0o1777, "tmp", "var/tmp")
	f.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"+
		"www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n")
	f.file("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\nadm:x:4:daemon\nwww-data:x:33:\nnogroup:x:65534:\n")
}

func busybox(p pusher, debs []string) error {
	f := files{}
	f.system()
	if err := f.deb(one(debs, "busybox-static")); err != nil {
		return err
	}
	bin, ok := f["bin/busybox"]
	if !ok {
		bin, ok = f["usr/bin/busybox"]
	}
	if !ok {
		return fmt.Errorf("the package holds no bin/busybox")
	}
	f.add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, bin.data)
	for n := range f {
		if strings.HasPrefix(n, "usr/share/") || n == "usr/bin/busybox" {
			delete(f, n)
		}
	}
	applets, err := appletNames(bin.data)
	if err != nil {
		return err
	}
	for _, a := range applets {
		f.add(tar.Header{Typeflag: tar.TypeLink, Name: "bin/" + a, Linkname: "bin/busybox", Mode: 0o755}, nil)
	}
	return p.image("library/busybox", "latest", []string{"sh"}, f)
}

// appletNames asks the binary itself; it is run from a pipe-free place, an anonymous file.
func appletNames(bin []byte) ([]string, error) {
	out, err := runAnonymous(bin, "busybox", "--list")
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	var names []string
	for _, n := range strings.Fields(string(out)) {
		if n != "busybox" {
			names = append(names, n)
		}
	}
	return names, nil
}

func ubuntu(p pusher, debs []string) error {
	base, tools := files{}, files{}
	base.system()
	for _, n := range basePackages {
		if err := base.deb(one(debs, n)); err != nil {
			return err
		}
	}
	base.link("bin/sh", "dash")
	base.dir(0o1777, "tmp", "var/tmp") // base-files ships them too
	for _, n := range toolPackages {
		if err := tools.deb(one(debs, n)); err != nil {
			return err
		}
	}
	return p.image("library/ubuntu", "latest", []string{"/bin/bash"}, base, tools)
}

func one(debs []string, name string) string {
	for _, d := range debs {
		if strings.HasPrefix(path.Base(d), name+"_") {
			return d
		}
	}
	return name
}

// pusher speaks the distribution protocol to a handler in this process.
type pusher struct{ h http.Handler }

func (p pusher) put(method, url, contentType string, body []byte) error {
	r := httptest.NewRequest(method, url, bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	p.h.ServeHTTP(w, r)
	if w.Code != http.StatusCreated {
		return fmt.Errorf("%s %s: %d %s", method, url, w.Code, w.Body)
	}
	return nil
}

func (p pusher) blob(repo, mediaType string, b []byte) (ocispec.Descriptor, error) {
	d := digest.FromBytes(b)
	err := p.put(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), "application/octet-stream", b)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}, err
}

// image pushes a one-platform index of an image with the given layers.
func (p pusher) image(repo, tag string, cmd []string, layers ...files) error {
	created := epoch
	cfg := ocispec.Image{
		Created:  &created,
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config: ocispec.ImageConfig{
			Env:    []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cmd:    cmd,
			Labels: map[string]string{"skiff.standin": "made from Debian packages by test/standin"},
		},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i, f := range layers {
		plain, err := f.tar()
		if err != nil {
			return err
		}
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		zw.Write(plain) // a bytes.Buffer takes everything
		if err := zw.Close(); err != nil {
			return err
		}
		d, err := p.blob(repo, ocispec.MediaTypeImageLayerGzip, z.Bytes())
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, d)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, digest.FromBytes(plain))
		cfg.History = append(cfg.History, ocispec.History{
			Created: &created, CreatedBy: fmt.Sprintf("standin layer %d of %s", i+1, repo),
		})
	}
	var err error
	if m.Config, err = p.json(repo, ocispec.MediaTypeImageConfig, cfg); err != nil {
		return err
	}
	md, err := p.manifest(repo, "", ocispec.MediaTypeImageManifest, m)
	if err != nil {
		return err
	}
	md.Platform = &cfg.Platform
	_, err = p.manifest(repo, tag, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{md},
	})
	return err
}

func (p pusher) json(repo, mediaType string, v any) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return p.blob(repo, mediaType, b)
}

// manifest pushes by tag, or by digest if tag is empty.
func (p pusher) manifest(repo, tag, mediaType string, v any) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := digest.FromBytes(b)
	if tag == "" {
		tag = d.String()
	}
	err = p.put(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, mediaType, b)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}, err
}
