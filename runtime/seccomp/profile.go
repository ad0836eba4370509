package seccomp

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
)

// Default is Docker's own profile as it applies to a container with the given bounding capabilities ("CAP_SYS_ADMIN"
// …) on this machine and kernel.
func Default(caps []string) (*specs.LinuxSeccomp, error) {
	p, err := moby.GetDefaultProfile(withCaps(caps))
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	return p, nil
}

// Custom reads a profile in Docker's JSON form (archMap, includes, excludes …) or the OCI one, as `--security-opt
// seccomp=FILE` sends it. It gives nil if the profile says nothing at all.
func Custom(text string, caps []string) (*specs.LinuxSeccomp, error) {
	p, err := moby.LoadProfile(text, withCaps(caps))
	if err != nil {
		return nil, errs.New(errs.Invalid, "seccomp profile: %w", err)
	}
	return p, nil
}

func withCaps(caps []string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
}

// Profiles finds profiles by what `--security-opt seccomp=` says, and remembers the default ones. The zero value is
// ready; it may be used by several goroutines. Callers must not change what they get.
type Profiles struct {
	// Configured is what an option that is not given stands for: "" (the builtin one), "unconfined", or the text of a profile.
	// It is set before the first Get.
	Configured string

	mu       sync.Mutex
	defaults map[string]*specs.LinuxSeccomp // by capabilities
}

// Get gives the profile for an option: "" is the configured one, "builtin" the default one, "unconfined" is none (nil), anything else is
// the text of a profile.
func (p *Profiles) Get(opt string, caps []string) (*specs.LinuxSeccomp, error) {
	if opt == "" {
		opt = p.Configured
	}
	switch opt {
	case "", "builtin":
	case "unconfined":
		return nil, nil
	default:
		return Custom(opt, caps)
	}
	sorted := slices.Clone(caps)
	slices.Sort(sorted)
	key := strings.Join(sorted, ",")
	p.mu.Lock()
	defer p.mu.Unlock()
	if d, ok := p.defaults[key]; ok {
		return d, nil
	}
	d, err := Default(caps)
	if err != nil {
		return nil, err
	}
	if p.defaults == nil || len(p.defaults) >= cacheSize {
		p.defaults = make(map[string]*specs.LinuxSeccomp)
	}
	p.defaults[key] = d
	return d, nil
}
