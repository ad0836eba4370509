package spec

import (
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
)

// defaultCaps is Docker's set for an ordinary container.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

const allCaps = "ALL"

// capabilities is the set of a container: the default one with additions and removals, or everything that we have
// ourselves. Removals don't touch what is added by name, as with dockerd.
func capabilities(add, drop []string, privileged bool, k *Kernel) ([]string, error) {
	add, err := normalizeCaps("CapAdd", add, k)
	if err != nil {
		return nil, err
	}
	if drop, err = normalizeCaps("CapDrop", drop, nil); err != nil {
		return nil, err
	}
	var out []string
	take := func(caps []string) {
		for _, c := range caps {
			if c != allCaps && !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	switch {
	case privileged:
		return slices.Clone(k.Caps), nil
	case slices.Contains(add, allCaps):
		take(slices.DeleteFunc(slices.Clone(k.Caps), func(c string) bool { return slices.Contains(drop, c) }))
	case slices.Contains(drop, allCaps):
		take(add)
	default:
		take(slices.DeleteFunc(slices.Clone(defaultCaps), func(c string) bool {
			return slices.Contains(drop, c) || !slices.Contains(k.Caps, c)
		}))
		take(add)
	}
	return out, nil
}

// normalizeCaps brings names to the form CAP_NET_RAW. Unknown ones are refused; with a kernel, also those that it (or
// our own environment) does not have.
func normalizeCaps(field string, caps []string, k *Kernel) ([]string, error) {
	var out []string
	for _, c := range caps {
		n := strings.ToUpper(c)
		if n == allCaps {
			out = append(out, n)
			continue
		}
		if !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		switch {
		case !slices.ContainsFunc(capability.ListKnown(), func(c capability.Cap) bool { return capName(c) == n }):
			return nil, errs.New(errs.Invalid, "invalid %s: unknown capability: %q", field, n)
		case k != nil && !slices.Contains(k.Caps, n):
			return nil, errs.New(errs.Invalid, "invalid %s: capability not supported by your kernel or not available in the current environment: %q", field, n)
		}
		out = append(out, n)
	}
	return out, nil
}

// ociCaps: nothing inheritable or ambient, as dockerd since CVE-2022-24769.
func ociCaps(caps []string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}
