package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// overlay is what the kernel's overlayfs can do here, found out once at Open.
type overlay struct {
	// append: lower folders are given one by one ("lowerdir+", Linux 6.7). Else they go into one string, for which
	// fsconfig(2) has no room, and mount(2) is used.
	append bool
}

// probeOverlay mounts once in dir, and says clearly why it can't be done.
func probeOverlay(ctx context.Context, dir string) (overlay, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return overlay{}, fmt.Errorf("asking for the file system of %s: %w", dir, err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return overlay{}, errs.New(errs.Invalid, "%s is itself on overlayfs (a container's file system?), on which containers' layers can't be: use a data root on ext4, xfs or btrfs, such as a volume", dir)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return overlay{}, errs.New(errs.Invalid, "%s is on a read-only file system", dir)
	}
	p, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return overlay{}, err
	}
	defer os.RemoveAll(p)
	sn := Snapshot{Upper: p + "/fs", Work: p + "/work"}
	for _, l := range []string{"a", "b"} {
		sn.Lower = append(sn.Lower, filepath.Join(p, l))
	}
	for _, d := range append([]string{sn.Upper, sn.Work}, sn.Lower...) {
		if err := os.Mkdir(d, 0o700); err != nil {
			return overlay{}, err
		}
	}
	if err := unix.Setxattr(sn.Upper, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return overlay{}, errs.New(errs.Invalid, "the file system of %s can't hold overlayfs's attributes (trusted.overlay.*): %w", dir, err)
	}
	var first error
	for _, o := range []overlay{{append: true}, {append: false}} {
		f, err := o.mount(ctx, sn)
		if err == nil {
			f.Close()
			return o, nil
		}
		if first == nil {
			first = err
		}
	}
	if errors.Is(first, unix.ENODEV) {
		return overlay{}, errs.New(errs.Invalid, "the kernel has no overlayfs (modprobe overlay?): %w", first)
	}
	return overlay{}, errs.New(errs.Invalid, "overlayfs can't be used in %s: %w", dir, first)
}

// Mount gives a detached mount of the snapshot, not yet visible anywhere: move_mount(2) puts it in its place. It vanishes
// when the file is closed and no mount of it is left. A volatile snapshot is mounted so that nothing in it is ever synced.
func (s *Store) Mount(ctx context.Context, sn Snapshot) (*os.File, error) {
	if sn.Chain != "" && len(sn.Lower) == 0 {
		return nil, errs.New(errs.NotFound, "mounting snapshot %s: its layers %s are not in the store", sn.ID, sn.Chain)
	}
	if f := s.takeMount(sn.ID); f != nil {
		return f, nil
	}
	f, err := s.overlay.mount(ctx, sn)
	if errors.Is(err, unix.EINVAL) && sn.Volatile {
		// A volatile mount leaves a mark, so that after a crash nobody takes for whole what was never synced. Here it
		// means that the container ran before: its snapshot does not outlive the machine anyway.
		if os.RemoveAll(sn.Work+"/work/incompat") == nil {
			f, err = s.overlay.mount(ctx, sn)
		}
	}
	if err != nil {
		return nil, spaceErr(fmt.Errorf("mounting snapshot %s: %w", sn.ID, err))
	}
	return f, nil
}

func (o overlay) mount(ctx context.Context, sn Snapshot) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if len(sn.Lower) == 0 { // an empty image: overlayfs wants a lower folder, an empty one is at hand
		empty := filepath.Join(filepath.Dir(sn.Work), "empty")
		if err := os.Mkdir(empty, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		sn.Lower = []string{empty}
	}
	if !o.append {
		return mountByString(sn)
	}
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fd)
	c := fsContext{fd: fd}
	c.set("source", "overlay")
	for _, l := range sn.Lower {
		c.folder("lowerdir+", l)
	}
	c.folder("upperdir", sn.Upper)
	c.folder("workdir", sn.Work)
	for _, kv := range options(sn) {
		c.set(kv[0], kv[1])
	}
	if c.err == nil {
		if err := unix.FsconfigCreate(fd); err != nil {
			c.fail("creating the mount", err)
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return os.NewFile(uintptr(m), "overlay:"+sn.ID), nil
}

// options are overlayfs's, whatever the kernel's own defaults: a snapshot must be readable as a plain layer by anybody.
func options(sn Snapshot) [][2]string {
	opts := [][2]string{{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "off"}}
	if sn.Volatile {
		opts = append(opts, [2]string{"volatile", ""})
	}
	return opts
}

// fsContext collects the first error of a series of fsconfig calls, with what the kernel says about it.
type fsContext struct {
	fd  int
	err error
}

func (c *fsContext) set(key, value string) {
	if c.err != nil {
		return
	}
	var err error
	if value == "" {
		err = unix.FsconfigSetFlag(c.fd, key)
	} else {
		err = unix.FsconfigSetString(c.fd, key, value)
	}
	if err != nil {
		c.fail(key+"="+value, err)
	}
}

// maxFsconfig is the length that fsconfig(2) takes for a string, with its NUL.
const maxFsconfig = 256

// folder sets a path. A long one is given through a descriptor, which the kernel resolves at once.
func (c *fsContext) folder(key, path string) {
	// A colon is a part of the name in all of them; backslashes are taken for escapes in some, in some kernels.
	if c.err != nil || len(path) < maxFsconfig && !strings.Contains(path, `\`) {
		c.set(key, path)
		return
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		c.err = fmt.Errorf("opening %s: %w", path, err)
		return
	}
	defer unix.Close(fd)
	c.set(key, "/proc/self/fd/"+strconv.Itoa(fd))
}

func (c *fsContext) fail(what string, err error) {
	var msgs []string
	buf := make([]byte, 1024)
	for len(msgs) < 8 {
		n, err := unix.Read(c.fd, buf)
		if err != nil || n <= 0 {
			break
		}
		_, m, _ := strings.Cut(string(buf[:n]), " ") // after the severity
		msgs = append(msgs, strings.TrimSpace(m))
	}
	c.err = fmt.Errorf("overlayfs: %s: %w", what, err)
	if len(msgs) > 0 {
		c.err = fmt.Errorf("overlayfs: %s: %w (%s)", what, err, strings.Join(msgs, "; "))
	}
}

// mountByString is for kernels before 6.7: mount(2) in a mount namespace of a thread's own, then open_tree(2) takes a
// detached copy. The lower folders are named through descriptors, so that 240 of them fit into mount's one page.
func mountByString(sn Snapshot) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	ch := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its mount namespace with it
		f, err := mountOnThread(sn)
		ch <- result{f, err}
	}()
	r := <-ch
	return r.f, r.err
}

func mountOnThread(sn Snapshot) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	var lower []string
	for _, l := range sn.Lower {
		fd, err := unix.Open(l, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", l, err)
		}
		defer unix.Close(fd)
		lower = append(lower, strconv.Itoa(fd))
	}
	target := filepath.Dir(sn.Work)
	if err := unix.Chdir("/proc/thread-self/fd"); err != nil { // this thread's alone, by CLONE_FS
		return nil, err
	}
	escape := strings.NewReplacer(`\`, `\\`, ",", `\,`)
	data := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + escape.Replace(sn.Upper) + ",workdir=" + escape.Replace(sn.Work)
	for _, kv := range options(sn) {
		data += "," + strings.TrimSuffix(kv[0]+"="+kv[1], "=")
	}
	if len(data) >= os.Getpagesize() {
		return nil, errs.New(errs.Invalid, "%d layers are too many for this kernel's overlayfs; Linux 6.7 has no such limit", len(sn.Lower))
	}
	if err := unix.Mount("overlay", target, "overlay", 0, data); err != nil {
		return nil, fmt.Errorf("overlayfs: %w", err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, target, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	return os.NewFile(uintptr(fd), "overlay:"+sn.ID), nil
}
