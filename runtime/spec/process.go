package spec

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the environment of a process: the defaults, overlaid by the settings in their order. A setting
// without "=" takes a default away. HOME is added if it is not set.
func environment(c *container.Config, tty bool, settings []string, home string) []string {
	env := make([]string, 0, len(settings)+4)
	env = append(env, defaultPath, "HOSTNAME="+c.Hostname)
	if tty {
		env = append(env, "TERM=xterm")
	}
	for _, s := range settings {
		key, _, set := strings.Cut(s, "=")
		at := slices.IndexFunc(env, func(e string) bool { return len(e) > len(key) && e[len(key)] == '=' && e[:len(key)] == key })
		switch {
		case set && at >= 0:
			env[at] = s
		case set:
			env = append(env, s)
		case at >= 0:
			env = slices.Delete(env, at, at+1)
		}
	}
	at := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") })
	switch {
	case at < 0:
		env = append(env, "HOME="+home)
	case env[at] == "HOME=":
		env[at] += home
	}
	return env
}

// rlimits are the limits of a process in the kernel's names.
func rlimits(ulimits []*container.Ulimit) ([]specs.POSIXRlimit, error) {
	var out []specs.POSIXRlimit
	for _, u := range ulimits {
		if u == nil {
			continue
		}
		if _, err := u.GetRlimit(); err != nil {
			return nil, errs.As(errs.Invalid, err)
		}
		if u.Soft > u.Hard && u.Hard >= 0 {
			return nil, errs.New(errs.Invalid, "ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return out, nil
}

// process is what a container's first process and an exec have in common.
func process(c *container.Config, h *container.HostConfig, k *Kernel, sec *security, a account) (*specs.Process, error) {
	limits, err := rlimits(h.Ulimits)
	if err != nil {
		return nil, err
	}
	adj := h.OomScoreAdj
	p := &specs.Process{
		User: a.User, Cwd: c.WorkingDir, Rlimits: limits,
		NoNewPrivileges: sec.noNewPrivileges, ApparmorProfile: sec.appArmorProfile(h.Privileged, k), OOMScoreAdj: &adj,
	}
	p.User.Umask = h.Umask
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	return p, nil
}

func box(size [2]uint) *specs.Box {
	if size[0] == 0 && size[1] == 0 {
		return nil
	}
	return &specs.Box{Height: size[0], Width: size[1]}
}
