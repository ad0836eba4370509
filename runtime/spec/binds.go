package spec

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
)

// userMount is a mount that the user asked for.
type userMount struct {
	source, target string
	tmpfs          []string // options of a tmpfs, nil for a bind
	readOnly       bool
	recursiveRO    bool // read-only with all below, if the kernel can
	forceRO        bool // and refuse if it can't
	nonRecursive   bool
	propagation    mount.Propagation // "": rprivate
	create         bool              // a missing source is made, as a folder
	strict         bool              // a missing source is an error at create time
}

// userMounts reads Binds, Mounts and Tmpfs, in this order. Two for one place are refused.
func userMounts(h *container.HostConfig) ([]userMount, error) {
	var out []userMount
	seen := map[string]bool{}
	add := func(m userMount, err error) error {
		if err != nil {
			return err
		}
		if seen[m.target] {
			return errs.New(errs.Invalid, "Duplicate mount point: %s", m.target)
		}
		seen[m.target] = true
		out = append(out, m)
		return nil
	}
	for _, b := range h.Binds {
		if err := add(parseBind(b)); err != nil {
			return nil, err
		}
	}
	for _, m := range h.Mounts {
		if err := add(parseMount(m)); err != nil {
			return nil, err
		}
	}
	for _, target := range sortedKeys(h.Tmpfs) {
		m := userMount{target: path.Clean(target)}
		err := checkTarget(target, target)
		if err == nil {
			m.tmpfs, err = tmpfsOptions(splitOptions(h.Tmpfs[target]))
		}
		if err := add(m, err); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func splitOptions(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(o string) bool { return o == "" })
}

func checkTarget(target, whole string) error {
	switch {
	case !path.IsAbs(target):
		return errs.New(errs.Invalid, "invalid mount path: '%s' mount path must be absolute", target)
	case path.Clean(target) == "/":
		return errs.New(errs.Invalid, "invalid volume specification: '%s': invalid mount config: destination can't be '/'", whole)
	}
	return nil
}

// parseBind reads SOURCE:TARGET[:OPTIONS] of HostConfig.Binds.
func parseBind(text string) (userMount, error) {
	parts := strings.Split(text, ":")
	if len(parts) == 1 || len(parts) > 3 || slices.Contains(parts, "") {
		if len(parts) == 1 && path.IsAbs(text) {
			return userMount{}, errs.New(errs.NotImplemented, "anonymous volumes (HostConfig.Binds %q) are not implemented", text)
		}
		return userMount{}, errs.New(errs.Invalid, "invalid volume specification: '%s'", text)
	}
	m := userMount{source: parts[0], target: path.Clean(parts[1]), create: true, recursiveRO: true}
	if err := checkTarget(parts[1], text); err != nil {
		return m, err
	}
	if !path.IsAbs(m.source) {
		return m, errs.New(errs.NotImplemented, "named volumes (HostConfig.Binds %q) are not implemented", text)
	}
	m.source = path.Clean(m.source)
	if len(parts) == 3 {
		if err := m.bindOptions(parts[2]); err != nil {
			return m, err
		}
	}
	return m, nil
}

// bindOptions reads the third part of a bind: at most one option of each kind.
func (m *userMount) bindOptions(text string) error {
	bad := errs.New(errs.Invalid, "invalid mode: %s", text)
	var access, label, consistency bool
	for o := range strings.SplitSeq(text, ",") {
		switch o {
		case "ro", "rw":
			if access {
				return bad
			}
			access, m.readOnly = true, o == "ro"
		case "z", "Z": // relabelling for SELinux; nothing to do without it
			if label {
				return bad
			}
			label = true
		case "consistent", "cached", "delegated", "default": // of Docker Desktop
			if consistency {
				return bad
			}
			consistency = true
		case "private", "rprivate", "shared", "rshared", "slave", "rslave":
			if m.propagation != "" {
				return bad
			}
			m.propagation = mount.Propagation(o)
		default: // also nocopy, which is for volumes
			return bad
		}
	}
	return nil
}

// parseMount reads an entry of HostConfig.Mounts.
func parseMount(m mount.Mount) (userMount, error) {
	fail := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "invalid mount config for type %q: %s", m.Type, fmt.Sprintf(format, args...))
	}
	switch m.Type {
	case mount.TypeBind, mount.TypeTmpfs:
	case mount.TypeVolume, mount.TypeImage, mount.TypeNamedPipe, mount.TypeCluster:
		return userMount{}, errs.New(errs.NotImplemented, "mounts of type %s (HostConfig.Mounts, target %s) are not implemented", m.Type, m.Target)
	default:
		return userMount{}, fail("mount type unknown")
	}
	out := userMount{target: path.Clean(m.Target), readOnly: m.ReadOnly, recursiveRO: m.ReadOnly}
	switch {
	case m.Target == "":
		return out, fail("field Target must not be empty")
	case !path.IsAbs(m.Target):
		return out, fail("invalid mount path: '%s' mount path must be absolute", m.Target)
	case out.target == "/":
		return out, fail("invalid specification: destination can't be '/'")
	case m.VolumeOptions != nil:
		return out, fail("field VolumeOptions must not be specified")
	case m.ImageOptions != nil:
		return out, fail("field ImageOptions must not be specified")
	case m.ClusterOptions != nil:
		return out, fail("field ClusterOptions must not be specified")
	}
	if m.Type == mount.TypeTmpfs {
		switch {
		case m.BindOptions != nil:
			return out, fail("field BindOptions must not be specified")
		case m.Source != "":
			return out, fail("field Source must not be specified")
		}
		var err error
		if out.tmpfs, err = tmpfsOptions(convertTmpfs(m.TmpfsOptions, m.ReadOnly)); err != nil {
			return out, fail("%v", err)
		}
		return out, nil
	}
	switch {
	case m.TmpfsOptions != nil:
		return out, fail("field TmpfsOptions must not be specified")
	case m.Source == "":
		return out, fail("field Source must not be empty")
	case !path.IsAbs(m.Source):
		return out, fail("invalid mount path: '%s' mount path must be absolute", m.Source)
	}
	out.source, out.strict = path.Clean(m.Source), true
	if o := m.BindOptions; o != nil {
		if o.Propagation != "" && !slices.Contains(mount.Propagations, o.Propagation) {
			return out, fail("invalid propagation mode: %s", o.Propagation)
		}
		if !m.ReadOnly && (o.ReadOnlyNonRecursive || o.ReadOnlyForceRecursive) {
			return out, fail("mount must be read-only when ReadOnlyNonRecursive or ReadOnlyForceRecursive is set")
		}
		if o.ReadOnlyNonRecursive && o.ReadOnlyForceRecursive {
			return out, fail("ReadOnlyForceRecursive must not be specified with ReadOnlyNonRecursive")
		}
		out.propagation, out.nonRecursive = o.Propagation, o.NonRecursive
		out.create, out.strict = o.CreateMountpoint, !o.CreateMountpoint
		out.recursiveRO, out.forceRO = m.ReadOnly && !o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive
	}
	return out, nil
}

// checkSource refuses a bind of something that is not there, unless it is to be made.
func (m *userMount) checkSource() error {
	if !m.strict {
		return nil
	}
	if _, err := os.Stat(m.source); err != nil {
		if os.IsNotExist(err) {
			return errs.New(errs.Invalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", m.source)
		}
		return errs.As(errs.Invalid, fmt.Errorf("invalid mount config for type \"bind\": %w", err))
	}
	return nil
}

// MakeBindSources makes the folders that are bound by HostConfig.Binds (-v) and don't exist on the host, as dockerd does when
// it starts a container. It is the one thing to be done on the machine before Build's result can run.
func MakeBindSources(h *container.HostConfig) error {
	mounts, err := userMounts(h)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.tmpfs != nil || !m.create {
			continue
		}
		if _, err := os.Stat(m.source); err == nil {
			continue
		}
		if err := os.MkdirAll(m.source, 0o755); err != nil {
			return errs.New(errs.Invalid, "error while creating mount source path '%s': %w", m.source, err)
		}
	}
	return nil
}

// oci is the mount in the words of OCI.
func (m *userMount) oci(k *Kernel) (specs.Mount, error) {
	if m.tmpfs != nil {
		return specs.Mount{Destination: m.target, Type: "tmpfs", Source: "tmpfs", Options: m.tmpfs}, nil
	}
	o := specs.Mount{Destination: m.target, Type: "bind", Source: m.source}
	if m.nonRecursive {
		o.Options = append(o.Options, "bind")
	} else {
		o.Options = append(o.Options, "rbind")
	}
	switch {
	case m.readOnly && m.forceRO && !k.RecursiveRO:
		return o, errs.New(errs.Invalid, "the mount of %s can't be made read-only recursively: the kernel is older than 5.12", m.target)
	case m.readOnly && m.recursiveRO && k.RecursiveRO:
		o.Options = append(o.Options, "rro")
	case m.readOnly:
		o.Options = append(o.Options, "ro")
	}
	p := m.propagation
	if p == "" {
		p = mount.PropagationRPrivate
	}
	o.Options = append(o.Options, string(p))
	return o, nil
}
