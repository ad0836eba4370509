package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
)

// LoadBundle reads the specification of a bundle. Relative paths in it become absolute.
func LoadBundle(bundle string) (*specs.Spec, error) {
	file := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.Invalid, "JSON specification file %s not found", file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the specification: %w", err)
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(b, spec); err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", file, err)
	}
	if err := checkVersion(spec.Version); err != nil {
		return nil, err
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return nil, errs.New(errs.Invalid, "%s: root must be specified", file)
	}
	if spec.Process == nil {
		return nil, errs.New(errs.Invalid, "%s: process must be specified", file)
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	spec.Root.Path = absolute(bundle, spec.Root.Path)
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		if isBind(m) && m.Source != "" {
			m.Source = absolute(bundle, m.Source)
		}
	}
	return spec, nil
}

func isBind(m *specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return m.Type == "bind"
}

func absolute(dir, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, name)
}

// checkVersion refuses specifications that are not of version 1.
func checkVersion(v string) error {
	core, _, _ := strings.Cut(v, "-")
	parts := strings.Split(core, ".")
	if len(parts) != 3 {
		return errs.New(errs.Invalid, "ociVersion %q is not a version", v)
	}
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 32); err != nil {
			return errs.New(errs.Invalid, "ociVersion %q is not a version", v)
		}
	}
	if parts[0] != "1" {
		return errs.New(errs.Invalid, "ociVersion %q is not supported, only 1.x is", v)
	}
	return nil
}
