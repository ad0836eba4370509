package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"skiff/db"
	"skiff/internal/errs"
	"skiff/keeper"
)

// Events is where the manager tells what happened.
type Events interface {
	Publish(events.Message)
}

// Defaults are what a container gets that doesn't ask for something else.
type Defaults struct {
	Log          api.LogConfig    // zero: json-file with a bound
	CgroupnsMode api.CgroupnsMode // "": private on cgroup v2, else host
	Init         bool             // run an init process
	ShmSize      int64            // bytes of /dev/shm, 0: 64 MiB
	Ulimits      []*api.Ulimit    // those that a container names itself override them
	StopTimeout  int              // seconds, 0: 10
}

// Config is what a manager is made of. Everything is needed but Defaults and Log.
type Config struct {
	Root    string // folder that holds one folder for each container, for example DATA-ROOT/containers
	Durable *db.DB // what must not be lost
	State   *db.DB // of this boot: what runs, and --rm containers

	Images   Images
	Layers   Layers
	Networks Networks
	Keeper   Keeper
	// Exits delivers the end of every process of the keeper, also of those that ended before we came. Closed: no more come.
	Exits   <-chan keeper.Exit
	Runtime Runtime
	Events  Events

	Defaults Defaults
	Log      *slog.Logger

	kill func(pidfd *os.File, sig unix.Signal) error // nil: sendSignal; tests have processes of their own
}

const backgroundWorkers = 4

// Manager owns all containers. It implements api.Containers and api.Execs.
type Manager struct {
	cfg   Config
	log   *slog.Logger
	store store
	index index
	work  worker

	stop context.CancelFunc
	done sync.WaitGroup // the exit loop
}

// New takes over what is there from before (see reconcile) and begins to watch the keeper's exits. It returns when the
// truth is known: what List shows afterwards is right.
func New(ctx context.Context, cfg Config) (*Manager, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.kill == nil {
		cfg.kill = sendSignal
	}
	if cfg.Defaults.StopTimeout == 0 {
		cfg.Defaults.StopTimeout = defaultStopTimeout
	}
	if cfg.Defaults.CgroupnsMode == "" {
		cfg.Defaults.CgroupnsMode = cfg.Runtime.CgroupnsMode()
	}
	if err := os.MkdirAll(cfg.Root, 0o710); err != nil {
		return nil, fmt.Errorf("make the containers' folder: %w", err)
	}
	m := &Manager{
		cfg:   cfg,
		log:   cfg.Log,
		store: store{durable: newBooks(cfg.Durable), volatile: newBooks(cfg.State)},
		index: newIndex(),
		work:  worker{limit: backgroundWorkers},
	}
	if err := m.reconcile(ctx); err != nil {
		return nil, fmt.Errorf("take over the containers of before: %w", err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	m.done.Go(func() { m.watchExits(run) })
	return m, nil
}

// Close stops watching and waits for work under way. Containers go on.
func (m *Manager) Close(ctx context.Context) error {
	m.stop()
	m.done.Wait()
	for _, o := range m.index.all() {
		if err := o.queue.do(ctx, func(context.Context) error { return nil }); err != nil {
			return fmt.Errorf("wait for container %s: %w", shortID(o.id), err)
		}
	}
	err := m.work.wait(ctx)
	for _, o := range m.index.all() {
		o.mu.Lock()
		l := o.live
		o.live = nil
		o.mu.Unlock()
		l.close()
	}
	return err
}

// InUse names a container of the image, running ones first; "" if there is none. A container that is being created
// counts.
func (m *Manager) InUse(imageID string) (container string, running bool) {
	for _, o := range m.index.all() {
		if o.def().Image.String() != imageID {
			continue
		}
		if container == "" || o.status().alive() {
			container, running = o.id, o.status().alive()
		}
		if running {
			return container, true
		}
	}
	if container == "" {
		container = m.index.creating(imageID)
	}
	return container, false
}

// Users lists the containers of an image, those that run apart.
func (m *Manager) Users(imageID string) (running, others []string) {
	for _, o := range m.index.all() {
		switch {
		case o.def().Image.String() != imageID:
		case o.status().alive():
			running = append(running, o.id)
		default:
			others = append(others, o.id)
		}
	}
	if id := m.index.creating(imageID); id != "" {
		others = append(others, id)
	}
	return running, others
}

// dir is a container's folder.
func (m *Manager) dir(id string) string { return filepath.Join(m.cfg.Root, id) }

// watchExits hands the ends of processes to their owners.
func (m *Manager) watchExits(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-m.cfg.Exits:
			if !ok {
				return
			}
			m.ended(e)
		}
	}
}

// ended hands one process's end to its owner.
func (m *Manager) ended(e keeper.Exit) {
	if id, exec, ok := splitExec(e.ID); ok {
		m.execEnded(id, exec, e)
		return
	}
	o := m.index.get(e.ID)
	if o == nil {
		m.forgetProcess(e.ID)
		return
	}
	o.queue.post(func() { m.exited(context.Background(), o, e) })
}

// forgetProcess tells the keeper in the background that an end was noted.
func (m *Manager) forgetProcess(id string) {
	m.work.post(func() {
		if err := m.cfg.Keeper.Forget(context.Background(), id); err != nil && !errs.Is(err, errs.NotFound) {
			m.log.Warn("the keeper did not forget an ended process", "process", id, "error", err)
		}
	})
}

// worker runs background jobs, at most limit at a time, and has no goroutine when there is none.
type worker struct {
	limit int

	mu      sync.Mutex
	jobs    []func()
	running int
	idle    chan struct{} // closed when nothing is left; made by wait
}

func (w *worker) post(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jobs = append(w.jobs, f)
	if w.running < w.limit {
		w.running++
		go w.run()
	}
}

func (w *worker) run() {
	for {
		w.mu.Lock()
		if len(w.jobs) == 0 {
			if w.running--; w.running == 0 && w.idle != nil {
				close(w.idle)
				w.idle = nil
			}
			w.mu.Unlock()
			return
		}
		f := w.jobs[0]
		w.jobs[0] = nil
		if w.jobs = w.jobs[1:]; len(w.jobs) == 0 {
			w.jobs = nil
		}
		w.mu.Unlock()
		f()
	}
}

// wait returns when there is nothing to do.
func (w *worker) wait(ctx context.Context) error {
	w.mu.Lock()
	if w.running == 0 {
		w.mu.Unlock()
		return nil
	}
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	idle := w.idle
	w.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("background work is not finished"), ctx.Err())
	}
}
