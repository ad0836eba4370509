package container

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"skiff/db"
	"skiff/event"
	"skiff/image"
	"skiff/internal/errs"
	"skiff/keeper"
	"skiff/layer"
	"skiff/network"
)

// world is a machine made of maps, with a manager on it.
type world struct {
	*Manager
	t   testing.TB
	dir string
	cfg Config
	bus *event.Bus

	mu        sync.Mutex
	snapshots map[string]bool
	networks  map[string]bool
	held      []network.Held
	groups    map[string]*fakeGroup
	procs     map[string]*fakeProc
	exits     chan keeper.Exit
	nextPID   int
	launchErr error
	netErr    error
	mountErr  error
	obeys     func(unix.Signal) (code int, ends bool)
}

type fakeProc struct {
	keeper.State
	subs []keeper.Subscriber
}

type fakeGroup struct {
	w      *world
	id     string
	frozen bool
	oom    bool

	pending []unix.Signal
}

func newFake(t testing.TB) *world {
	t.Helper()
	w := &world{
		t: t, dir: t.TempDir(), snapshots: map[string]bool{}, networks: map[string]bool{}, groups: map[string]*fakeGroup{},
		procs: map[string]*fakeProc{}, exits: make(chan keeper.Exit, 1000), nextPID: 1000,
	}
	w.obeys = func(s unix.Signal) (int, bool) { return 128 + int(s), s == unix.SIGKILL || s == unix.SIGTERM }
	w.bus = event.New(slog.New(slog.DiscardHandler))
	w.cfg = Config{
		Root: filepath.Join(w.dir, "containers"), Images: fakeImages{}, Layers: fakeLayers{w}, Networks: fakeNetworks{w},
		Keeper: fakeKeeper{w}, Runtime: fakeRuntime{w}, Events: w.bus, Log: slog.New(slog.DiscardHandler),
	}
	w.open("boot")
	t.Cleanup(func() { w.shut() })
	return w
}

func (w *world) open(boot string) {
	w.t.Helper()
	var err error
	if w.cfg.Durable, err = db.Open(filepath.Join(w.dir, "skiff.db"), db.Options{NoSync: true}); err != nil {
		w.t.Fatal(err)
	}
	if w.cfg.State, err = db.Open(filepath.Join(w.dir, "state.db"), db.Options{NoSync: true, Epoch: boot}); err != nil {
		w.t.Fatal(err)
	}
	w.cfg.Exits, w.cfg.kill = w.exits, w.signal
	m, err := New(context.Background(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Manager = m
}

func (w *world) shut() {
	w.t.Helper()
	if err := errors.Join(w.Close(context.Background()), w.cfg.Durable.Close(), w.cfg.State.Close()); err != nil {
		w.t.Error(err)
	}
}

// restart is the daemon's; crash is the machine's.
func (w *world) restart() { w.shut(); w.open("boot") }

func (w *world) crash() {
	w.shut()
	w.procs, w.groups, w.networks = map[string]*fakeProc{}, map[string]*fakeGroup{}, map[string]bool{}
	w.open(time.Now().String())
}

// settled waits until everything under way is done.
func (w *world) settled() {
	w.t.Helper()
	for _, o := range w.index.all() {
		if err := o.queue.do(context.Background(), func(context.Context) error { return nil }); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.work.wait(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// signal is what a process does with a signal. Its pidfd is a file named after it.
func (w *world) signal(pidfd *os.File, sig unix.Signal) error {
	w.mu.Lock()
	id := filepath.Base(pidfd.Name())
	g, obeys := w.groups[id], w.obeys
	w.mu.Unlock()
	if g != nil && g.frozen && sig != unix.SIGKILL {
		g.pending = append(g.pending, sig)
		return nil
	}
	if code, ends := obeys(sig); ends {
		w.end(id, code)
	}
	return nil
}

// end ends a process.
func (w *world) end(id string, code int) {
	w.mu.Lock()
	p := w.procs[id]
	if p == nil || p.Exited != nil {
		w.mu.Unlock()
		return
	}
	p.Exited = &keeper.Exit{ID: id, At: time.Now(), Code: code}
	for _, s := range p.subs {
		s.W.Close()
	}
	w.mu.Unlock()
	w.exits <- *p.Exited
}

func (w *world) fileFor(id string) *os.File {
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		w.t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "/proc/"+id)
}

type fakeImages struct{}

var fakeImageID = digest.FromString("busybox")

func (fakeImages) Resolve(_ context.Context, ref string, _ *ocispec.Platform) (image.Image, error) {
	if ref != "busybox" && ref != fakeImageID.String() {
		return image.Image{}, errs.New(errs.NotFound, "No such image: %s", ref)
	}
	img := image.Image{ID: fakeImageID, Size: 1000}
	img.Config.OS = "linux"
	img.Config.Config.Cmd = []string{"sh"}
	return img, nil
}

type fakeLayers struct{ w *world }

func (l fakeLayers) Prepare(_ context.Context, id string, _ digest.Digest, _ bool) (layer.Snapshot, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	l.w.snapshots[id] = true
	return layer.Snapshot{ID: id}, nil
}

func (l fakeLayers) Snapshot(_ context.Context, id string) (layer.Snapshot, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if !l.w.snapshots[id] {
		return layer.Snapshot{}, errs.New(errs.NotFound, "no snapshot %s", id)
	}
	return layer.Snapshot{ID: id}, nil
}

func (l fakeLayers) Mount(context.Context, layer.Snapshot) (*os.File, error) {
	if l.w.mountErr != nil {
		return nil, l.w.mountErr
	}
	return l.w.fileFor("root"), nil
}

func (l fakeLayers) Usage(context.Context, string) (int64, error) { return 10, nil }

func (l fakeLayers) Discard(_ context.Context, id string) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	delete(l.w.snapshots, id)
	return nil
}

func (l fakeLayers) Snapshots(context.Context) ([]string, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return slices.Collect(maps.Keys(l.w.snapshots)), nil
}

type fakeNetworks struct{ w *world }

func (n fakeNetworks) Connect(_ context.Context, r network.Request) (network.Endpoint, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.w.netErr != nil {
		return network.Endpoint{}, n.w.netErr
	}
	n.w.networks[r.ContainerID] = true
	return network.Endpoint{
		NetNS: n.w.fileFor("net"), Address: netip.MustParsePrefix("172.17.0.2/16"), Ports: r.Ports, NetworkID: "n1", ID: "e1",
		MAC: "02:42:ac:11:00:02",
	}, nil
}

func (n fakeNetworks) Isolated(_ context.Context, id string, _ map[string]string) (*os.File, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.networks[id] = true
	return n.w.fileFor("net"), n.w.netErr
}

func (n fakeNetworks) Release(_ context.Context, id string) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	delete(n.w.networks, id)
	return nil
}

func (n fakeNetworks) Adopt(_ context.Context, held []network.Held) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.held = held
	n.w.networks = map[string]bool{}
	for _, h := range held {
		n.w.networks[h.ContainerID] = true
	}
	return nil
}

func (n fakeNetworks) Hosts(network.DNSConfig, *network.Endpoint) ([]byte, error) {
	return []byte("hosts"), nil
}

func (n fakeNetworks) ResolvConf(network.DNSConfig, *network.Endpoint) ([]byte, error) {
	return []byte("resolv"), nil
}

type fakeKeeper struct{ w *world }

func (k fakeKeeper) Launch(_ context.Context, r keeper.LaunchRequest) (keeper.Process, error) {
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	if k.w.launchErr != nil {
		return keeper.Process{}, k.w.launchErr
	}
	if p := k.w.procs[r.ID]; p != nil {
		return keeper.Process{}, errs.New(errs.Conflict, "process %s is there already", r.ID)
	}
	k.w.nextPID++
	p := &fakeProc{State: keeper.State{Process: keeper.Process{
		ID: r.ID, PID: k.w.nextPID, PIDFD: k.w.fileFor(r.ID), StartTime: 1, StartedAt: time.Now(),
	}}}
	for _, s := range r.Subscribers {
		s.W = dupFile(k.w.t, s.W)
		p.subs = append(p.subs, s)
	}
	k.w.procs[r.ID] = p
	out := p.Process
	return out, nil
}

func dupFile(t testing.TB, f *os.File) *os.File {
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

func (k fakeKeeper) Subscribe(_ context.Context, id string, s keeper.Subscriber) error {
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	p := k.w.procs[id]
	if p == nil || p.Exited != nil {
		return errs.New(errs.Conflict, "process %s has ended", id)
	}
	s.W = dupFile(k.w.t, s.W)
	p.subs = append(p.subs, s)
	return nil
}

func (k fakeKeeper) CloseStdin(context.Context, string) error { return nil }

func (k fakeKeeper) List(context.Context) ([]keeper.State, error) {
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	var out []keeper.State
	for id, p := range k.w.procs {
		s := p.State
		s.PIDFD = k.w.fileFor(id)
		out = append(out, s)
	}
	return out, nil
}

func (k fakeKeeper) Forget(_ context.Context, id string) error {
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	if p := k.w.procs[id]; p != nil && p.Exited != nil {
		delete(k.w.procs, id)
	}
	return nil
}

type fakeRuntime struct{ w *world }

func (fakeRuntime) CgroupnsMode() api.CgroupnsMode { return api.CgroupnsModeHost }

func (fakeRuntime) Validate(*api.Config, *api.HostConfig) ([]string, error) { return nil, nil }

func (r fakeRuntime) NewGroup(_ context.Context, id string, _ *api.HostConfig) (Group, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if r.w.groups[id] != nil {
		return nil, errs.New(errs.Conflict, "group %s exists", id)
	}
	g := &fakeGroup{w: r.w, id: id}
	r.w.groups[id] = g
	return g, nil
}

func (r fakeRuntime) FindGroup(id string, _ *api.HostConfig) (Group, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if g := r.w.groups[id]; g != nil {
		return g, nil
	}
	return nil, errs.New(errs.NotFound, "no group %s", id)
}

func (r fakeRuntime) Groups(context.Context) ([]string, error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return slices.Collect(maps.Keys(r.w.groups)), nil
}

func (r fakeRuntime) Terminal(uint, uint) (*Terminal, error) {
	return &Terminal{Master: r.w.fileFor("master"), Slave: r.w.fileFor("slave")}, nil
}

func (r fakeRuntime) ExecTerminal(int, uint, uint) (*Terminal, error) { return r.Terminal(0, 0) }

func (fakeRuntime) Container(context.Context, ContainerProcess) (*Program, error) {
	return &Program{Close: func() {}}, nil
}

func (fakeRuntime) Exec(context.Context, ExecProcess) (*Program, error) {
	return &Program{Close: func() {}}, nil
}

func (g *fakeGroup) Procs() ([]int, error)    { return []int{os.Getpid()}, nil }
func (g *fakeGroup) OOMKilled() (bool, error) { return g.oom, nil }

func (g *fakeGroup) set(frozen bool) error {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	g.frozen = frozen
	return nil
}

func (g *fakeGroup) Freeze(context.Context) error { return g.set(true) }

func (g *fakeGroup) Thaw(context.Context) error {
	_ = g.set(false)
	for _, sig := range g.pending {
		if code, ends := g.w.obeys(sig); ends {
			g.w.end(g.id, code)
		}
	}
	g.pending = nil
	return nil
}

func (g *fakeGroup) Kill(context.Context) error {
	g.w.mu.Lock()
	p := g.w.procs[g.id]
	g.w.mu.Unlock()
	if p != nil {
		g.w.end(g.id, 137)
	}
	return nil
}

func (g *fakeGroup) Remove(context.Context) error {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	delete(g.w.groups, g.id)
	return nil
}

// make creates a container and starts it if wanted.
func (w *world) make(name string, rm, start bool) string {
	w.t.Helper()
	id, _, err := w.Create(context.Background(), CreateOptions{
		Name: name, Config: &api.Config{Image: "busybox"}, HostConfig: &api.HostConfig{AutoRemove: rm},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if start {
		if err := w.Start(context.Background(), id, ""); err != nil {
			w.t.Fatal(err)
		}
	}
	return id
}

func (w *world) state(name string) *api.State {
	in, err := w.Inspect(context.Background(), name, false)
	if errs.Is(err, errs.NotFound) {
		return &api.State{Status: "none"}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return in.State
}

// actions are the events so far of a container.
func (w *world) actions(id string) (list []events.Action) {
	for m := range w.bus.Subscribe(context.Background(), time.Unix(1, 0), time.Now(), nil) {
		if m.Actor.ID == id {
			list = append(list, m.Action)
		}
	}
	return list
}
