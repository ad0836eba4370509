package server

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Server is the registry's handler.
type Server struct {
	store *store
	log   *slog.Logger
}

// New opens (or makes) the registry in the folder root.
func New(root string, log *slog.Logger) (*Server, error) {
	st, err := openStore(root)
	if err != nil {
		return nil, fmt.Errorf("open registry %s: %w", root, err)
	}
	return &Server{store: st, log: log}, nil
}

// routeRE splits /v2/NAME/KIND/REST; NAME may hold slashes, so the last KIND counts.
var routeRE = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs|tags)/(.+)$`)

// ServeHTTP answers the distribution protocol.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if r.URL.Path == "/v2/" || r.URL.Path == "/v2" {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
		return
	}
	path := r.URL.Path
	if strings.HasSuffix(path, "/blobs/uploads/") {
		path += "new"
	}
	m := routeRE.FindStringSubmatch(path)
	if m == nil {
		fail(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint: "+r.URL.Path)
		return
	}
	name, kind, rest := m[1], m[2], m[3]
	if kind == "blobs" && strings.HasPrefix(rest, "uploads/") {
		kind, rest = "uploads", strings.TrimPrefix(rest, "uploads/")
	} else if n, ok := strings.CutSuffix(name, "/blobs"); ok && kind == "uploads" {
		name = n
	}
	if !nameRE.MatchString(name) || len(name) > 255 {
		fail(w, http.StatusBadRequest, "NAME_INVALID", fmt.Sprintf("invalid repository name %q", name))
		return
	}
	switch kind {
	case "manifests":
		s.manifests(w, r, name, rest)
	case "blobs":
		s.blobs(w, r, name, rest)
	case "uploads":
		s.uploads(w, r, name, rest)
	case "tags":
		s.tagList(w, r, name, rest)
	}
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// failErr maps a store's error: unknown things are 404 with the given code, all else is the client's fault (400) unless
// the system says otherwise.
func (s *Server) failErr(w http.ResponseWriter, err error, unknown, invalid string) {
	var pe *os.PathError
	switch {
	case errors.Is(err, errUnknown):
		fail(w, http.StatusNotFound, unknown, err.Error())
	case errors.As(err, &pe):
		s.log.Error("registry storage", "err", err)
		fail(w, http.StatusInternalServerError, "UNKNOWN", "storage failed")
	default:
		fail(w, http.StatusBadRequest, invalid, err.Error())
	}
}

func (s *Server) manifests(w http.ResponseWriter, r *http.Request, name, ref string) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		m, err := s.store.getManifest(name, ref)
		if err != nil {
			s.failErr(w, err, "MANIFEST_UNKNOWN", "MANIFEST_INVALID")
			return
		}
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Docker-Content-Digest", m.digest.String())
		w.Header().Set("Content-Length", strconv.Itoa(len(m.body)))
		if r.Method == http.MethodGet {
			w.Write(m.body)
		}
	case http.MethodPut:
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
		if err != nil {
			fail(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", "manifest: "+err.Error())
			return
		}
		d, err := s.store.putManifest(name, ref, r.Header.Get("Content-Type"), body)
		if err != nil {
			s.failErr(w, err, "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID")
			return
		}
		w.Header().Set("Location", "/v2/"+name+"/manifests/"+d.String())
		w.Header().Set("Docker-Content-Digest", d.String())
		w.WriteHeader(http.StatusCreated)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", r.Method+" of a manifest is not there yet")
	}
}

func (s *Server) blobs(w http.ResponseWriter, r *http.Request, name, text string) {
	d, err := parseDigest(text)
	if err != nil {
		s.failErr(w, err, "BLOB_UNKNOWN", "DIGEST_INVALID")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", r.Method+" of a blob is not there yet")
		return
	}
	f, err := s.store.openBlob(name, d)
	if err != nil {
		s.failErr(w, err, "BLOB_UNKNOWN", "DIGEST_INVALID")
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		s.failErr(w, err, "BLOB_UNKNOWN", "DIGEST_INVALID")
		return
	}
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+d.String()+`"`)
	http.ServeContent(w, r, "", st.ModTime(), f) // Range requests, and sendfile(2) for the bytes
}

func (s *Server) tagList(w http.ResponseWriter, r *http.Request, name, rest string) {
	if rest != "list" || r.Method != http.MethodGet {
		fail(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint: "+r.URL.Path)
		return
	}
	tags, err := s.store.tags(name)
	if err != nil {
		s.failErr(w, err, "NAME_UNKNOWN", "NAME_INVALID")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"name": name, "tags": tags})
}

var uploadRE = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (s *Server) uploads(w http.ResponseWriter, r *http.Request, name, id string) {
	if r.Method == http.MethodPost && id == "new" {
		s.startUpload(w, r, name)
		return
	}
	if !uploadRE.MatchString(id) {
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", fmt.Sprintf("no such upload: %q", id))
		return
	}
	switch r.Method {
	case http.MethodPatch:
		s.chunk(w, r, name, id)
	case http.MethodPut:
		s.finishUpload(w, r, name, id)
	case http.MethodGet:
		st, err := os.Stat(s.store.path("uploads", id))
		if err != nil {
			fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "no such upload: "+id)
			return
		}
		s.uploadState(w, name, id, st.Size(), http.StatusNoContent)
	case http.MethodDelete:
		if err := os.Remove(s.store.path("uploads", id)); err != nil {
			fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "no such upload: "+id)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "no "+r.Method+" on an upload")
	}
}

// startUpload answers a POST: a mount from another repository, a blob sent whole, or the start of a chunked upload.
func (s *Server) startUpload(w http.ResponseWriter, r *http.Request, name string) {
	q := r.URL.Query()
	if text, from := q.Get("mount"), q.Get("from"); text != "" && nameRE.MatchString(from) {
		if d, err := parseDigest(text); err == nil {
			if f, err := s.store.openBlob(from, d); err == nil {
				f.Close()
				if err := s.store.link(name, d); err != nil {
					s.failErr(w, err, "BLOB_UNKNOWN", "DIGEST_INVALID")
					return
				}
				s.created(w, name, d)
				return
			}
		}
	}
	var b [16]byte
	rand.Read(b[:])
	id := hex.EncodeToString(b[:])
	if err := os.WriteFile(s.store.path("uploads", id), nil, 0o644); err != nil {
		s.failErr(w, err, "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")
		return
	}
	if q.Get("digest") != "" {
		s.finishUpload(w, r, name, id)
		return
	}
	s.uploadState(w, name, id, 0, http.StatusAccepted)
}

func (s *Server) uploadState(w http.ResponseWriter, name, id string, size int64, status int) {
	w.Header().Set("Location", "/v2/"+name+"/blobs/uploads/"+id)
	w.Header().Set("Docker-Upload-UUID", id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
	w.WriteHeader(status)
}

func (s *Server) chunk(w http.ResponseWriter, r *http.Request, name, id string) {
	if cr := r.Header.Get("Content-Range"); cr != "" {
		first, _, _ := strings.Cut(cr, "-")
		start, err := strconv.ParseInt(first, 10, 64)
		st, serr := os.Stat(s.store.path("uploads", id))
		if serr == nil && (err != nil || start != st.Size()) {
			s.uploadState(w, name, id, st.Size(), http.StatusRequestedRangeNotSatisfiable)
			return
		}
	}
	size, err := s.store.append(id, r.Body)
	if err != nil {
		s.failErr(w, err, "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")
		return
	}
	s.uploadState(w, name, id, size, http.StatusAccepted)
}

func (s *Server) finishUpload(w http.ResponseWriter, r *http.Request, name, id string) {
	d, err := parseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		s.failErr(w, err, "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID")
		return
	}
	if _, err := s.store.append(id, r.Body); err != nil {
		s.failErr(w, err, "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")
		return
	}
	f, err := os.Open(s.store.path("uploads", id))
	if err != nil {
		s.failErr(w, err, "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")
		return
	}
	defer f.Close()
	v := d.Verifier()
	if _, err := io.Copy(v, f); err != nil {
		s.failErr(w, err, "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")
		return
	}
	if !v.Verified() {
		os.Remove(f.Name())
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "the uploaded bytes do not have the digest "+d.String())
		return
	}
	if err := s.store.commit(name, f, d); err != nil {
		s.failErr(w, err, "BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")
		return
	}
	s.created(w, name, d)
}

func (s *Server) created(w http.ResponseWriter, name string, d digest.Digest) {
	w.Header().Set("Location", "/v2/"+name+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}
