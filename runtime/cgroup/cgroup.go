package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// Cgroup is one container's control group in all hierarchies of the host. Its methods may be called by several
// goroutines, but for Update and Remove.
type Cgroup struct {
	host  Host
	path  string // below each mount point, absolute
	parts []part
}

// part is the group's folder in one hierarchy.
type part struct {
	hierarchy
	dir string
}

// noneMounted is the only warning when there are no cgroups at all.
const noneMounted = "No cgroup is mounted on this machine: limits, statistics and device rules are discarded."

// Create makes the group at the given path (absolute, below each hierarchy's mount point; "/skiff/ID") and gives it
// its limits and device rules; nil resources are none. What is left of a dead group with this path is removed first; a
// living one is a Conflict. The warnings tell what the kernel can't do. On error nothing is left behind.
func (h Host) Create(path string, r *specs.LinuxResources) (*Cgroup, []string, error) {
	path, err := cleanPath(path)
	if err != nil {
		return nil, nil, err
	}
	c := &Cgroup{host: h, path: path}
	if len(h.hiers) == 0 {
		return c, []string{noneMounted}, nil
	}
	r, warn := h.support.Filter(r)
	for _, hi := range h.hiers {
		if !hi.always {
			continue
		}
		if err := c.addPart(hi); err != nil {
			c.undo()
			return nil, nil, err
		}
	}
	more, err := c.apply(r)
	if err != nil {
		c.undo()
		return nil, nil, err
	}
	return c, append(warn, more...), nil
}

// Open finds a group that was created before. One that has no folder (any more) is NotFound.
func (h Host) Open(path string) (*Cgroup, error) {
	path, err := cleanPath(path)
	if err != nil {
		return nil, err
	}
	c := &Cgroup{host: h, path: path}
	for _, hi := range h.hiers {
		p := part{hi, filepath.Join(hi.dir, path)}
		if _, err := os.Lstat(p.dir); err == nil {
			c.parts = append(c.parts, p)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open cgroup %s: %w", path, err)
		}
	}
	if len(c.parts) == 0 && len(h.hiers) > 0 {
		return nil, errs.New(errs.NotFound, "no such cgroup: %s", path)
	}
	return c, nil
}

// List tells the names of the groups directly below path ("/skiff"), in any hierarchy, for reconciling at start.
func (h Host) List(path string) ([]string, error) {
	path, err := cleanPath(path)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, hi := range h.hiers {
		entries, err := os.ReadDir(filepath.Join(hi.dir, path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list cgroups below %s: %w", path, err)
		}
		for _, e := range entries {
			if e.IsDir() {
				out = append(out, e.Name())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func cleanPath(p string) (string, error) {
	if slices.Contains(strings.Split(p, "/"), "..") || strings.ContainsRune(p, 0) {
		return "", errs.New(errs.Invalid, "cgroup path %q must not contain .. or a zero byte", p)
	}
	if p = path.Clean("/" + p); p == "/" {
		return "", errs.New(errs.Invalid, "cgroup path must not be the root")
	}
	return p, nil
}

// addPart makes the group's folder in a hierarchy.
func (c *Cgroup) addPart(hi hierarchy) error {
	p := part{hi, filepath.Join(hi.dir, c.path)}
	err := unix.Mkdir(p.dir, 0o755)
	if errors.Is(err, unix.ENOENT) {
		if err = os.MkdirAll(filepath.Dir(p.dir), 0o755); err == nil {
			err = unix.Mkdir(p.dir, 0o755)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		if err = removeTree(p.dir); errors.Is(err, unix.EBUSY) {
			return errs.New(errs.Conflict, "cgroup %s exists and has processes", p.dir)
		}
		if err == nil {
			err = unix.Mkdir(p.dir, 0o755)
		}
	}
	if err != nil {
		return fmt.Errorf("make cgroup %s: %w", p.dir, err)
	}
	c.parts = append(c.parts, p)
	switch {
	case hi.v2:
		return c.enable(p)
	case slices.Contains(hi.controllers, "cpuset"):
		return inheritCpuset(hi.dir, p.dir)
	}
	return nil
}

// enable hands the v2 controllers down to the group's folder. Those that can't be handed down (a parent with processes
// of its own, as the root of a container) are reported by apply, when a limit needs them.
func (c *Cgroup) enable(p part) error {
	if len(p.controllers) == 0 {
		return nil
	}
	dirs := []string{p.hierarchy.dir}
	for dir := filepath.Dir(p.dir); len(dir) > len(p.hierarchy.dir); dir = filepath.Dir(dir) {
		dirs = slices.Insert(dirs, 1, dir)
	}
	for _, dir := range dirs {
		have, err := readFields(dir, "cgroup.subtree_control")
		if err != nil {
			return err
		}
		for _, ctl := range p.controllers {
			if ctl == "blkio" {
				ctl = "io"
			}
			if !slices.Contains(have, ctl) {
				// One by one: a single unavailable controller would make the whole write fail.
				_ = write(dir, "cgroup.subtree_control", "+"+ctl)
			}
		}
	}
	return nil
}

// inheritCpuset fills the CPUs and memory nodes of v1 folders from root down to dir: empty ones take no process.
func inheritCpuset(root, dir string) error {
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		return err
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		up := root
		val, err := read(up, file)
		if err != nil {
			return err
		}
		for seg := range strings.SplitSeq(rel, "/") {
			up = filepath.Join(up, seg)
			have, err := read(up, file)
			if err != nil {
				return err
			}
			if have == "" {
				if err := write(up, file, val); err != nil {
					return err
				}
				have = val
			}
			val = have
		}
	}
	return nil
}

// part is the group's folder in the hierarchy of a controller.
func (c *Cgroup) part(controller string) (part, bool) {
	for _, p := range c.parts {
		if slices.Contains(p.controllers, controller) {
			return p, true
		}
	}
	return part{}, false
}

// v2 is the group's folder of cgroup v2, if that is mounted.
func (c *Cgroup) v2() (part, bool) {
	for _, p := range c.parts {
		if p.hierarchy.v2 {
			return p, true
		}
	}
	return part{}, false
}

// undo removes what a failed Create made.
func (c *Cgroup) undo() {
	for _, p := range c.parts {
		_ = removeTree(p.dir) // the error of Create is the one to report
	}
}
