package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Path is where the group is below each hierarchy's mount point.
func (c *Cgroup) Path() string { return c.path }

// Mount is the group's folder in one hierarchy, for the container's own view of its cgroups.
type Mount struct {
	Host        string   // absolute folder on the host; of v1, a thread that writes "0" to its file tasks is in
	Name        string   // name of the folder below /sys/fs/cgroup: "memory", "cpu,cpuacct", "systemd"; "" for a pure v2 host
	Controllers []string // of v1, more than one if they are mounted together: each gets a symlink to Name
	Options     string   // mount options that make this hierarchy: "memory", "name=systemd"; "" for v2
	V2          bool
}

// Paths are the group's folders, in a stable order. v2 is named "unified" on a hybrid host.
func (c *Cgroup) Paths() []Mount {
	var out []Mount
	for _, p := range c.parts {
		m := Mount{Host: p.dir, Name: filepath.Base(p.hierarchy.dir), V2: p.hierarchy.v2}
		switch {
		case m.V2 && c.host.Version() == 2:
			m.Name = ""
		case m.V2:
			m.Name = "unified"
		case p.named != "":
			m.Options = "name=" + p.named
		default:
			m.Controllers, m.Options = p.controllers, strings.Join(p.controllers, ",")
		}
		out = append(out, m)
	}
	return out
}

// Dir is the group's folder of v2, for clone3's CLONE_INTO_CGROUP, or nil if v2 is not mounted. The caller closes it.
func (c *Cgroup) Dir() (*os.File, error) {
	p, ok := c.v2()
	if !ok {
		return nil, nil
	}
	return openRaw(p.dir, unix.O_PATH|unix.O_DIRECTORY)
}

// openRaw keeps the descriptor away from Go's poller, which would ask the kernel about it for nothing.
func openRaw(name string, flags int) (*os.File, error) {
	fd, err := retryOpen(name, flags)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Add puts a process into the group, in all hierarchies.
func (c *Cgroup) Add(pid int) error {
	for _, p := range c.parts {
		if err := write(p.dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("add process %d to cgroup %s: %w", pid, c.path, err)
		}
	}
	return nil
}

// Procs are the processes in the group and below it, in our pid namespace, sorted. A group that is gone has none.
func (c *Cgroup) Procs() ([]int, error) {
	var out []int
	for _, p := range c.witnesses() {
		pids, err := procsBelow(p.dir)
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s: %w", c.path, err)
		}
		out = append(out, pids...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// witnesses are the folders that tell the group's processes: v2's, and one of v1 for those that were moved there alone.
func (c *Cgroup) witnesses() []part {
	var out []part
	if p, ok := c.v2(); ok {
		out = append(out, p)
	}
	for _, p := range c.parts {
		if !p.hierarchy.v2 {
			return append(out, p)
		}
	}
	return out
}

func procsBelow(dir string) ([]int, error) {
	s, err := read(dir, "cgroup.procs")
	if gone(err) {
		return nil, nil
	}
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // a threaded group lists its processes at its root
		return nil, err
	}
	var out []int
	for f := range strings.FieldsSeq(s) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 { // 0: outside of our pid namespace
			out = append(out, pid)
		}
	}
	subs, err := subdirs(dir)
	if err != nil {
		return nil, err
	}
	for _, sub := range subs {
		more, err := procsBelow(sub)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// gone says that a folder vanished while it was read.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// subdirs are the groups directly below a folder.
func subdirs(dir string) ([]string, error) {
	// A folder's link count is 2 more than its sub-folders: a leaf, the usual case, needs no reading.
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, err
	}
	if st.Nlink == 2 {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if gone(err) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, err
}

// pollEvery is how often a state that the kernel reaches by itself is asked for.
const pollEvery = 2 * time.Millisecond

// wait polls until done says so.
func wait(ctx context.Context, done func() (bool, error)) error {
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollEvery):
		}
	}
}

// Kill ends all processes in the group and below with SIGKILL and waits until they are gone (or are zombies that their
// parents have not reaped). With v2 the kernel does it at once; else the group is frozen first, so that no
// fork escapes. A group without processes is fine.
func (c *Cgroup) Kill(ctx context.Context) error {
	frozen := false
	if p, ok := c.v2(); ok {
		err := write(p.dir, "cgroup.kill", "1") // Linux 5.14
		if err != nil && !gone(err) {
			return fmt.Errorf("kill cgroup %s: %w", c.path, err)
		}
		frozen = err != nil && exists(p.dir) && c.Freeze(ctx) == nil
	} else {
		frozen = c.Freeze(ctx) == nil // an unfreezable group is killed all the same
	}
	err := wait(ctx, func() (bool, error) {
		pids, err := c.Procs()
		if err != nil {
			return false, err
		}
		pids = slices.DeleteFunc(pids, zombie)
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("process %d: %w", pid, err)
			}
		}
		if frozen { // v1's freezer holds even the killed until it thaws
			frozen = false
			return false, c.Thaw(ctx)
		}
		return len(pids) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("kill cgroup %s: %w", c.path, err)
	}
	return nil
}

func exists(dir string) bool { _, err := os.Lstat(dir); return err == nil }

// zombie says that a process is dead already (cgroup v1 lists it until it is reaped).
func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	s := string(b)
	i := strings.LastIndexByte(s, ')') // the name may hold anything
	return i >= 0 && i+2 < len(s) && (s[i+2] == 'Z' || s[i+2] == 'X')
}

// Freeze stops all processes of the group (docker pause) and returns when they stand.
func (c *Cgroup) Freeze(ctx context.Context) error {
	if err := c.freezer(ctx, true); err != nil {
		return fmt.Errorf("freeze cgroup %s: %w", c.path, err)
	}
	return nil
}

// Thaw lets a frozen group go on.
func (c *Cgroup) Thaw(ctx context.Context) error {
	if err := c.freezer(ctx, false); err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", c.path, err)
	}
	return nil
}

func (c *Cgroup) freezer(ctx context.Context, on bool) error {
	if p, ok := c.v2(); ok {
		if err := write(p.dir, "cgroup.freeze", pick(on, "1", "0")); err != nil {
			return err
		}
		err := wait(ctx, func() (bool, error) {
			ev, err := readPairs(p.dir, "cgroup.events")
			return ev["frozen"] == 1 == on || ev["populated"] == 0, err
		})
		if err != nil && on {
			_ = write(p.dir, "cgroup.freeze", "0") // half frozen is worse than not
		}
		return err
	}
	p, ok := c.part("freezer")
	if !ok {
		return errors.New("neither cgroup v2 nor the freezer controller is mounted")
	}
	want := pick(on, "FROZEN", "THAWED")
	err := wait(ctx, func() (bool, error) {
		if err := write(p.dir, "freezer.state", want); err != nil { // again each time: a fork may have slipped through
			return false, err
		}
		s, err := read(p.dir, "freezer.state")
		return s == want, err
	})
	if err != nil && on {
		_ = write(p.dir, "freezer.state", "THAWED")
	}
	return err
}

// Remove removes the group's folders and all below them. It tries again while the kernel says that they are busy (the
// last process is just going), until ctx ends; living processes are never killed here. A group that is gone is fine.
func (c *Cgroup) Remove(ctx context.Context) error {
	delay := time.Millisecond
	for {
		var busy error
		for _, p := range c.parts {
			if err := removeTree(p.dir); err != nil {
				busy = fmt.Errorf("remove cgroup %s: %w", p.dir, err)
				if !errors.Is(err, unix.EBUSY) {
					return busy
				}
			}
		}
		if busy == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", busy, context.Cause(ctx))
		case <-time.After(delay):
			delay = min(2*delay, 50*time.Millisecond)
		}
	}
}

// removeTree removes a folder and those below it. It is no error if there is none.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	subs, serr := subdirs(dir)
	if serr != nil {
		return serr
	}
	if len(subs) == 0 {
		return err
	}
	for _, sub := range subs {
		if err := removeTree(sub); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
