package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// Update changes limits and device rules of a group, living or not; what the resources don't mention stays as it is.
// If the kernel refuses one of several limits those before it are in force.
func (c *Cgroup) Update(r *specs.LinuxResources) ([]string, error) {
	if len(c.parts) == 0 {
		return []string{noneMounted}, nil
	}
	r, warn := c.host.support.Filter(r)
	if r != nil && r.Memory != nil && r.Memory.CheckBeforeUpdate != nil && *r.Memory.CheckBeforeUpdate {
		if err := c.checkUsage(r.Memory); err != nil {
			return nil, err
		}
	}
	more, err := c.apply(r)
	return append(warn, more...), err
}

// checkUsage refuses a memory limit below what is used already: it would kill somebody at once.
func (c *Cgroup) checkUsage(m *specs.LinuxMemory) error {
	p, ok := c.part("memory")
	if !ok || m.Limit == nil || *m.Limit <= 0 {
		return nil
	}
	file := "memory.usage_in_bytes"
	if p.hierarchy.v2 {
		file = "memory.current"
	}
	used, err := readUint(p.dir, file)
	if err != nil {
		return err
	}
	if used > uint64(*m.Limit) {
		return errs.New(errs.Conflict, "memory limit %d of cgroup %s is below the %d bytes in use", *m.Limit, c.path, used)
	}
	return nil
}

// apply writes limits that Filter has let through. A file that is not there after all (a v2 controller that
// could not be handed down) is a warning.
func (c *Cgroup) apply(r *specs.LinuxResources) (warn []string, err error) {
	if r == nil {
		return nil, nil
	}
	onV2 := func(controller string) bool { hi, ok := c.host.home(controller); return ok && hi.v2 }
	all := settings(r, onV2)
	for i := 0; i < len(all); i++ {
		p, err := c.need(all[i].controller)
		if err != nil {
			return nil, err
		}
		err = p.set(all[i])
		if errors.Is(err, unix.EINVAL) && all[i].file == "memory.limit_in_bytes" && i+1 < len(all) && all[i+1].file == "memory.memsw.limit_in_bytes" {
			// The kernel wants limit <= memsw at any time: when both grow memsw goes first.
			if err = p.set(all[i+1]); err == nil {
				err = p.set(all[i])
				i++
			}
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			warn = append(warn, noKernel+all[i].file+" in cgroup "+c.path+". Limitation discarded.")
		case err != nil:
			return nil, fmt.Errorf("limit cgroup %s: %w", c.path, err)
		}
	}
	if len(r.Devices) > 0 {
		w, err := c.setDevices(r.Devices)
		if err != nil {
			return nil, fmt.Errorf("device rules of cgroup %s: %w", c.path, err)
		}
		warn = append(warn, w...)
	}
	return warn, c.setUnified(r.Unified)
}

// set writes one setting, or its fallback.
func (p part) set(s setting) error {
	err := write(p.dir, s.file, s.value)
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case s.orElse.nothing:
		return nil
	case s.orElse.file != "":
		return write(p.dir, s.orElse.file, s.orElse.value)
	}
	return err
}

// need is part, and makes the folder if the group has none in that hierarchy yet; the group's processes move in.
func (c *Cgroup) need(controller string) (part, error) {
	if p, ok := c.part(controller); ok {
		return p, nil
	}
	hi, ok := c.host.home(controller)
	if !ok { // Filter has looked before
		return part{}, errs.New(errs.Invalid, "cgroup controller %s is not mounted", controller)
	}
	members, err := c.Procs()
	if err != nil {
		return part{}, err
	}
	if err := c.addPart(hi); err != nil {
		return part{}, err
	}
	p, _ := c.part(controller)
	seen := map[int]bool{}
	for len(members) > 0 { // until no fork slipped through
		for _, pid := range members {
			seen[pid] = true
			if err := write(p.dir, "cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
				return part{}, fmt.Errorf("move process %d to cgroup %s: %w", pid, p.dir, err)
			}
		}
		if members, err = c.Procs(); err != nil {
			return part{}, err
		}
		members = slices.DeleteFunc(members, func(pid int) bool { return seen[pid] })
	}
	return p, nil
}

// setUnified writes the files of v2 that the specification names itself.
func (c *Cgroup) setUnified(files map[string]string) error {
	if len(files) == 0 {
		return nil
	}
	p, ok := c.v2()
	if !ok {
		return errs.New(errs.Invalid, "unified resources need cgroup v2, which is not mounted")
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if !unifiedFile(file) {
			return errs.New(errs.Invalid, "unified resource %q is not the name of a cgroup file", file)
		}
		err := write(p.dir, file, files[file])
		if errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.Invalid, "unified resource %s: the kernel has no such file, or its controller is not available in cgroup v2: %w", file, err)
		}
		if err != nil {
			return fmt.Errorf("unified resource: %w", err)
		}
	}
	return nil
}
