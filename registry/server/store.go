package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The grammars of names and tags: distribution-spec 1.1, "Pulling manifests". Both bound what reaches the file system:
// a component never starts with a dot or an underscore, so no name can hit the store's own folders.
var (
	nameRE = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRE  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// maxManifest is the largest manifest taken, in bytes (the limit that the specification asks registries to allow).
const maxManifest = 4 << 20

var errUnknown = errors.New("unknown")

// store is the folder.
type store struct{ root string }

func openStore(root string) (*store, error) {
	s := &store{root: root}
	if err := os.RemoveAll(s.path("uploads")); err != nil {
		return nil, fmt.Errorf("remove unfinished uploads of an earlier run: %w", err)
	}
	for _, d := range []string{"blobs/sha256", "repos", "uploads"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			return nil, fmt.Errorf("make the registry's folder: %w", err)
		}
	}
	return s, nil
}

func (s *store) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

func (s *store) repo(name string, elem ...string) string {
	return s.path(append([]string{"repos", name}, elem...)...)
}

// parseDigest takes sha256 digests only: it is what the store names its files by.
func parseDigest(text string) (digest.Digest, error) {
	d, err := digest.Parse(text)
	if err != nil {
		return "", fmt.Errorf("digest %q: %w", text, err)
	}
	if d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("digest %q: this registry stores sha256 digests only", text)
	}
	return d, nil
}

func (s *store) blobPath(d digest.Digest) string { return s.path("blobs", "sha256", d.Encoded()) }

// openBlob opens a blob that the repository holds; errUnknown otherwise.
func (s *store) openBlob(repo string, d digest.Digest) (*os.File, error) {
	if _, err := os.Stat(s.repo(repo, "_blobs", d.Encoded())); err != nil {
		return nil, fmt.Errorf("blob %s in %s: %w", d, repo, errUnknown)
	}
	f, err := os.Open(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s in %s: %w", d, repo, errUnknown)
	}
	return f, err
}

// commit gives the finished temporary file its name and links it to the repository.
func (s *store) commit(repo string, f *os.File, d digest.Digest) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync blob %s: %w", d, err)
	}
	if err := os.Rename(f.Name(), s.blobPath(d)); err != nil {
		return fmt.Errorf("store blob %s: %w", d, err)
	}
	if err := syncDir(filepath.Dir(s.blobPath(d))); err != nil {
		return err
	}
	return s.link(repo, d)
}

// link lets the repository serve the blob (a mount, in the protocol's words).
func (s *store) link(repo string, d digest.Digest) error {
	return writeFile(s.repo(repo, "_blobs", d.Encoded()), nil)
}

// writeFile writes a small file whole or not at all, and durably.
func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	f, err := os.CreateTemp(dir, ".tmp-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // after the rename there is nothing of that name
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// manifest is a stored manifest.
type manifest struct {
	mediaType string
	digest    digest.Digest
	body      []byte
}

// resolve turns a tag or digest into a digest.
func (s *store) resolve(repo, ref string) (digest.Digest, error) {
	if strings.Contains(ref, ":") {
		return parseDigest(ref)
	}
	if !tagRE.MatchString(ref) {
		return "", fmt.Errorf("tag %q: not a valid tag", ref)
	}
	b, err := os.ReadFile(s.repo(repo, "_tags", ref))
	if err != nil {
		return "", fmt.Errorf("manifest %s:%s: %w", repo, ref, errUnknown)
	}
	return parseDigest(string(b))
}

func (s *store) getManifest(repo, ref string) (manifest, error) {
	d, err := s.resolve(repo, ref)
	if err != nil {
		return manifest{}, err
	}
	mt, err := os.ReadFile(s.repo(repo, "_manifests", d.Encoded()))
	if err != nil {
		return manifest{}, fmt.Errorf("manifest %s in %s: %w", d, repo, errUnknown)
	}
	body, err := os.ReadFile(s.blobPath(d))
	if err != nil {
		return manifest{}, fmt.Errorf("manifest %s in %s: %w", d, repo, errUnknown)
	}
	return manifest{mediaType: string(mt), digest: d, body: body}, nil
}

// putManifest stores a manifest under a tag or its digest, after all that it points to was found in the repository.
func (s *store) putManifest(repo, ref, mediaType string, body []byte) (digest.Digest, error) {
	if err := s.checkReferences(repo, body); err != nil {
		return "", err
	}
	d := digest.FromBytes(body)
	isDigest := strings.Contains(ref, ":")
	switch {
	case isDigest && ref != d.String():
		return "", fmt.Errorf("manifest %s: its bytes have the digest %s", ref, d)
	case !isDigest && !tagRE.MatchString(ref):
		return "", fmt.Errorf("tag %q: not a valid tag", ref)
	}
	f, err := os.CreateTemp(s.path("uploads"), "manifest-")
	if err != nil {
		return "", fmt.Errorf("store manifest %s: %w", d, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(body); err != nil {
		return "", fmt.Errorf("store manifest %s: %w", d, err)
	}
	if err := s.commit(repo, f, d); err != nil {
		return "", err
	}
	if err := writeFile(s.repo(repo, "_manifests", d.Encoded()), []byte(mediaType)); err != nil {
		return "", err
	}
	if isDigest {
		return d, nil
	}
	return d, writeFile(s.repo(repo, "_tags", ref), []byte(d))
}

// checkReferences refuses a manifest which points to blobs or manifests that the repository does not hold.
func (s *store) checkReferences(repo string, body []byte) error {
	var m struct {
		Config *struct{ Digest string }
		Layers []struct {
			Digest string
			URLs   []string `json:"urls"`
		}
		Manifests []struct{ Digest string }
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("manifest is no JSON: %w", err)
	}
	var need []string
	if m.Config != nil {
		need = append(need, m.Config.Digest)
	}
	for _, l := range m.Layers {
		if len(l.URLs) == 0 { // a foreign layer is kept elsewhere
			need = append(need, l.Digest)
		}
	}
	for _, c := range m.Manifests {
		need = append(need, c.Digest)
	}
	for _, text := range need {
		d, err := parseDigest(text)
		if err != nil {
			return err
		}
		f, err := s.openBlob(repo, d)
		if err != nil {
			return fmt.Errorf("manifest points to what was not pushed: %w", err)
		}
		f.Close()
	}
	return nil
}

func (s *store) tags(repo string) ([]string, error) {
	entries, err := os.ReadDir(s.repo(repo, "_tags"))
	if err != nil {
		if _, err := os.Stat(s.repo(repo, "_blobs")); err == nil {
			return []string{}, nil
		}
		return nil, fmt.Errorf("repository %s: %w", repo, errUnknown)
	}
	tags := []string{}
	for _, e := range entries {
		if tagRE.MatchString(e.Name()) {
			tags = append(tags, e.Name())
		}
	}
	sort.Strings(tags)
	return tags, nil
}

// append writes body at the end of an upload and returns the upload's new length in bytes.
func (s *store) append(id string, body io.Reader) (int64, error) {
	f, err := os.OpenFile(s.path("uploads", id), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return 0, fmt.Errorf("upload %s: %w", id, errUnknown)
	}
	defer f.Close()
	if _, err := io.Copy(f, body); err != nil {
		return 0, fmt.Errorf("upload %s: %w", id, err)
	}
	return f.Seek(0, io.SeekEnd)
}
