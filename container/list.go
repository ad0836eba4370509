package container

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
)

// listed is a container's line in a list as it was for a definition and a status. It is made once for both.
type listed struct {
	d       *definition
	s       *status
	summary api.Summary
}

// List implements api.Containers. It reads no disk, unless sizes are asked for.
func (m *Manager) List(ctx context.Context, opt ListOptions) ([]api.Summary, error) {
	f, err := m.newFilter(ctx, opt)
	if err != nil {
		return nil, err
	}
	objects := m.index.all()
	slices.SortFunc(objects, func(a, b *object) int {
		return cmp.Or(b.def().Created.Compare(a.def().Created), strings.Compare(a.id, b.id))
	})
	list := []api.Summary{}
	now := time.Now()
	for _, o := range objects {
		if opt.Limit > 0 && len(list) == opt.Limit {
			break
		}
		d, s := o.def(), o.status()
		if s.Phase == phaseGone || !f.match(d, s) {
			continue
		}
		sum := o.summary(d, s)
		sum.Status = statusText(s, now)
		if opt.Size {
			if err := m.sizes(ctx, d, &sum.SizeRw, &sum.SizeRootFs); err != nil {
				return nil, err
			}
		}
		list = append(list, sum)
	}
	return list, nil
}

// sizes are the bytes of the container's own files, and those with its image.
func (m *Manager) sizes(ctx context.Context, d *definition, own, all *int64) error {
	n, err := m.cfg.Layers.Usage(ctx, d.ID)
	if err != nil {
		return fmt.Errorf("measure container %s: %w", d.ID, err)
	}
	*own, *all = n, n
	if img, err := m.cfg.Images.Resolve(ctx, d.Image.String(), nil); err == nil {
		*all += img.Size
	}
	return nil
}

// summary gives the container's line, from the cache if nothing changed. Status is left empty: it depends on the time.
func (o *object) summary(d *definition, s *status) api.Summary {
	if l := o.cache.Load(); l != nil && l.d == d && l.s == s {
		return l.summary
	}
	sum := summarize(d, s)
	o.cache.Store(&listed{d, s, sum})
	return sum
}

func summarize(d *definition, s *status) api.Summary {
	sum := api.Summary{
		ID: d.ID, Names: []string{"/" + d.Name}, Image: d.Config.Image, ImageID: d.Image.String(),
		ImageManifestDescriptor: d.Manifest, Command: commandText(d.command()), Created: d.Created.Unix(),
		Ports: portSummaries(d, s), Labels: d.Config.Labels, State: s.Phase, Mounts: mountPoints(d),
		NetworkSettings: &api.NetworkSettingsSummary{Networks: d.networks(s)},
		Health:          &api.HealthSummary{Status: api.NoHealthcheck},
	}
	if sum.Labels == nil {
		sum.Labels = map[string]string{}
	}
	sum.HostConfig.NetworkMode = string(d.HostConfig.NetworkMode)
	sum.HostConfig.Annotations = d.HostConfig.Annotations
	return sum
}

// commandText is how the command is shown: arguments with blanks are quoted.
func commandText(argv []string) string {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		if quoted[i] = a; i > 0 && strings.Contains(a, " ") {
			quoted[i] = "'" + a + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// statusText is the column STATUS of `docker ps`.
func statusText(s *status, now time.Time) string {
	since := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch s.Phase {
	case api.StateRunning:
		return "Up " + since(s.StartedAt)
	case api.StatePaused:
		return "Up " + since(s.StartedAt) + " (Paused)"
	case api.StateRemoving:
		return "Removal In Progress"
	case api.StateCreated:
		return "Created"
	}
	if s.FinishedAt.IsZero() {
		return ""
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, since(s.FinishedAt))
}

// portSummaries are the published ports of a running container, and those that are exposed only.
func portSummaries(d *definition, s *status) []api.PortSummary {
	ports := []api.PortSummary{}
	if !s.alive() {
		return ports
	}
	bound := apinetwork.PortMap{}
	if s.Endpoint != nil {
		bound = s.Endpoint.Ports
	}
	for p, bindings := range bound {
		for _, b := range bindings {
			host, err := apinetwork.ParsePort(b.HostPort)
			if err != nil {
				continue
			}
			ports = append(ports, api.PortSummary{IP: b.HostIP, PrivatePort: p.Num(), PublicPort: host.Num(), Type: string(p.Proto())})
		}
	}
	for p := range d.Config.ExposedPorts {
		if len(bound[p]) == 0 {
			ports = append(ports, api.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(ports, func(a, b api.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), strings.Compare(a.Type, b.Type),
			a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort))
	})
	return ports
}

// portMap is what inspect shows of a running container: every exposed port, with its bindings or null.
func portMap(d *definition, s *status) apinetwork.PortMap {
	m := apinetwork.PortMap{}
	if !s.alive() {
		return m
	}
	for p := range d.Config.ExposedPorts {
		m[p] = nil
	}
	if s.Endpoint != nil {
		for p, b := range s.Endpoint.Ports {
			m[p] = b
		}
	}
	return m
}
