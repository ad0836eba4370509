package container

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"skiff/internal/errs"
	"skiff/keeper"
	"skiff/network"
)

// Start implements api.Containers. detachKeys are checked only: they belong to the attached clients.
func (m *Manager) Start(ctx context.Context, name string, detachKeys string) error {
	if _, err := parseDetachKeys(detachKeys); err != nil {
		return err
	}
	o, err := m.index.find(name)
	if err != nil {
		return err
	}
	return o.queue.do(ctx, func(ctx context.Context) error { return m.start(ctx, o) })
}

// startup is what a start has made so far. The files are closed at its end, what is beyond files is undone if it fails.
type startup struct {
	m *Manager
	o *object
	d *definition

	root     *os.File
	netns    *os.File
	endpoint *network.Endpoint
	group    Group
	streams  *streams
	taps     []*tap
	joinPID  int
	joinIPC  int
}

// start is one of the object's commands.
func (m *Manager) start(ctx context.Context, o *object) error {
	switch s := o.status(); {
	case s.Phase == api.StatePaused:
		return errs.New(errs.Conflict, "cannot start a paused container, try unpause instead")
	case s.Phase == api.StateRunning:
		return errs.New(errs.NotModified, "container %s is running already", o.id)
	case s.gone():
		return errs.New(errs.Conflict, "container is marked for removal and cannot be started")
	}
	if o.cleanup != nil { // the control group of the last run has the same name
		<-o.cleanup
		o.cleanup = nil
	}
	s := &startup{m: m, o: o, d: o.def()}
	o.mu.Lock()
	s.taps, o.pending = o.pending, nil
	o.mu.Unlock()
	defer s.close()
	p, err := s.run(ctx)
	if err != nil {
		s.undo(ctx)
		return m.startFailed(ctx, o, err)
	}
	return s.running(p)
}

func (s *startup) run(ctx context.Context) (keeper.Process, error) {
	if err := s.resolveShared(); err != nil {
		return keeper.Process{}, err
	}
	if err := s.prepare(ctx); err != nil {
		return keeper.Process{}, err
	}
	if err := s.m.store.starting(s.o.id, run{Endpoint: s.endpoint}); err != nil {
		return keeper.Process{}, fmt.Errorf("record the start: %w", err)
	}
	program, err := s.m.cfg.Runtime.Container(ctx, s.process())
	if err != nil {
		return keeper.Process{}, err
	}
	defer program.Close()
	r := keeper.LaunchRequest{
		ID: s.o.id, Program: program.Binary, Files: program.Files,
		Stdin: s.streams.in, Stdout: s.streams.out, Stderr: s.streams.err,
		Terminal: s.d.Config.Tty, Log: s.d.Log,
	}
	for _, t := range s.taps {
		if sub, ok := t.subscriber(); ok {
			r.Subscribers = append(r.Subscribers, sub)
		}
	}
	p, err := s.m.cfg.Keeper.Launch(ctx, r)
	s.streams.closeChild()
	return p, err
}

// prepare makes the root, the network and the control group side by side.
func (s *startup) prepare(ctx context.Context) error {
	connected, grouped := make(chan error, 1), make(chan error, 1)
	go func() { connected <- s.connect(ctx) }()
	go func() {
		g, err := s.m.cfg.Runtime.NewGroup(ctx, s.o.id, s.d.HostConfig)
		if err == nil {
			s.group = g
		}
		grouped <- err
	}()
	err := s.mountRoot(ctx)
	if err == nil {
		s.streams, err = s.newStreams()
	}
	return cmp.Or(<-connected, err, <-grouped)
}

func (s *startup) newStreams() (*streams, error) {
	c := s.d.Config
	if !c.Tty {
		return pipeStreams(c.OpenStdin, true, true)
	}
	size := s.d.HostConfig.ConsoleSize
	t, err := s.m.cfg.Runtime.Terminal(size[0], size[1])
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	return terminalStreams(t, c.OpenStdin)
}

func (s *startup) mountRoot(ctx context.Context) error {
	layers := s.m.cfg.Layers
	snapshot, err := layers.Snapshot(ctx, s.o.id)
	if errs.Is(err, errs.NotFound) && s.o.status().StartedAt.IsZero() {
		// Create was cut short by a crash after the record was durable.
		snapshot, err = layers.Prepare(ctx, s.o.id, s.d.Chain, s.d.HostConfig.AutoRemove)
	}
	if err != nil {
		return fmt.Errorf("find the file system: %w", err)
	}
	if s.root, err = layers.Mount(ctx, snapshot); err != nil {
		return fmt.Errorf("mount the file system: %w", err)
	}
	return nil
}

// resolveShared finds the processes whose namespaces are joined.
func (s *startup) resolveShared() (err error) {
	h := s.d.HostConfig
	if h.PidMode.IsContainer() {
		if s.joinPID, err = s.m.sharedPID(h.PidMode.Container(), "PID"); err != nil {
			return err
		}
	}
	if h.IpcMode.IsContainer() {
		s.joinIPC, err = s.m.sharedPID(h.IpcMode.Container(), "IPC")
	}
	return err
}

func (m *Manager) sharedPID(name, namespace string) (int, error) {
	o, err := m.index.find(name)
	if err != nil {
		return 0, fmt.Errorf("cannot join %s namespace: %w", namespace, err)
	}
	s := o.status()
	if !s.alive() {
		return 0, errs.New(errs.Conflict, "cannot join %s namespace of a non running container: container %s is %s", namespace, o.def().Name, s.Phase)
	}
	return s.PID, nil
}

func (s *startup) process() ContainerProcess {
	h := s.d.HostConfig
	p := ContainerProcess{
		ID: s.o.id, Config: s.d.Config, HostConfig: h,
		Root: s.root, NetNS: s.netns, JoinPID: s.joinPID, JoinIPC: s.joinIPC, Group: s.group,
		Init: s.m.cfg.Defaults.Init, Stdio: s.streams.child,
	}
	if h.Init != nil {
		p.Init = *h.Init
	}
	p.Hosts, p.Hostname, p.ResolvConf = s.m.etcFiles(s.o.id)
	return p
}

// running notes that the process was started: the start can't fail any more.
func (s *startup) running(p keeper.Process) error {
	o, m := s.o, s.m
	l := &live{pid: p.PID, pidfd: p.PIDFD, group: s.group, ended: make(chan struct{})}
	l.stdin, l.master = s.streams.keep()
	next, err := o.status().after(changeStart, func(st *status) {
		st.PID, st.StartTime, st.StartedAt = p.PID, p.StartTime, p.StartedAt.UTC()
		if p.StartedAt.IsZero() {
			st.StartedAt = time.Now().UTC()
		}
		st.FinishedAt, st.ExitCode, st.Error, st.Failed, st.OOMKilled = time.Time{}, 0, "", false, false
		st.Endpoint = s.endpoint
	})
	if err != nil {
		return err
	}
	o.set(next)
	o.mu.Lock()
	o.live = l
	o.mu.Unlock()
	for _, t := range s.taps {
		t.started(l)
	}
	s.taps = nil
	m.warn("record a start", o.id, m.store.state(s.d, next))
	m.publishNetwork(o, s.endpoint, events.ActionConnect)
	m.publish(o, events.ActionStart)
	return nil
}

// close closes the files of a start; after a success the ones that live on are not among them any more.
func (s *startup) close() {
	closeFile(s.root)
	closeFile(s.netns)
	if s.streams != nil {
		s.streams.close()
	}
	for _, t := range s.taps {
		t.giveUp()
	}
}

// undo gives back what a failed start took.
func (s *startup) undo(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	m, id := s.m, s.o.id
	m.warn("undo a start: release the network", id, m.cfg.Networks.Release(ctx, id))
	if s.group != nil {
		m.warn("undo a start: remove the control group", id, destroy(ctx, s.group))
	}
	m.warn("undo a start: drop the record", id, m.store.ended(id, nil))
}
