package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"skiff/image"
	"skiff/internal/errs"
)

// Create implements api.Containers. When it returns, the container is durable, unless it is to be removed when it ends.
//
// The snapshot and the folder are made beside the record, not before it. Killed between, one of both is there alone: a
// record without a snapshot gets one at the first start, a snapshot without a record is removed by reconcile.
func (m *Manager) Create(ctx context.Context, opt CreateOptions) (string, []string, error) {
	if opt.Config == nil {
		return "", nil, errs.New(errs.Invalid, "Config cannot be empty in order to create a container")
	}
	if opt.Name != "" {
		var err error
		if opt.Name, err = checkName(opt.Name); err != nil {
			return "", nil, err
		}
	}
	img, err := m.cfg.Images.Resolve(ctx, opt.Config.Image, opt.Platform)
	if err != nil {
		return "", nil, err
	}
	id := newID()
	name, err := m.index.reserve(opt.Name, id, img.ID.String())
	if err != nil {
		return "", nil, err
	}
	d, warnings, err := m.define(opt, img, id, name)
	if err == nil {
		err = m.makeContainer(ctx, d)
	}
	if err != nil {
		m.index.release(name, id)
		return "", nil, err
	}
	o := newObject(d, &status{Phase: api.StateCreated})
	m.index.add(o)
	m.publish(o, events.ActionCreate)
	return id, warnings, nil
}

// define completes what was asked for into a definition.
func (m *Manager) define(opt CreateOptions, img image.Image, id, name string) (*definition, []string, error) {
	host, err := completeHostConfig(opt.HostConfig, m.cfg.Defaults)
	if err != nil {
		return nil, nil, err
	}
	if host.LogConfig, err = completeLogConfig(host.LogConfig, m.cfg.Defaults.Log); err != nil {
		return nil, nil, err
	}
	config, err := mergeConfig(opt.Config, img.Config.Config)
	if err != nil {
		return nil, nil, err
	}
	if err := setHostname(config, host, id); err != nil {
		return nil, nil, err
	}
	if err := checkNetworking(opt.NetworkingConfig, host); err != nil {
		return nil, nil, err
	}
	if err := m.checkShared(host); err != nil {
		return nil, nil, err
	}
	warnings, err := m.cfg.Runtime.Validate(config, host)
	if err != nil {
		return nil, nil, err
	}
	if host.NetworkMode.IsHost() && (len(host.PortBindings) > 0 || host.PublishAllPorts) {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	d := &definition{
		ID: id, Name: name, Created: time.Now().UTC(),
		Image: img.ID, Chain: img.Chain, Platform: img.Config.OS,
		Config: config, HostConfig: host, Networking: opt.NetworkingConfig,
	}
	if img.Manifest.Digest != "" {
		d.Manifest = &img.Manifest
	}
	if d.Log, err = logTo(d, m.dir(id)); err != nil {
		return nil, nil, err
	}
	return d, warnings, nil
}

// checkShared pins the containers whose namespaces are to be shared by their ids: names may change.
func (m *Manager) checkShared(h *api.HostConfig) error {
	pin := func(mode string, name string, set func(string)) error {
		o, err := m.index.find(name)
		if err != nil {
			return fmt.Errorf("can't join the %s of %q: %w", mode, name, err)
		}
		set("container:" + o.id)
		return nil
	}
	if h.NetworkMode.IsContainer() {
		if err := pin("network", h.NetworkMode.ConnectedContainer(), func(s string) { h.NetworkMode = api.NetworkMode(s) }); err != nil {
			return err
		}
	}
	if h.IpcMode.IsContainer() {
		if err := pin("IPC namespace", h.IpcMode.Container(), func(s string) { h.IpcMode = api.IpcMode(s) }); err != nil {
			return err
		}
	}
	if h.PidMode.IsContainer() {
		return pin("PID namespace", h.PidMode.Container(), func(s string) { h.PidMode = api.PidMode(s) })
	}
	return nil
}

// makeContainer makes the folder, the snapshot and the record, or nothing.
func (m *Manager) makeContainer(ctx context.Context, d *definition) error {
	if err := os.Mkdir(m.dir(d.ID), 0o710); err != nil {
		return fmt.Errorf("create container %s: make its folder: %w", d.Name, err)
	}
	prepared := make(chan error, 1)
	prepare := func() {
		_, err := m.cfg.Layers.Prepare(ctx, d.ID, d.Chain, d.HostConfig.AutoRemove)
		prepared <- err
	}
	if d.HostConfig.AutoRemove {
		prepare() // the record costs less than a goroutine
	} else {
		go prepare()
	}
	recorded := m.store.define(d)
	err := <-prepared
	if err == nil && recorded == nil {
		return nil
	}
	if err != nil {
		err = fmt.Errorf("create container %s: prepare its file system: %w", d.Name, err)
	}
	if recorded != nil {
		recorded = fmt.Errorf("create container %s: record it: %w", d.Name, recorded)
	} else {
		m.warn("undo a creation: forget the record", d.ID, m.store.forget(d))
	}
	if joined := errors.Join(err, recorded); errors.Is(joined, unix.ENOSPC) || errors.Is(joined, unix.EDQUOT) {
		err, recorded = errs.As(errs.Exhausted, joined), nil
	}
	m.warn("undo a creation: discard the snapshot", d.ID, m.cfg.Layers.Discard(context.WithoutCancel(ctx), d.ID))
	m.warn("undo a creation: remove the folder", d.ID, os.RemoveAll(m.dir(d.ID)))
	return errors.Join(err, recorded)
}

// warn logs what went wrong where nothing can be done about it now; the next reconcile will.
func (m *Manager) warn(what, id string, err error) {
	if err != nil && !errs.Is(err, errs.NotFound) {
		m.log.Warn(what, "container", shortID(id), "error", err)
	}
}
