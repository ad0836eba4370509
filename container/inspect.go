package container

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/storage"

	"skiff/internal/errs"
)

const storageDriver = "overlayfs"

// Inspect implements api.Containers.
func (m *Manager) Inspect(ctx context.Context, name string, size bool) (api.InspectResponse, error) {
	o, err := m.index.find(name)
	if err != nil {
		return api.InspectResponse{}, err
	}
	d, s := o.def(), o.status()
	hosts, hostname, resolv := m.etcFiles(d.ID)
	r := api.InspectResponse{
		ID: d.ID, Created: apiTime(d.Created), Args: []string{}, State: s.api(), Image: d.Image.String(),
		Name: "/" + d.Name, Driver: storageDriver, Platform: d.Platform, ExecIDs: o.runningExecs(),
		HostConfig: d.HostConfig, Config: d.Config, Mounts: mountPoints(d),
		NetworkSettings: m.networkSettings(d, s), ImageManifestDescriptor: d.Manifest,
		Storage: &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: storageDriver}}},
	}
	if argv := d.command(); len(argv) > 0 {
		r.Path, r.Args = argv[0], argv[1:]
	}
	if !s.StartedAt.IsZero() {
		r.HostsPath, r.HostnamePath, r.ResolvConfPath = hosts, hostname, resolv
	}
	if d.HostConfig.LogConfig.Type == "json-file" {
		r.LogPath = d.Log.Path
	}
	if size {
		var own, all int64
		if err := m.sizes(ctx, d, &own, &all); err != nil {
			return r, err
		}
		r.SizeRw, r.SizeRootFs = &own, &all
	}
	return r, nil
}

// api is the state as the API has it.
func (s *status) api() *api.State {
	return &api.State{
		Status: s.Phase, Running: s.alive(), Paused: s.Phase == api.StatePaused, Dead: s.Phase == api.StateDead,
		OOMKilled: s.OOMKilled, Pid: s.PID, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: apiTime(s.StartedAt), FinishedAt: apiTime(s.FinishedAt),
	}
}

// runningExecs are the ids of the execs that run; nil, which is null in the API, for none.
func (o *object) runningExecs() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var ids []string
	for _, e := range o.execs {
		e.mu.Lock()
		if e.running {
			ids = append(ids, e.id)
		}
		e.mu.Unlock()
	}
	return ids
}

func (m *Manager) networkSettings(d *definition, s *status) *api.NetworkSettings {
	n := &api.NetworkSettings{Ports: portMap(d, s), Networks: d.networks(s)}
	if s.alive() && d.HostConfig.NetworkMode.IsPrivate() && s.PID > 0 {
		n.SandboxID = d.ID
		n.SandboxKey = filepath.Join("/proc", itoa(s.PID), "ns", "net")
	}
	return n
}

// mountPoints are the container's bind mounts.
func mountPoints(d *definition) []api.MountPoint {
	points := []api.MountPoint{}
	for _, b := range d.HostConfig.Binds {
		parts := strings.SplitN(b, ":", 3)
		if len(parts) < 2 {
			continue
		}
		p := api.MountPoint{Type: mount.TypeBind, Source: parts[0], Destination: parts[1], RW: true, Propagation: mount.PropagationRPrivate}
		if len(parts) == 3 {
			p.Mode = parts[2]
			for o := range strings.SplitSeq(p.Mode, ",") {
				switch {
				case o == "ro":
					p.RW = false
				case strings.HasSuffix(o, "private"), strings.HasSuffix(o, "shared"), strings.HasSuffix(o, "slave"):
					p.Propagation = mount.Propagation(o)
				}
			}
		}
		points = append(points, p)
	}
	for _, mt := range d.HostConfig.Mounts {
		if mt.Type != mount.TypeBind && mt.Type != mount.TypeTmpfs {
			continue
		}
		p := api.MountPoint{Type: mt.Type, Source: mt.Source, Destination: mt.Target, RW: !mt.ReadOnly}
		if mt.Type == mount.TypeBind {
			p.Propagation = mount.PropagationRPrivate
			if mt.BindOptions != nil && mt.BindOptions.Propagation != "" {
				p.Propagation = mt.BindOptions.Propagation
			}
		}
		points = append(points, p)
	}
	slices.SortFunc(points, func(a, b api.MountPoint) int { return strings.Compare(a.Destination, b.Destination) })
	return points
}

// Prune removes the containers that don't run and match the filters.
func (m *Manager) Prune(ctx context.Context, filters map[string][]string) (api.PruneReport, error) {
	match, err := pruneTest(filters, time.Now())
	if err != nil {
		return api.PruneReport{}, err
	}
	var r api.PruneReport
	for _, o := range m.index.all() {
		if s := o.status(); s.alive() || s.gone() || !match(o.def(), s) {
			continue
		}
		n, err := m.cfg.Layers.Usage(ctx, o.id)
		m.warn("measure a container", o.id, err)
		if err := m.Remove(ctx, o.id, RemoveOptions{}); err != nil {
			if ctx.Err() != nil {
				return r, ctx.Err()
			}
			if !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Conflict) {
				m.warn("prune", o.id, err)
			}
			continue
		}
		r.ContainersDeleted = append(r.ContainersDeleted, o.id)
		r.SpaceReclaimed += uint64(max(n, 0))
	}
	m.cfg.Events.Publish(events.Message{
		Type: events.ContainerEventType, Action: events.ActionPrune,
		Actor: events.Actor{Attributes: map[string]string{"reclaimed": itoa(int(r.SpaceReclaimed))}},
	})
	return r, nil
}
