package container

import (
	"context"
	"fmt"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"skiff/internal/errs"
)

// Pause freezes all processes of a container.
func (m *Manager) Pause(ctx context.Context, name string) error {
	o, err := m.index.find(name)
	if err != nil {
		return err
	}
	return o.queue.do(ctx, func(ctx context.Context) error {
		s, l := o.status(), o.handles()
		if s.Phase == api.StatePaused {
			return errs.New(errs.Conflict, "container %s is already paused", o.id)
		}
		if !s.alive() || l == nil {
			return errs.New(errs.Conflict, "container %s is not running", o.id)
		}
		if err := l.group.Freeze(ctx); err != nil {
			return fmt.Errorf("cannot pause container %s: %w", o.id, err)
		}
		next, err := s.after(changePause, nil)
		if err != nil {
			return err
		}
		if err := m.store.starting(o.id, run{Endpoint: s.Endpoint, Paused: true}); err != nil {
			_ = l.group.Thaw(ctx) // the caller hears of the first failure
			return fmt.Errorf("cannot pause container %s: %w", o.id, err)
		}
		o.set(next)
		m.publish(o, events.ActionPause)
		return nil
	})
}

// Unpause thaws them.
func (m *Manager) Unpause(ctx context.Context, name string) error {
	o, err := m.index.find(name)
	if err != nil {
		return err
	}
	return o.queue.do(ctx, func(ctx context.Context) error {
		if o.status().Phase != api.StatePaused {
			return errs.New(errs.Conflict, "container %s is not paused", o.id)
		}
		return m.thaw(ctx, o)
	})
}

// thaw lets a paused container go on. It is one of the object's commands.
func (m *Manager) thaw(ctx context.Context, o *object) error {
	s, l := o.status(), o.handles()
	if l == nil {
		return errs.New(errs.Conflict, "container %s is not running", o.id)
	}
	if err := l.group.Thaw(ctx); err != nil {
		return fmt.Errorf("cannot unpause container %s: %w", o.id, err)
	}
	next, err := s.after(changeUnpause, nil)
	if err != nil {
		return err
	}
	o.set(next)
	m.warn("record an unpause", o.id, m.store.starting(o.id, run{Endpoint: s.Endpoint}))
	m.publish(o, events.ActionUnPause)
	return nil
}

// Rename gives a container another name.
func (m *Manager) Rename(ctx context.Context, name, to string) error {
	if name == "" || to == "" {
		return errs.New(errs.Invalid, "Neither old nor new names may be empty")
	}
	to, err := checkName(to)
	if err != nil {
		return fmt.Errorf("Error when allocating new name: %w", err) //nolint:staticcheck // Docker's words
	}
	o, err := m.index.find(name)
	if err != nil {
		return err
	}
	return o.queue.do(ctx, func(ctx context.Context) error {
		d := *o.def()
		from := d.Name
		if from == to {
			return errs.New(errs.Invalid, "Renaming a container with the same name as its current name")
		}
		if o.status().gone() {
			return errs.New(errs.NotFound, "No such container: %s", name)
		}
		if err := m.index.rename(o.id, to); err != nil {
			return fmt.Errorf("Error when allocating new name: %w", err) //nolint:staticcheck // Docker's words
		}
		d.Name = to
		if err := m.store.define(&d); err != nil {
			m.index.release(to, o.id)
			return fmt.Errorf("rename container %s: %w", o.id, err)
		}
		o.d.Store(&d)
		m.index.release(from, o.id)
		m.publish(o, events.ActionRename, "oldName", "/"+from)
		return nil
	})
}
