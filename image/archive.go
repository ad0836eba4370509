package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
	"skiff/layer"
)

// maxArchiveEntries bounds the files of an archive of images; each layer is one.
const maxArchiveEntries = 20_000

// archive is a tar of images, spooled to the store's temporary files: its entries come in any order.
type archive struct {
	files map[string]*layer.Staged
	links map[string]string // path → path
}

// dockerManifest is one entry of a docker-archive's manifest.json.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// readArchive reads a tar, plain or compressed, to its end. The caller discards the archive, also after an error.
func readArchive(ctx context.Context, hold *layer.Hold, r io.Reader) (*archive, error) {
	a := &archive{map[string]*layer.Staged{}, map[string]string{}}
	plain, err := layer.Decompress(r)
	if err != nil {
		return a, err
	}
	defer plain.Close()
	tr := tar.NewReader(plain)
	for n := 0; ; n++ {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return a, errs.New(errs.Invalid, "the archive is not a tar: %w", err)
		}
		if n >= maxArchiveEntries {
			return a, errs.New(errs.Invalid, "the archive has more than %d entries", maxArchiveEntries)
		}
		name := cleanPath(hdr.Name)
		switch hdr.Typeflag {
		case tar.TypeReg:
			b, err := hold.Stage(ctx, tr)
			if err != nil {
				return a, fmt.Errorf("reading %.200q from the archive: %w", hdr.Name, err)
			}
			if old := a.files[name]; old != nil {
				old.Discard()
			}
			a.files[name] = b
		case tar.TypeSymlink: // docker save made them for layers that several images share
			a.links[name] = cleanPath(path.Join(path.Dir(name), hdr.Linkname))
		case tar.TypeLink:
			a.links[name] = cleanPath(hdr.Linkname)
		}
	}
	return a, ctx.Err()
}

// cleanPath makes a path of the archive's, which is a key and never touches the file system.
func cleanPath(p string) string { return path.Clean("/" + p)[1:] }

func (a *archive) discard() {
	for _, f := range a.files {
		f.Discard()
	}
}

// find follows the archive's own links.
func (a *archive) find(name string) (*layer.Staged, bool) {
	name = cleanPath(name)
	for range 16 {
		if f := a.files[name]; f != nil {
			return f, true
		}
		to, ok := a.links[name]
		if !ok {
			return nil, false
		}
		name = to
	}
	return nil, false
}

// json reads a small file; false if it is not there.
func (a *archive) json(name string, limit int64, into any) (bool, error) {
	f, ok := a.find(name)
	if !ok {
		return false, nil
	}
	b, err := f.Bytes(limit)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return true, errs.New(errs.Invalid, "%s in the archive: %w", name, err)
	}
	return true, nil
}

// blob finds a blob of an OCI layout by its digest.
func (a *archive) blob(d digest.Digest) (*layer.Staged, bool) {
	f, ok := a.find("blobs/" + d.Algorithm().String() + "/" + d.Encoded())
	if !ok || f.Digest != d {
		return nil, false
	}
	return f, true
}

// layerType is the media type that fits a layer's first bytes.
func layerType(f *layer.Staged) (string, error) {
	r, err := f.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	switch {
	case bytes.HasPrefix(head[:], []byte{0x1f, 0x8b}):
		return ocispec.MediaTypeImageLayerGzip, nil
	case bytes.Equal(head[:], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return ocispec.MediaTypeImageLayerZstd, nil
	}
	return ocispec.MediaTypeImageLayer, nil
}
