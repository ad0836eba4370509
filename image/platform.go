package image

import (
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
)

// hostPlatform is what this machine runs natively.
func hostPlatform() ocispec.Platform {
	return normalize(ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH})
}

// normalize gives the common names for what people write: x86_64, aarch64, armhf; and no variant where it is the default.
func normalize(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386", "i686":
		p.Architecture = "386"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch p.Architecture {
	case "amd64":
		if p.Variant == "v1" {
			p.Variant = ""
		}
	case "arm64":
		if p.Variant == "v8" || p.Variant == "8" {
			p.Variant = ""
		}
	case "arm":
		switch p.Variant {
		case "", "7":
			p.Variant = "v7"
		case "5", "6", "8":
			p.Variant = "v" + p.Variant
		}
	}
	return p
}

// formatPlatform writes a platform as people do: linux/arm/v7.
func formatPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// rank tells how well an image's platform suits a wanted one: 0 not at all, else the higher the better.
func rank(want, have ocispec.Platform) int {
	want, have = normalize(want), normalize(have)
	if want.OS != have.OS {
		return 0
	}
	if want.OSVersion != "" && want.OSVersion != have.OSVersion {
		return 0
	}
	if want.Architecture != have.Architecture {
		if want.Architecture == "amd64" && have.Architecture == "386" {
			return 1 // runs there too
		}
		return 0
	}
	if want.Variant == have.Variant {
		return 100
	}
	switch want.Architecture {
	case "arm", "amd64", "arm64": // older variants run on newer ones
		w, h := level(want), level(have)
		if h > 0 && h < w {
			return 10 + h
		}
	}
	return 0
}

func level(p ocispec.Platform) int {
	v := strings.TrimPrefix(p.Variant, "v")
	switch {
	case v == "" && p.Architecture == "amd64":
		return 1
	case v == "" && p.Architecture == "arm64":
		return 8
	case len(v) >= 1 && v[0] >= '1' && v[0] <= '9':
		return int(v[0] - '0')
	}
	return 0
}

// choose picks the entry of an index that suits a platform best; the first of equals.
func choose(children []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, bool) {
	best, at := 0, -1
	for i, c := range children {
		if c.Platform == nil || !isManifest(c.MediaType) {
			continue
		}
		if r := rank(want, *c.Platform); r > best {
			best, at = r, i
		}
	}
	if at >= 0 {
		return children[at], true
	}
	// An index over an index, or entries that don't say: there is one way only.
	var other []ocispec.Descriptor
	for _, c := range children {
		if c.Platform == nil && (isIndex(c.MediaType) || isManifest(c.MediaType)) {
			other = append(other, c)
		}
	}
	if len(other) == 1 {
		return other[0], true
	}
	return ocispec.Descriptor{}, false
}

// noMatch has Docker's words, and says what there is.
func noMatch(children []ocispec.Descriptor, want ocispec.Platform) error {
	var have []string
	for _, c := range children {
		if c.Platform != nil && c.Platform.OS != "unknown" && len(have) < 20 {
			have = append(have, formatPlatform(normalize(*c.Platform)))
		}
	}
	text := "no matching manifest for " + formatPlatform(want) + " in the manifest list entries"
	if len(have) > 0 {
		text += " (there are " + strings.Join(have, ", ") + ")"
	}
	return errs.New(errs.NotFound, "%s", text)
}
