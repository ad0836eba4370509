package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// Remove implements api.Containers. RemoveVolumes has nothing to do: there are no volumes yet.
func (m *Manager) Remove(ctx context.Context, name string, opt RemoveOptions) error {
	if opt.RemoveLink {
		return errs.New(errs.NotImplemented, "removing a link is not implemented")
	}
	o, err := m.index.find(name)
	if err != nil {
		return err
	}
	if opt.Force && o.status().alive() {
		if err := m.killAndWait(ctx, o); err != nil && !errs.Is(err, errs.Conflict) {
			return fmt.Errorf("cannot remove container %q: could not kill: %w", "/"+o.def().Name, err)
		}
	}
	return o.queue.do(ctx, func(ctx context.Context) error {
		switch s := o.status(); {
		case s.Phase == api.StatePaused:
			return errs.New(errs.Conflict, "cannot remove container %q: container is paused and must be unpaused first", "/"+o.def().Name)
		case s.alive():
			return errs.New(errs.Conflict, "cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+o.def().Name, s.Phase)
		case s.Phase == phaseGone && opt.Force:
			return nil // it was removed because it ended
		case s.Phase == phaseGone:
			return errs.New(errs.NotFound, "No such container: %s", name)
		case s.Phase == api.StateRemoving:
			return errs.New(errs.Conflict, "removal of container %s is already in progress", name)
		}
		return m.remove(ctx, o)
	})
}

// killAndWait ends a container by force and returns when its end was noted. ctx ends the waiting only.
func (m *Manager) killAndWait(ctx context.Context, o *object) error {
	w := o.wait(ctx, WaitNotRunning)
	if err := o.queue.do(ctx, func(ctx context.Context) error { return m.signal(ctx, o, unix.SIGKILL) }); err != nil {
		return err
	}
	select {
	case <-w:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remove removes a container that doesn't run. It is one of the object's commands. The record goes first: once that is
// gone and durable, so is the container, and if we die then, reconcile removes the rest.
func (m *Manager) remove(ctx context.Context, o *object) error {
	before := o.status()
	next, err := before.after(changeRemove, nil)
	if err != nil {
		return err
	}
	o.set(next)
	d := o.def()
	if err := m.store.forget(d); err != nil {
		o.set(before)
		return fmt.Errorf("cannot remove container %q: %w", "/"+d.Name, err)
	}
	// The name in the trash is what matters; the files are deleted in the background.
	m.warn("discard the file system", o.id, m.cfg.Layers.Discard(ctx, o.id))
	m.index.remove(o)
	m.dropExecs(o)
	last, err := next.after(changeVanish, nil)
	if err != nil {
		return err
	}
	o.set(last)
	m.publish(o, events.ActionDestroy)
	o.tell(WaitNotRunning, WaitNextExit, WaitRemoved)
	o.mu.Lock()
	pending := o.pending
	o.pending = nil
	o.mu.Unlock()
	for _, t := range pending {
		t.giveUp()
	}
	m.work.post(func() {
		if err := os.RemoveAll(m.dir(o.id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			m.warn("remove the folder", o.id, err)
		}
	})
	return nil
}
