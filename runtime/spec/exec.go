package spec

import (
	"os"
	"path"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
)

// ExecInput is everything that a further process of a running container is made of.
type ExecInput struct {
	Config     *container.Config
	HostConfig *container.HostConfig
	Request    container.ExecCreateRequest
	Kernel     Kernel
	// Root is a descriptor of the container's root folder (/proc/PID/root), for its passwd and group files.
	Root *os.File
}

// ExecProcess makes the process of an exec: the container's user, environment, folder, limits and capabilities, where the
// request says nothing else. A privileged exec has all capabilities. (Its seccomp profile is the container's, see Seccomp.)
func ExecProcess(in ExecInput) (*specs.Process, error) {
	c, h, r := in.Config, in.HostConfig, in.Request
	if len(r.Cmd) == 0 {
		return nil, errs.New(errs.Invalid, "No exec command specified")
	}
	if r.WorkingDir != "" && !path.IsAbs(r.WorkingDir) {
		return nil, errs.New(errs.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", r.WorkingDir)
	}
	name := r.User
	if name == "" {
		name = c.User
	}
	a, err := resolveUser(in.Root, name, h.GroupAdd)
	if err != nil {
		return nil, err
	}
	sec, _, err := parseSecurity(h.SecurityOpt, &in.Kernel)
	if err != nil {
		return nil, err
	}
	p, err := process(c, h, &in.Kernel, sec, a)
	if err != nil {
		return nil, err
	}
	if r.WorkingDir != "" {
		p.Cwd = r.WorkingDir
	}
	p.Terminal = r.Tty
	if r.Tty && r.ConsoleSize != nil {
		p.ConsoleSize = box(*r.ConsoleSize)
	}
	p.Args = r.Cmd
	settings := make([]string, 0, len(c.Env)+len(r.Env))
	p.Env = environment(c, r.Tty, append(append(settings, c.Env...), r.Env...), a.home)
	caps, err := capabilities(h.CapAdd, h.CapDrop, h.Privileged || r.Privileged, &in.Kernel)
	if err != nil {
		return nil, err
	}
	p.Capabilities = ociCaps(caps)
	return p, nil
}
