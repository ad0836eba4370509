package cli

import (
	"errors"
	"fmt"
	"strings"
)

// imageRef is the name of an image, as docker reads it (grammar of the distribution project's references). Docker Hub is the
// registry that is meant if none is named.
type imageRef struct {
	domain, path, tag, digest string
}

var errRef = errors.New("invalid reference format")

// parseRef reads a name with tag or digest.
func parseRef(s string) (imageRef, error) {
	var r imageRef
	if isHexID(s) {
		return r, fmt.Errorf("invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	rest := s
	if i := strings.IndexByte(rest, '@'); i >= 0 {
		rest, r.digest = rest[:i], rest[i+1:]
		if !validDigest(r.digest) {
			return r, errRef
		}
	}
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, r.tag = rest[:i], rest[i+1:]
		if !validTag(r.tag) {
			return r, errRef
		}
	}
	r.domain, r.path = "docker.io", rest
	if first, after, ok := strings.Cut(rest, "/"); ok &&
		(strings.ContainsAny(first, ".:") || first == "localhost" || strings.ToLower(first) != first) {
		r.domain, r.path = first, after
	}
	if r.domain == "index.docker.io" {
		r.domain = "docker.io"
	}
	if r.domain == "docker.io" && !strings.Contains(r.path, "/") {
		r.path = "library/" + r.path
	}
	if strings.ToLower(r.path) != r.path {
		return r, fmt.Errorf("%w: repository name (%s) must be lowercase", errRef, r.path)
	}
	if !validDomain(r.domain) {
		return r, errRef
	}
	for part := range strings.SplitSeq(r.path, "/") {
		if !validComponent(part) {
			return r, errRef
		}
	}
	return r, nil
}

// familiar is the short name, without tag and digest.
func (r imageRef) familiar() string {
	if r.domain != "docker.io" {
		return r.domain + "/" + r.path
	}
	if name, ok := strings.CutPrefix(r.path, "library/"); ok && !strings.Contains(name, "/") {
		return name
	}
	return r.path
}

// withTag adds the tag "latest" where there is neither tag nor digest.
func (r imageRef) withTag() imageRef {
	if r.tag == "" && r.digest == "" {
		r.tag = "latest"
	}
	return r
}

// suffix is ":tag", "@digest", both or nothing.
func (r imageRef) suffix() string {
	s := ""
	if r.tag != "" {
		s = ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest
	}
	return s
}

func (r imageRef) String() string { return r.familiar() + r.suffix() }

// full is the name with its registry.
func (r imageRef) full() string { return r.domain + "/" + r.path + r.suffix() }

// pullTag is what the pull request calls "tag": a digest goes before a tag.
func (r imageRef) pullTag() string {
	if r.digest != "" {
		return r.digest
	}
	return r.tag
}

func isHexID(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }

func validDigest(s string) bool {
	alg, hex, ok := strings.Cut(s, ":")
	return ok && alg != "" && len(hex) >= 32 && strings.Trim(hex, "0123456789abcdefABCDEF") == ""
}

func word(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func validTag(s string) bool {
	if s == "" || len(s) > 128 || !word(s[0]) {
		return false
	}
	for i := range len(s) {
		if !word(s[i]) && s[i] != '.' && s[i] != '-' {
			return false
		}
	}
	return true
}

// validComponent: lower-case letters and digits, separated by ".", "_", "__" or any number of "-".
func validComponent(s string) bool {
	alnum := func(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' }
	if s == "" || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if alnum(s[i]) {
			i++
			continue
		}
		j := i
		for j < len(s) && !alnum(s[j]) {
			j++
		}
		sep := s[i:j]
		if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
		i = j
	}
	return true
}

func validDomain(s string) bool {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		i := strings.IndexByte(s, ']')
		if i < 0 || strings.Trim(s[1:i], "0123456789abcdefABCDEF:") != "" {
			return false
		}
		host, port = "", s[i+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i:]
	}
	if port != "" && (len(port) < 2 || port[0] != ':' || strings.Trim(port[1:], "0123456789") != "") {
		return false
	}
	if host == "" {
		return strings.HasPrefix(s, "[")
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}
