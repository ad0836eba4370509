package api

import (
	"encoding/json"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/internal/errs"
)

// architectures maps the names that people use to those of the OCI specification, with the variant they imply.
var architectures = map[string][2]string{
	"i386":    {"386", ""},
	"x86_64":  {"amd64", ""},
	"x86-64":  {"amd64", ""},
	"aarch64": {"arm64", ""},
	"armhf":   {"arm", "v7"},
	"armel":   {"arm", "v6"},
}

// knownArchitectures tells a lone architecture ("arm64") from a lone operating system ("linux").
var knownArchitectures = map[string]bool{
	"386": true, "amd64": true, "arm": true, "arm64": true, "loong64": true, "mips": true, "mips64": true, "mips64le": true,
	"mipsle": true, "ppc64": true, "ppc64le": true, "riscv64": true, "s390x": true,
}

// platformOf reads "os[/arch[/variant]]" or "arch"; "" is nil.
func platformOf(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil // no platform asked for
	}
	parts := strings.Split(strings.ToLower(s), "/")
	for _, p := range parts {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			return nil, errs.New(errs.Invalid, "%q is an invalid platform: it must be os[/arch[/variant]]", s)
		}
	}
	if len(parts) > 3 {
		return nil, errs.New(errs.Invalid, "%q is an invalid platform: it must be os[/arch[/variant]]", s)
	}
	if len(parts) == 1 {
		_, alias := architectures[parts[0]]
		if alias || knownArchitectures[parts[0]] {
			parts = []string{runtime.GOOS, parts[0]}
		} else {
			parts = append(parts, runtime.GOARCH)
		}
	}
	p := &ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if a, ok := architectures[parts[1]]; ok {
		p.Architecture, p.Variant = a[0], a[1]
	}
	if len(parts) == 3 {
		p.Variant = parts[2]
		if p.Variant[0] >= '0' && p.Variant[0] <= '9' {
			p.Variant = "v" + p.Variant
		}
	}
	if p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1" {
		p.Variant = "" // what everybody has
	}
	return p, nil
}

// platformsOf decodes a repeatable parameter of JSON-encoded platforms.
func platformsOf(values []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, s := range values {
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(s), &p); err != nil {
			return nil, errs.New(errs.Invalid, "invalid platform %q: it must be a JSON object: %w", s, err)
		}
		if p.OS == "" || p.Architecture == "" {
			return nil, errs.New(errs.Invalid, "invalid platform %q: os and architecture are both needed", s)
		}
		out = append(out, p)
	}
	return out, nil
}

// onePlatform decodes an optional, JSON-encoded platform that may be given once.
func (c *call) onePlatform(since Version) (*ocispec.Platform, error) {
	if c.version < since || len(c.params["platform"]) == 0 || c.query("platform") == "" {
		return nil, nil // no platform asked for
	}
	ps, err := platformsOf(c.params["platform"])
	if err != nil {
		return nil, err
	}
	if len(ps) > 1 {
		return nil, errs.New(errs.Invalid, "several platforms were given, only one is possible here")
	}
	return &ps[0], nil
}
