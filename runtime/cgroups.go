package runtime

import (
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
	"skiff/runtime/launch"
)

// mountCgroups shows the container its own control groups. On a pure v2 host that is the unified hierarchy itself. Else it is a tmpfs
// with a folder for each hierarchy: mounted anew in a cgroup namespace (whose root is the container's group), or a
// bind of the container's own folder, so that it sees no other group either way.
func (c *compiler) mountCgroups(dest string, m *specs.Mount, o *mountOptions) error {
	if len(c.opt.Cgroups) == 0 && !c.opt.CgroupV2 {
		return errs.New(errs.Invalid, "%s: the container has no cgroup to show", dest)
	}
	private := c.ns.own(specs.CgroupNamespace, unix.CLONE_NEWCGROUP)
	if len(c.opt.Cgroups) == 1 && c.opt.Cgroups[0].V2 && c.opt.Cgroups[0].Name == "" {
		c.cgroupView(c.opt.Cgroups[0], dest, private, o)
		c.own(dest, false)
		return nil
	}
	if m.Type == "cgroup2" {
		return errs.New(errs.Invalid, "%s: cgroup2 alone can't be shown on a host with cgroup v1 controllers", dest)
	}
	t := c.target(dest, false)
	if t.Kind == launch.Reg {
		return errs.New(errs.Invalid, "%s: cgroups can't be shown inside a bind mount", dest)
	}
	c.Do("mount a tmpfs for cgroups on "+dest, unix.SYS_MOUNT, c.Str("tmpfs"), t, c.Str("tmpfs"),
		launch.Int(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC), c.Str("mode=755"))
	c.own(dest, true)
	for _, g := range c.opt.Cgroups {
		at := dest + "/" + g.Name
		c.makeTarget(cwd(), at, false)
		c.cgroupView(g, at, private, o)
		for _, ctl := range g.Controllers {
			if strings.Contains(g.Name, ",") {
				c.Do("link "+dest+"/"+ctl, unix.SYS_SYMLINKAT, c.Str(g.Name), cwd(), c.Str(dest+"/"+ctl)).OK(unix.EEXIST)
			}
		}
	}
	if o.flags&unix.MS_RDONLY != 0 {
		c.Do("make "+dest+" read-only", unix.SYS_MOUNT, c.Str(""), c.Str(dest), empty(),
			launch.Int(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC), empty())
	}
	for _, s := range o.spread {
		c.Do("propagation of cgroups on "+dest, unix.SYS_MOUNT, c.Str(""), c.Str(dest), empty(), launch.Int(s), empty())
	}
	return nil
}

// cgroupView mounts one hierarchy.
func (c *compiler) cgroupView(g cgroup.Mount, at string, private bool, o *mountOptions) {
	kind := "cgroup"
	if g.V2 {
		kind = "cgroup2"
	}
	if private || g.V2 && g.Name == "" {
		if g.Name == "" {
			at2 := c.target(at, false)
			if at2.Kind == launch.Reg {
				c.Close(at2)
			}
		}
		c.Do("mount "+kind+" on "+at, unix.SYS_MOUNT, c.Str("cgroup"), c.Str(at), c.Str(kind), launch.Int(o.flags), c.dataArg(g.Options))
		return
	}
	s := c.slot(g.Host, func(op *opener) (*os.File, error) { return op.tree(g.Host, false) })
	set, _ := o.attrs()
	if !c.opt.NoSetattr {
		c.setattr(s, 0, set, 0, "attributes of "+at)
	}
	c.attach(s, c.Str(at), g.Host+" on "+at)
	if c.opt.NoSetattr && o.flags&unix.MS_RDONLY != 0 {
		c.makeReadonly(at, o.flags&bindFlags)
	}
}
