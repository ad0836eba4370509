package api

import (
	"strconv"
	"strings"

	"skiff/internal/errs"
)

// Version is a version of the Engine API: n stands for 1.n.
type Version int

// The versions that are served. MaxVersion is the newest that github.com/moby/moby/api describes.
const (
	MinVersion Version = 40
	MaxVersion Version = 56
)

// String is the version as it stands in a path, without the v: "1.41".
func (v Version) String() string { return "1." + strconv.Itoa(int(v)) }

// cutVersion takes a leading "/v1.41" off path. version is "" if there is none.
func cutVersion(path string) (version, rest string) {
	if !strings.HasPrefix(path, "/v") {
		return "", path
	}
	end := strings.IndexByte(path[2:], '/')
	if end <= 0 {
		return "", path
	}
	version = path[2 : 2+end]
	if strings.Trim(version, "0123456789.") != "" {
		return "", path
	}
	return version, path[2+end:]
}

// negotiate gives the version to serve a request in. "" means the newest.
func negotiate(version string) (Version, error) {
	if version == "" {
		return MaxVersion, nil
	}
	// A part that is no number counts as 0, what follows the second dot counts for nothing: dockerd compares so too.
	major, minor, _ := strings.Cut(version, ".")
	minor, _, _ = strings.Cut(minor, ".")
	x, y := number(major), number(minor)
	if x < 1 || x == 1 && y < int(MinVersion) {
		return 0, errs.New(errs.Invalid,
			"client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", version, MinVersion)
	}
	if x > 1 || y > int(MaxVersion) {
		return 0, errs.New(errs.Invalid, "client version %s is too new. Maximum supported API version is %s", version, MaxVersion)
	}
	return Version(y), nil
}

// number reads a decimal number, 0 for anything else and a large one for what is too large.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		if len(s) > 9 {
			return 1 << 30
		}
		return 0
	}
	return n
}
