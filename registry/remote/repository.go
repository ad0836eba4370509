package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
)

// Media types of Docker's, beside those of the OCI image specification.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeSchema1        = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeSchema1Signed  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// MaxManifest is the largest manifest that is taken, in bytes; registries must not take larger ones (distribution-spec).
const MaxManifest = 4 << 20

// Manifest is a manifest or index with the bytes that its digest is of.
type Manifest struct {
	Descriptor ocispec.Descriptor
	Bytes      []byte
}

func (r *Repository) request(method, path string, accept ...string) request {
	h := http.Header{}
	if len(accept) > 0 {
		h["Accept"] = accept
	}
	return request{
		method: method, path: "/v2/" + reference.Path(r.name) + path, header: h,
		scope: "repository:" + reference.Path(r.name) + ":pull", cred: r.cred,
	}
}

func manifestTypes() []string {
	return []string{
		ocispec.MediaTypeImageIndex, MediaTypeDockerList, ocispec.MediaTypeImageManifest, MediaTypeDockerManifest,
		MediaTypeSchema1Signed, MediaTypeSchema1, "*/*",
	}
}

// tagOrDigest is the last part of a manifest's path.
func tagOrDigest(ref reference.Reference) (string, error) {
	if d, ok := ref.(reference.Digested); ok {
		return d.Digest().String(), nil
	}
	if t, ok := ref.(reference.Tagged); ok {
		return t.Tag(), nil
	}
	return "", errs.New(errs.Invalid, "reference %q has neither a tag nor a digest", ref.String())
}

// Manifest gets what ref (a tag or digest of this repository) names. The bytes are verified if ref has a digest.
func (r *Repository) Manifest(ctx context.Context, ref reference.Reference) (Manifest, error) {
	what, err := tagOrDigest(ref)
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	err = r.each(ctx, func(e endpoint) error {
		resp, err := r.c.do(ctx, e, r.request(http.MethodGet, "/manifests/"+what, manifestTypes()...))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		m, err = readManifest(resp, what)
		if err != nil {
			return fmt.Errorf("manifest for %s: %w", reference.FamiliarString(ref), err)
		}
		return nil
	})
	return m, pullError(ref, r.name, err)
}

func readManifest(resp *http.Response, what string) (Manifest, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	if err != nil {
		return Manifest{}, fmt.Errorf("reading it: %w", err)
	}
	if len(b) > MaxManifest {
		return Manifest{}, errs.New(errs.Invalid, "it is larger than %d bytes", MaxManifest)
	}
	d := digest.FromBytes(b)
	if want := digest.Digest(what); want.Validate() == nil {
		v := want.Verifier()
		if _, err := v.Write(b); err != nil || !v.Verified() {
			return Manifest{}, errs.New(errs.Invalid, "manifest verification failed for digest %s", want)
		}
		d = want
	} else if told := digest.Digest(resp.Header.Get("Docker-Content-Digest")); told.Validate() == nil && told.Algorithm() == digest.SHA256 && told != d {
		return Manifest{}, errs.New(errs.Invalid, "the registry says its digest is %s, but it is %s", told, d)
	}
	mt, err := manifestType(resp.Header.Get("Content-Type"), b)
	if err != nil {
		return Manifest{}, err
	}
	return Manifest{ocispec.Descriptor{MediaType: mt, Digest: d, Size: int64(len(b))}, b}, nil
}

// manifestType decides what a manifest is. Header and body must not contradict each other (CVE-2021-41190).
func manifestType(header string, b []byte) (string, error) {
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&doc); err != nil {
		return "", errs.New(errs.Invalid, "the registry's answer is not a manifest: %w", err)
	}
	if doc.SchemaVersion == 1 || doc.FSLayers != nil {
		return MediaTypeSchema1, nil
	}
	told, _, err := mime.ParseMediaType(header)
	if err != nil || !strings.HasPrefix(told, "application/vnd.") {
		told = doc.MediaType
	}
	if doc.MediaType != "" && told != doc.MediaType {
		return "", errs.New(errs.Invalid, "the registry calls it %s, it calls itself %s", clean(told, 100), clean(doc.MediaType, 100))
	}
	if doc.Manifests != nil && doc.Config != nil {
		return "", errs.New(errs.Invalid, "it is a manifest and an index at once")
	}
	switch {
	case told != "":
	case doc.Manifests != nil:
		told = ocispec.MediaTypeImageIndex
	case doc.Config != nil:
		told = ocispec.MediaTypeImageManifest
	default:
		return "", errs.New(errs.Invalid, "the registry's answer is not a manifest")
	}
	return told, nil
}

// Digest asks which manifest ref names now, without transferring it (and without counting as a pull at Docker Hub). ""
// if the registry doesn't tell.
func (r *Repository) Digest(ctx context.Context, ref reference.Reference) (digest.Digest, error) {
	what, err := tagOrDigest(ref)
	if err != nil {
		return "", err
	}
	var d digest.Digest
	err = r.each(ctx, func(e endpoint) error {
		resp, err := r.c.do(ctx, e, r.request(http.MethodHead, "/manifests/"+what, manifestTypes()...))
		if err != nil {
			return err
		}
		resp.Body.Close()
		d = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
		if d.Validate() != nil {
			d = ""
		}
		return nil
	})
	return d, pullError(ref, r.name, err)
}

// Blob opens a blob for reading from its start. A stream that is cut or stalls is continued where it ended, as long as
// there is progress. The bytes are not verified. Close may be called from another goroutine, and ends a running Read.
func (r *Repository) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	b := &blob{r: r, ctx: ctx, cancel: cancel, desc: desc}
	if err := b.open(); err != nil {
		cancel()
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, blobError(r.name, err))
	}
	return b, nil
}

// blob is a transfer that survives its connections.
type blob struct {
	r      *Repository
	ctx    context.Context
	cancel context.CancelFunc
	desc   ocispec.Descriptor
	off    int64 // bytes given to the reader

	mu     sync.Mutex
	body   io.ReadCloser
	closed bool
	failed int // times in a row without a byte
}

func (b *blob) open() error {
	return b.r.each(b.ctx, func(e endpoint) error {
		req := b.r.request(http.MethodGet, "/blobs/"+b.desc.Digest.String())
		if b.off > 0 {
			req.header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
		}
		resp, err := b.r.c.do(b.ctx, e, req)
		if err != nil {
			return err
		}
		if err := b.position(resp); err != nil {
			resp.Body.Close()
			return err
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.closed {
			resp.Body.Close()
			return context.Canceled
		}
		b.body = resp.Body
		return nil
	})
}

// position makes the body begin at off.
func (b *blob) position(resp *http.Response) error {
	if b.off == 0 {
		return nil
	}
	if resp.StatusCode == http.StatusPartialContent {
		from, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Content-Range"), "bytes "), "-")
		if n, err := strconv.ParseInt(from, 10, 64); err != nil || n != b.off {
			return fmt.Errorf("asked to continue at byte %d, %s answers with %q", b.off, resp.Request.URL.Host, clean(resp.Header.Get("Content-Range"), 100))
		}
		return nil
	}
	// It sends all again.
	if _, err := io.CopyN(io.Discard, resp.Body, b.off); err != nil {
		return fmt.Errorf("skipping %d bytes: %w", b.off, err)
	}
	return nil
}

func (b *blob) Read(p []byte) (int, error) {
	for {
		n, err := b.body.Read(p)
		b.off += int64(n)
		if n > 0 {
			b.failed = 0
		}
		if err == nil || n > 0 {
			return n, nil // an error comes again with the next call
		}
		if err == io.EOF && (b.desc.Size < 0 || b.off >= b.desc.Size) {
			return 0, io.EOF
		}
		if b.ctx.Err() != nil {
			return 0, context.Cause(b.ctx)
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		b.failed++
		if b.failed > b.r.c.opt.Attempts {
			return 0, fmt.Errorf("transfer ended after %d of %d bytes: %w", b.off, b.desc.Size, err)
		}
		b.r.c.log.Info("a transfer was cut, continuing", "blob", b.desc.Digest, "at", b.off, "of", b.desc.Size, "error", err)
		b.mu.Lock()
		b.body.Close()
		b.mu.Unlock()
		if b.failed > 1 {
			select {
			case <-time.After(b.r.c.opt.Backoff << (b.failed - 2)):
			case <-b.ctx.Done():
				return 0, context.Cause(b.ctx)
			}
		}
		if oerr := b.open(); oerr != nil {
			return 0, fmt.Errorf("transfer ended after %d of %d bytes (%w), and can't be continued: %w", b.off, b.desc.Size, err, oerr)
		}
	}
}

func (b *blob) Close() error {
	b.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	if b.body != nil {
		return b.body.Close()
	}
	return nil
}
