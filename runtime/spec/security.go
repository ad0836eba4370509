package spec

import (
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
	"skiff/runtime/seccomp"
)

// security is what the options of --security-opt say.
type security struct {
	noNewPrivileges bool
	writableCgroups *bool
	seccomp         string // "": default, "unconfined", or a profile's text
	appArmor        string
}

// parseSecurity reads HostConfig.SecurityOpt: "no-new-privileges" and KEY=VALUE (or, as long ago, KEY:VALUE).
func parseSecurity(opts []string, k *Kernel) (*security, []string, error) {
	s := &security{}
	var warn []string
	for _, o := range opts {
		if o == "no-new-privileges" {
			s.noNewPrivileges = true
			continue
		}
		key, val, ok := strings.Cut(o, "=")
		if !ok {
			key, val, ok = strings.Cut(o, ":")
		}
		if !ok {
			return nil, nil, errs.New(errs.Invalid, "invalid --security-opt 1: %q", o)
		}
		switch key {
		case "no-new-privileges", "writable-cgroups":
			b, err := strconv.ParseBool(val)
			if err != nil {
				return nil, nil, errs.New(errs.Invalid, "invalid --security-opt 2: %q", o)
			}
			if key == "writable-cgroups" {
				s.writableCgroups = &b
			} else {
				s.noNewPrivileges = b
			}
		case "seccomp":
			s.seccomp = val
		case "apparmor":
			s.appArmor = val
			if !k.AppArmor && val != "unconfined" && val != "" {
				warn = append(warn, "Your kernel does not support AppArmor or it is not enabled. AppArmor profile discarded.")
			}
		case "label":
			if k.SELinux && val != "disable" {
				return nil, nil, errs.New(errs.NotImplemented, "SELinux labels (--security-opt label=%s) are not implemented", val)
			}
		default:
			return nil, nil, errs.New(errs.Invalid, "invalid --security-opt 2: %q", o)
		}
	}
	return s, warn, nil
}

// appArmorProfile is the profile that the kernel is told at execve, "" for none.
func (s *security) appArmorProfile(privileged bool, k *Kernel) string {
	switch {
	case !k.AppArmor:
		return ""
	case s.appArmor != "":
		return s.appArmor
	case privileged:
		return "unconfined"
	case k.DockerDefault:
		return "docker-default"
	}
	return ""
}

// Seccomp is the profile of a container's processes, or nil for none: the default one for its capabilities, its own,
// or none if it is unconfined or privileged. Profiles may be shared, so it must not be changed.
func Seccomp(h *container.HostConfig, k *Kernel, profiles *seccomp.Profiles) (*specs.LinuxSeccomp, error) {
	sec, _, err := parseSecurity(h.SecurityOpt, k)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(h.CapAdd, h.CapDrop, h.Privileged, k)
	if err != nil {
		return nil, err
	}
	return sec.profile(h.Privileged, caps, profiles)
}

func (s *security) profile(privileged bool, caps []string, profiles *seccomp.Profiles) (*specs.LinuxSeccomp, error) {
	if privileged && s.seccomp == "" { // a profile that is named holds for a privileged container too
		return nil, nil
	}
	if profiles == nil {
		profiles = &seccomp.Profiles{}
	}
	return profiles.Get(s.seccomp, caps)
}
