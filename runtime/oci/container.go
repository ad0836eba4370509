package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
	"skiff/runtime/launch"
)

// Runtime is a root folder with containers.
type Runtime struct {
	Root string // absolute path

	memory launch.Memory
}

// Container is what create records of a container.
type Container struct {
	ID        string
	Bundle    string // absolute path
	PID       int    // 0 while it is being created
	StartTime uint64 // of the process, in clock ticks after boot: with PID an identity
	Created   time.Time
	Cgroup    string      `json:",omitempty"` // path in each hierarchy, "" for none
	Spec      *specs.Spec // as it was at create: later changes of config.json have no effect
	Console   bool        `json:",omitempty"`

	rt   *Runtime
	lock *os.File
}

var validID = regexp.MustCompile(`^[\w+.-]+$`)

func (r *Runtime) folder(id string) (string, error) {
	if !validID.MatchString(id) || len(id) > 255 || id == "." || id == ".." {
		return "", errs.New(errs.Invalid, "invalid container id format: %q", id)
	}
	return filepath.Join(r.Root, id), nil
}

func (c *Container) file(name string) string { return filepath.Join(c.rt.Root, c.ID, name) }

// make makes the folder of a new container, locked.
func (r *Runtime) make(id, bundle string, spec *specs.Spec) (*Container, error) {
	dir, err := r.folder(id)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.Root, 0o700); err != nil {
		return nil, fmt.Errorf("make the runtime's root folder: %w", err)
	}
	if err := os.Mkdir(dir, 0o711); errors.Is(err, fs.ErrExist) {
		return nil, errs.New(errs.Conflict, "container with id exists: %s", id)
	} else if err != nil {
		return nil, fmt.Errorf("make the container's folder: %w", err)
	}
	c := &Container{ID: id, Bundle: bundle, Spec: spec, Created: time.Now().UTC(), rt: r}
	if err := errors.Join(c.acquire(), c.save()); err != nil {
		c.release()
		_ = os.RemoveAll(dir) // the first error counts
		return nil, err
	}
	return c, nil
}

// acquire waits for the container's lock.
func (c *Container) acquire() error {
	f, err := os.OpenFile(c.file("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock container %s: %w", c.ID, err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			c.lock = f
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return fmt.Errorf("lock container %s: %w", c.ID, err)
		}
	}
}

func (c *Container) release() {
	if c.lock != nil {
		_ = unix.Flock(int(c.lock.Fd()), unix.LOCK_UN) // a child may have a copy of the descriptor
		_ = c.lock.Close()
		c.lock = nil
	}
}

func (c *Container) save() error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode the state of %s: %w", c.ID, err)
	}
	tmp := c.file("state.json.new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write the state of %s: %w", c.ID, err)
	}
	if err := os.Rename(tmp, c.file("state.json")); err != nil {
		return fmt.Errorf("write the state of %s: %w", c.ID, err)
	}
	return nil
}

// Load finds a container. It is NotFound if there is none.
func (r *Runtime) Load(id string) (*Container, error) {
	dir, err := r.folder(id)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Stat(dir); serr == nil { // killed while it was being made
			return &Container{ID: id, rt: r, Spec: &specs.Spec{Version: specs.Version}}, nil
		}
		return nil, errs.New(errs.NotFound, "container does not exist: %s", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", id, err)
	}
	c := &Container{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("decode the state of %s: %w", id, err)
	}
	c.rt, c.ID = r, id
	if c.Spec == nil {
		c.Spec = &specs.Spec{Version: specs.Version}
	}
	return c, nil
}

// locked finds a container and locks it.
func (r *Runtime) locked(id string) (*Container, error) {
	c, err := r.Load(id)
	if err != nil {
		return nil, err
	}
	if err := c.acquire(); err != nil {
		return nil, err
	}
	again, err := r.Load(id) // it may have changed while we waited
	if err != nil {
		c.release()
		return nil, err
	}
	again.lock = c.lock
	return again, nil
}

// List finds all containers, sorted by id.
func (r *Runtime) List() ([]*Container, error) {
	entries, err := os.ReadDir(r.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var out []*Container
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		c, err := r.Load(e.Name())
		if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Invalid) {
			continue // gone meanwhile, or nothing of ours
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// Status says what the container is doing, as the OCI specification names it.
func (c *Container) Status() specs.ContainerState {
	switch {
	case c.PID == 0 && c.busy():
		return specs.StateCreating
	case !c.alive():
		return specs.StateStopped
	case exists(c.file("gate")):
		return specs.StateCreated
	}
	return specs.StateRunning
}

// busy says whether somebody else holds the container's lock.
func (c *Container) busy() bool {
	if c.lock != nil {
		return true
	}
	f, err := os.Open(c.file("lock"))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only looked at
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func exists(name string) bool { return unix.Access(name, unix.F_OK) == nil }

// alive says whether the container's first process runs.
func (c *Container) alive() bool {
	if c.PID == 0 {
		return false
	}
	state, start, err := processStat(c.PID)
	return err == nil && start == c.StartTime && state != 'Z' && state != 'X'
}

// processStat reads the state letter and the start time of a process (fields 3 and 22 of /proc/PID/stat).
func processStat(pid int) (state byte, start uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	s := string(b)
	i := strings.LastIndexByte(s, ')') // the name may hold anything
	fields := strings.Fields(s[i+1:])
	if i < 0 || len(fields) < 20 {
		return 0, 0, fmt.Errorf("unexpected text in /proc/%d/stat", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], start, err
}

// pidfd opens the container's process, NotFound if it is gone.
func (c *Container) pidfd() (*os.File, error) {
	fd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil || !c.alive() { // looked at after it was opened: the pid can't have been used again then
		if err == nil {
			_ = unix.Close(fd)
		}
		return nil, errs.New(errs.NotFound, "container not running")
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// State is the container's state in the OCI specification's form.
func (c *Container) State() *specs.State {
	s := &specs.State{Version: c.Spec.Version, ID: c.ID, Status: c.Status(), Bundle: c.Bundle, Annotations: c.Spec.Annotations}
	if s.Status != specs.StateStopped {
		s.Pid = c.PID
	}
	return s
}

// cgroup finds the container's control group, nil if it has none (any more).
func (c *Container) cgroup() (*cgroup.Cgroup, error) {
	if c.Cgroup == "" {
		return nil, nil
	}
	host, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	g, err := host.Open(c.Cgroup)
	if errs.Is(err, errs.NotFound) {
		return nil, nil
	}
	return g, err
}

// Processes are the pids of all processes in the container, in our pid namespace.
func (c *Container) Processes() ([]int, error) {
	g, err := c.cgroup()
	if err != nil {
		return nil, err
	}
	if g != nil {
		return g.Procs()
	}
	if c.alive() {
		return []int{c.PID}, nil
	}
	return nil, nil
}

// ownPIDs says whether the container has a pid namespace of its own: then all its processes end with the first.
func (c *Container) ownPIDs() bool {
	return c.Spec.Linux != nil && slices.ContainsFunc(c.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace && n.Path == ""
	})
}
