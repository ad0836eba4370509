package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper"
	"skiff/network"
)

// errLost is the Error of a container whose end nobody saw.
const errLost = "the container's process was gone when the daemon came back"

// survey is what reconcile finds.
type survey struct {
	objects map[string]*object
	runs    map[string]run
	execs   map[string]execRecord
	states  map[string]keeper.State // of containers
	further []keeper.State          // of execs
	adopted map[string]bool
}

// reconcile compares the records with what there is, and makes both agree:
//
//	record   keeper    what it means                              what is done
//	------   ------    ----------------------------------------   -----------------------------------------
//	any      runs      the daemon died                            adopted: handles, exits, network
//	any      ended     it ended while nobody listened             its exit is taken in, as if it came now
//	running  unknown   the machine, or the keeper too, died       exited with 255
//	else     unknown   at most half-started                       its processes are killed, state as recorded (--rm: removed)
//	none     runs      removed or never acknowledged              killed
//	none     ended     removal cut short                          forgotten
//
// Control groups, snapshots and folders without a container, and --rm containers that don't run, are removed.
func (m *Manager) reconcile(ctx context.Context) error {
	v, err := m.survey(ctx)
	if err != nil {
		return err
	}
	var held []network.Held
	for id, o := range v.objects {
		st, known := v.states[id]
		if known && st.Exited == nil {
			m.adopt(o, st, v.runs[id])
			v.adopted[id] = true
			if ep := v.runs[id].Endpoint; ep != nil {
				held = append(held, network.Held{ContainerID: id, Name: o.def().Name, PID: st.PID, Endpoint: *ep})
			}
		}
		m.index.add(o)
	}
	m.adoptExecs(v)
	if err := m.cfg.Networks.Adopt(ctx, held); err != nil {
		return fmt.Errorf("hand the networks of %d running containers over: %w", len(held), err)
	}
	m.killStrangers(ctx, v)
	if err := m.removeGroups(ctx, v); err != nil {
		return err
	}
	for id, o := range v.objects {
		if !v.adopted[id] {
			m.settle(ctx, o, v)
		}
	}
	return m.removeOrphans(ctx)
}

// survey reads the records and asks the keeper.
func (m *Manager) survey(ctx context.Context) (*survey, error) {
	v := &survey{
		objects: map[string]*object{}, runs: map[string]run{}, execs: map[string]execRecord{},
		states: map[string]keeper.State{}, adopted: map[string]bool{},
	}
	for _, b := range []books{m.store.durable, m.store.volatile} {
		stats := map[string]lasting{}
		if err := b.stats.Each(func(id string, l lasting) error { stats[id] = l; return nil }); err != nil {
			return nil, err
		}
		err := b.defs.Each(func(id string, d *definition) error {
			l := stats[id]
			if l.Phase == "" {
				l.Phase = api.StateCreated
			}
			v.objects[id] = newObject(d, &status{
				Phase: l.Phase, ExitCode: l.ExitCode, Error: l.Error, Failed: l.Failed, OOMKilled: l.OOMKilled,
				StartedAt: l.StartedAt, FinishedAt: l.FinishedAt,
			})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if err := m.store.volatile.runs.Each(func(id string, r run) error { v.runs[id] = r; return nil }); err != nil {
		return nil, err
	}
	if err := m.store.volatile.execs.Each(func(id string, e execRecord) error { v.execs[id] = e; return nil }); err != nil {
		return nil, err
	}
	states, err := m.cfg.Keeper.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the keeper what runs: %w", err)
	}
	for _, st := range states {
		if _, _, isExec := splitExec(st.ID); isExec {
			v.further = append(v.further, st)
		} else {
			v.states[st.ID] = st
		}
	}
	return v, nil
}

// adopt takes a running container over.
func (m *Manager) adopt(o *object, st keeper.State, r run) {
	s := *o.status()
	s.Phase = api.StateRunning
	if r.Paused {
		s.Phase = api.StatePaused
	}
	s.PID, s.StartTime, s.StartedAt = st.PID, st.StartTime, st.StartedAt.UTC()
	s.FinishedAt, s.ExitCode, s.Error, s.Failed, s.OOMKilled, s.Endpoint = time.Time{}, 0, "", false, false, r.Endpoint
	o.set(&s)
	l := &live{pid: st.PID, pidfd: st.PIDFD, group: m.findGroup(o), ended: make(chan struct{})}
	l.stdin, l.master = takeStreams(st, o.def().Config.OpenStdin)
	o.live = l
}

// takeStreams keeps of the keeper's files what the engine needs and closes the others.
func takeStreams(st keeper.State, openStdin bool) (stdin, master *os.File) {
	if st.Terminal {
		if master = st.Stdin; master == nil {
			master = st.Stdout
		}
		stdin = master
	} else {
		stdin = st.Stdin
	}
	for _, f := range []*os.File{st.Stdin, st.Stdout, st.Stderr} {
		if f != stdin && f != master {
			closeFile(f)
		}
	}
	if !openStdin {
		if stdin != master {
			closeFile(stdin)
		}
		stdin = nil
	}
	return stdin, master
}

// adoptExecs brings the execs of running containers back, so that they can be inspected.
func (m *Manager) adoptExecs(v *survey) {
	running := map[string]keeper.State{}
	for _, st := range v.further {
		container, id, _ := splitExec(st.ID)
		if _, recorded := v.execs[id]; !recorded || !v.adopted[container] || st.Exited != nil {
			closeState(st)
			if st.Exited != nil {
				m.forgetProcess(st.ID)
			}
			if rec, ok := v.execs[id]; ok && st.Exited != nil {
				rec.ExitCode = &st.Exited.Code
				v.execs[id] = rec
			}
			continue
		}
		running[id] = st
	}
	for id, rec := range v.execs {
		st, runs := running[id]
		if !v.adopted[rec.Container] || !runs && rec.ExitCode == nil || len(rec.Request.Cmd) == 0 {
			m.warn("drop the record of an exec", rec.Container, m.store.dropExec(id))
			continue
		}
		o := v.objects[rec.Container]
		e := newExec(id, o, rec.Request)
		e.claimed = true
		close(e.started)
		if runs {
			e.running, e.pid = true, st.PID
			e.stdin, e.master = takeStreams(st, rec.Request.AttachStdin)
			closeFile(st.PIDFD)
		} else {
			e.exitCode, e.endedAt = rec.ExitCode, time.Now()
			close(e.ended)
		}
		o.execs = append(o.execs, e)
		m.index.addExec(e)
	}
}

func closeState(st keeper.State) {
	for _, f := range []*os.File{st.PIDFD, st.Stdin, st.Stdout, st.Stderr} {
		closeFile(f)
	}
}

// killStrangers ends processes that no container has, and lets the keeper forget those that have ended.
func (m *Manager) killStrangers(ctx context.Context, v *survey) {
	for id, st := range v.states {
		if v.adopted[id] {
			continue
		}
		if st.Exited == nil && st.PIDFD != nil { // its exit comes as any other, and is forgotten then
			err := m.cfg.kill(st.PIDFD, unix.SIGKILL)
			if err != nil && !errors.Is(err, unix.ESRCH) {
				m.warn("kill a process that belongs to no container", id, err)
			}
		}
		if st.Exited != nil && v.objects[id] == nil {
			m.warn("have the keeper forget", id, m.cfg.Keeper.Forget(ctx, id))
		}
		closeState(st)
	}
}

// removeGroups kills what runs in control groups that no running container has, and removes them.
func (m *Manager) removeGroups(ctx context.Context, v *survey) error {
	ids, err := m.cfg.Runtime.Groups(ctx)
	if err != nil {
		return fmt.Errorf("list the control groups: %w", err)
	}
	for id, o := range v.objects { // those with a parent of their own are in no list
		if o.def().HostConfig.CgroupParent != "" {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		if v.adopted[id] {
			continue
		}
		if st, known := v.states[id]; known && st.Exited != nil && v.objects[id] != nil {
			continue // settle asks it for an out-of-memory kill
		}
		var h *api.HostConfig
		if o := v.objects[id]; o != nil {
			h = o.def().HostConfig
		}
		g, err := m.cfg.Runtime.FindGroup(id, h)
		if err == nil {
			err = destroy(ctx, g)
		}
		m.warn("remove a control group that no running container has", id, err)
	}
	return nil
}

// settle brings a container that doesn't run to rest.
func (m *Manager) settle(ctx context.Context, o *object, v *survey) {
	d, s := o.def(), *o.status()
	m.warn("make a container's folder", o.id, os.MkdirAll(m.dir(o.id), 0o710))
	if st, known := v.states[o.id]; known {
		s.Phase, s.Endpoint, s.Error, s.Failed = api.StateRunning, v.runs[o.id].Endpoint, "", false
		if s.StartedAt = st.StartedAt.UTC(); s.StartedAt.IsZero() {
			s.StartedAt = st.Exited.At.UTC()
		}
		o.set(&s)
		o.live = &live{group: m.findGroup(o), ended: make(chan struct{})}
		m.exited(ctx, o, *st.Exited)
		return
	}
	if s.alive() {
		s.Phase, s.ExitCode, s.Error, s.FinishedAt = api.StateExited, codeUnknown, errLost, time.Now().UTC()
		o.set(&s)
		m.warn("record that a container was lost", o.id, m.store.state(d, &s))
	}
	_, half := v.runs[o.id]
	if half {
		m.warn("release the network", o.id, m.cfg.Networks.Release(ctx, o.id))
		m.warn("drop the record of a run", o.id, m.store.ended(o.id, nil))
	}
	// A --rm container that was created but not started belongs to a client who may still start it. One that ran is over,
	// and one whose start failed is removed too.
	if d.HostConfig.AutoRemove && (half || !s.FinishedAt.IsZero()) {
		m.warn("remove a container that ended", o.id, m.remove(ctx, o))
	}
}

// removeOrphans removes snapshots, folders and records that no container has: what a creation or removal left that was cut short.
func (m *Manager) removeOrphans(ctx context.Context) error {
	ids, err := m.cfg.Layers.Snapshots(ctx)
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	for _, id := range ids {
		if m.index.get(id) == nil {
			if err := m.cfg.Layers.Discard(ctx, id); err != nil && !errs.Is(err, errs.NotFound) {
				m.warn("discard a snapshot that no container has", id, err)
			}
		}
	}
	entries, err := os.ReadDir(m.cfg.Root)
	if err != nil {
		return fmt.Errorf("list the containers' folders: %w", err)
	}
	for _, e := range entries {
		if m.index.get(e.Name()) == nil {
			m.warn("remove a folder that no container has", e.Name(), os.RemoveAll(m.dir(e.Name())))
		}
	}
	return m.store.volatile.runs.Each(func(id string, _ run) error {
		if m.index.get(id) == nil {
			return m.store.ended(id, nil)
		}
		return nil
	})
}
