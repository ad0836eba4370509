package container

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/db"
	"skiff/event"
	"skiff/image"
	"skiff/internal/errs"
	"skiff/keeper"
	"skiff/layer"
	"skiff/network"
	"skiff/runtime/cgroup"
)

// The tests with real containers play the host in a network namespace of their own, see package network.
const insideEnv = "SKIFF_CONTAINER_TEST_HOST"

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) == "" && os.Geteuid() == 0 {
		cmd := osexec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), insideEnv+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	os.RemoveAll(keeperDir)
	os.Exit(code)
}

// keeperDir is where keeperProgram is.
var keeperDir string

// keeperProgram is built once for all tests.
var keeperProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "skiff-keeper-")
	if err != nil {
		return "", err
	}
	keeperDir = dir
	out := filepath.Join(dir, "skiff-keeper")
	cmd := osexec.Command("go", "build", "-o", out, "skiff/cmd/skiff-keeper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the keeper: %w: %s", err, b)
	}
	return out, nil
})

// oneImage is an image service with one image, "busybox".
type oneImage struct{ img image.Image }

func (o oneImage) Resolve(_ context.Context, ref string, _ *ocispec.Platform) (image.Image, error) {
	if ref == "busybox" || ref == o.img.ID.String() {
		return o.img, nil
	}
	return image.Image{}, errs.New(errs.NotFound, "No such image: %s", ref)
}

// rig is a manager with everything real below it.
type rig struct {
	*Manager
	t      testing.TB
	dir    string
	cfg    Config
	layers *layer.Store
	client *keeper.Client
	bus    *event.Bus
	nets   *network.Manager
	log    *slog.Logger
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	program, err := keeperProgram()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: t.TempDir()}
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r.layers, err = layer.Open(t.Context(), filepath.Join(r.dir, "layers"), layer.Options{Logger: log})
	must(err)
	t.Cleanup(func() { r.layers.Close() })
	img := busyboxImage(t, r.layers)
	must(os.Mkdir(filepath.Join(r.dir, "net"), 0o700))
	r.log = log
	t.Cleanup(func() { r.nets.Destroy(context.Background()) })
	r.client, err = keeper.Start(t.Context(), keeper.StartOptions{Program: program, ExecRoot: filepath.Join(r.dir, "keeper")})
	must(err)
	t.Cleanup(func() { r.client.Close() })
	host, err := cgroup.Detect()
	must(err)
	parent := fmt.Sprintf("/skiff-test-%d", os.Getpid())
	native, err := NewNative(NativeConfig{Cgroups: host, CgroupParent: parent, Log: log})
	must(err)
	t.Cleanup(func() {
		if g, err := host.Open(parent); err == nil {
			g.Remove(context.Background())
		}
	})
	r.bus = event.New(log)
	r.cfg = Config{
		Root: filepath.Join(r.dir, "containers"), Images: oneImage{img}, Layers: r.layers,
		Keeper: r.client, Exits: r.client.Exits(), Runtime: native, Events: r.bus, Log: log,
	}
	r.open()
	t.Cleanup(func() { r.clear() })
	return r
}

// open opens the databases and makes a manager, as a daemon does when it starts.
func (r *rig) open() {
	r.t.Helper()
	var err error
	r.nets, err = network.New(r.t.Context(), network.Config{StateDir: filepath.Join(r.dir, "net"), Log: r.log, Instance: "c0ffee"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.cfg.Networks = r.nets
	if r.cfg.Durable, err = db.Open(filepath.Join(r.dir, "skiff.db"), db.Options{}); err != nil {
		r.t.Fatal(err)
	}
	if r.cfg.State, err = db.Open(filepath.Join(r.dir, "state.db"), db.Options{NoSync: true, Epoch: "boot"}); err != nil {
		r.t.Fatal(err)
	}
	if r.Manager, err = New(r.t.Context(), r.cfg); err != nil {
		r.t.Fatal(err)
	}
}

// restart ends the manager as the daemon's end does, and makes a new one. Containers go on.
func (r *rig) restart() {
	r.t.Helper()
	if err := r.Close(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.cfg.Durable.Close()
	r.cfg.State.Close()
	r.nets.Close(r.t.Context())
	r.open()
}

// clear removes all containers and checks that nothing is left of them.
func (r *rig) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, o := range r.index.all() {
		if err := r.Remove(ctx, o.id, RemoveOptions{Force: true}); err != nil && !errs.Is(err, errs.NotFound) {
			r.t.Error(err)
		}
	}
	if err := r.Close(ctx); err != nil {
		r.t.Error(err)
	}
	r.cfg.Durable.Close()
	r.cfg.State.Close()
	if left, _ := os.ReadDir(r.cfg.Root); len(left) > 0 {
		r.t.Errorf("%d folders are left", len(left))
	}
	if left, _ := r.layers.Snapshots(ctx); len(left) > 0 {
		r.t.Errorf("snapshots are left: %v", left)
	}
	if left, _ := r.cfg.Runtime.Groups(ctx); len(left) > 0 {
		r.t.Errorf("control groups are left: %v", left)
	}
	if left, _ := r.client.List(ctx); len(left) > 0 {
		r.t.Errorf("the keeper has %d processes left", len(left))
	}
}

// busyboxImage unpacks a root with the host's static busybox.
func busyboxImage(t testing.TB, s *layer.Store) image.Image {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("needs busybox-static: %v", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	for _, d := range []string{"bin/", "etc/", "tmp/", "root/", "proc/", "sys/", "dev/"} {
		put(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	put(tar.Header{Name: "bin/busybox", Mode: 0o755}, bin)
	for _, a := range strings.Fields("sh true false echo cat sleep ls id env hostname stty tty kill ps head seq wc dd yes touch mount ip sed trap") {
		put(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeLink, Linkname: "bin/busybox"}, nil)
	}
	put(tar.Header{Name: "bin/notexec", Mode: 0o644}, []byte("x"))
	put(tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"))
	put(tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nuser:x:1000:\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	id := digest.FromBytes(b.Bytes())
	h := s.Hold()
	t.Cleanup(h.Release)
	chain, err := h.Apply(t.Context(), []layer.Source{{
		Blob: id, DiffID: id, Size: int64(b.Len()), MediaType: ocispec.MediaTypeImageLayer,
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	img := image.Image{ID: digest.FromString("busybox"), Chain: chain.ID, Size: chain.Size}
	img.Config.OS = "linux"
	img.Config.Config = dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Cmd: []string{"sh"},
		Labels: map[string]string{"made": "by test"},
	}}
	return img
}

// options for a container without a network that runs a shell command.
func shell(script string) CreateOptions {
	return CreateOptions{
		Config:     &api.Config{Image: "busybox", Cmd: []string{"sh", "-c", script}},
		HostConfig: &api.HostConfig{NetworkMode: "none"},
	}
}

func (r *rig) create(opt CreateOptions) string {
	r.t.Helper()
	id, _, err := r.Create(r.t.Context(), opt)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// run creates, starts and waits, and gives the exit code.
func (r *rig) run(opt CreateOptions) (string, WaitResult) {
	r.t.Helper()
	id := r.create(opt)
	cond := WaitNextExit
	if opt.HostConfig.AutoRemove {
		cond = WaitRemoved
	}
	w, err := r.Wait(r.t.Context(), id, cond)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.Start(r.t.Context(), id, ""); err != nil {
		r.t.Fatal(err)
	}
	return id, r.result(w)
}

func (r *rig) result(w <-chan WaitResult) WaitResult {
	r.t.Helper()
	select {
	case res := <-w:
		return res
	case <-time.After(10 * time.Second):
		r.t.Fatal("the wait does not end")
		panic("unreachable")
	}
}

func (r *rig) logs(id string, opt LogOptions) string {
	r.t.Helper()
	rc, _, err := r.Logs(r.t.Context(), id, opt)
	if err != nil {
		r.t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// unframe takes Docker's frames apart.
func unframe(t testing.TB, b string) (stdout, stderr string) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 8 {
			t.Fatalf("rest of a frame: %q", b)
		}
		n := int(b[4])<<24 | int(b[5])<<16 | int(b[6])<<8 | int(b[7])
		if len(b) < 8+n {
			t.Fatalf("short frame: %q", b)
		}
		if b[0] == 2 {
			stderr += b[8 : 8+n]
		} else {
			stdout += b[8 : 8+n]
		}
		b = b[8+n:]
	}
	return stdout, stderr
}

var everything = LogOptions{Stdout: true, Stderr: true, Tail: -1}
