package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
)

// opener opens what a program's slots stand for, and remembers what it opened.
type opener struct {
	spec        *specs.Spec
	root        *os.File // detached mount of the root file system
	netNS       *os.File
	base        *os.File
	cgroup      *cgroup.Cgroup
	stdio       [3]*os.File
	devPTS      *os.File
	preserved   []*os.File
	beforePivot *Pause
	gate        *Gate
	pidfd       *os.File
	binds       []*os.File // by the index of the specification's mounts

	owned []*os.File
}

func (o *opener) keep(f *os.File) *os.File {
	o.owned = append(o.owned, f)
	return f
}

func (o *opener) close() {
	for _, f := range o.owned {
		_ = f.Close() // nothing was written through it
	}
	o.owned = nil
}

// open opens a file outside of Go's poller.
func (o *opener) open(name string, flags int) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Open(name, flags|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return o.keep(os.NewFile(uintptr(fd), name)), nil
}

// retry repeats a call that a signal interrupts.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// tree opens a part of the host's file system as a detached mount.
func (o *opener) tree(name string, rec bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if rec {
		flags |= unix.AT_RECURSIVE
	}
	open := func(name string) (int, error) {
		return retry(func() (int, error) { return unix.OpenTree(unix.AT_FDCWD, name, flags) })
	}
	fd, err := -1, error(nil)
	if pid, inside, ok := foreign(name); ok {
		onOtherThread(func() { fd, err = inMountNamespace(pid, func() (int, error) { return open(inside) }) })
	} else {
		fd, err = open(name)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open_tree", Path: name, Err: err}
	}
	return o.keep(os.NewFile(uintptr(fd), name)), nil
}

// foreign says whether a path leads into the mount namespace of another process (/proc/PID/root/…). The kernel lets a part of it
// be opened only by who is in that namespace.
func foreign(name string) (pid, inside string, ok bool) {
	rest, ok := strings.CutPrefix(filepath.Clean(name), "/proc/")
	if !ok {
		return "", "", false
	}
	pid, rest, ok = strings.Cut(rest, "/")
	if _, err := strconv.ParseUint(pid, 10, 31); err != nil || !ok {
		return "", "", false
	}
	inside, ok = strings.CutPrefix(rest, "root")
	return pid, "/" + strings.TrimPrefix(inside, "/"), ok && (inside == "" || inside[0] == '/')
}

// inMountNamespace changes this thread for good.
func inMountNamespace(pid string, do func() (int, error)) (int, error) {
	ns, err := unix.Open("/proc/"+pid+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("mount namespace of process %s: %w", pid, err)
	}
	defer func() { _ = unix.Close(ns) }()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return -1, fmt.Errorf("unshare the thread's folders: %w", err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("join the mount namespace of process %s: %w", pid, err)
	}
	return do()
}

// treeOf is tree for an open file.
func (o *opener) treeOf(f *os.File) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open_tree", Path: f.Name(), Err: err}
	}
	return o.keep(os.NewFile(uintptr(fd), f.Name())), nil
}

// rootMount is the root file system as a detached mount.
func (o *opener) rootMount() (*os.File, error) {
	if o.root != nil {
		return o.root, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(o.spec.Root.Path, &st); err != nil {
		return nil, errs.New(errs.Invalid, "root file system: %w", &fs.PathError{Op: "stat", Path: o.spec.Root.Path, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, errs.New(errs.Invalid, "root file system %s is not a folder", o.spec.Root.Path)
	}
	f, err := o.tree(o.spec.Root.Path, true)
	if err != nil {
		return nil, fmt.Errorf("root file system: %w", err)
	}
	o.root = f
	return f, nil
}

// openBinds opens the sources of all bind mounts and says which are no folders.
func (o *opener) openBinds() (files map[string]bool, err error) {
	files = map[string]bool{}
	o.binds = make([]*os.File, len(o.spec.Mounts))
	for i := range o.spec.Mounts {
		m := &o.spec.Mounts[i]
		opt, err := parseOptions(m)
		if err != nil || !opt.bind || m.Source == "" {
			continue // compile says what is wrong
		}
		src := m.Source
		if !filepath.IsAbs(src) {
			return nil, errs.New(errs.Invalid, "source %q of the mount on %s is not absolute", src, m.Destination)
		}
		f, err := o.tree(src, opt.rec)
		if err != nil {
			class := errs.Internal
			if errors.Is(err, unix.ENOENT) {
				class = errs.Invalid
			}
			return nil, errs.New(class, "mount source of %s: %w", m.Destination, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return nil, fmt.Errorf("mount source %s: %w", src, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			files[src] = true
		}
		o.binds[i] = f
	}
	return files, nil
}

func (o *opener) bind(i int) (*os.File, error) { return o.binds[i], nil }

// cgroupDir is the cgroup v2 folder.
func (o *opener) cgroupDir() (*os.File, error) {
	f, err := o.cgroup.Dir()
	if err != nil {
		return nil, err
	}
	return o.keep(f), nil
}

// namespace opens a namespace file and checks that it is of the wanted type.
func (o *opener) namespace(name string, flag uint64) (*os.File, error) {
	f, err := o.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, errs.As(errs.Invalid, fmt.Errorf("namespace: %w", err))
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s is not a namespace: %w", name, err)
	}
	if uint64(kind) != flag {
		return nil, errs.New(errs.Invalid, "namespace %s is of another type than the specification says", name)
	}
	return f, nil
}

// fill opens all slots.
func (o *opener) fill(wants []want, names []string) ([]*os.File, error) {
	files := make([]*os.File, len(wants))
	for i, w := range wants {
		f, err := w(o)
		if err != nil {
			return nil, err
		}
		if f == nil {
			return nil, errs.New(errs.Internal, "nothing to put into slot %d (%s)", i, names[i])
		}
		files[i] = f
	}
	return files, nil
}
