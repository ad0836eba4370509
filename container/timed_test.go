package container

import (
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"

	"skiff/keeper"
	"skiff/layer"
	"skiff/network"
)

// times keeps what the parts below the manager take, for benchmarks.
type times struct {
	mu   sync.Mutex
	took map[string][]time.Duration
}

func (t *times) since(what string, start time.Time) {
	d := time.Since(start)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took[what] = append(t.took[what], d)
}

// report gives the first decile: others may be using the machine.
func (t *times) report(b *testing.B) {
	for what, d := range t.took {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/10].Microseconds()), what+"-us")
	}
}

type timedLayers struct {
	Layers
	t *times
}

func (l timedLayers) Mount(ctx context.Context, s layer.Snapshot) (*os.File, error) {
	defer l.t.since("mount", time.Now())
	return l.Layers.Mount(ctx, s)
}

type timedNetworks struct {
	Networks
	t *times
}

func (n timedNetworks) Connect(ctx context.Context, r network.Request) (network.Endpoint, error) {
	defer n.t.since("net", time.Now())
	return n.Networks.Connect(ctx, r)
}

func (n timedNetworks) Isolated(ctx context.Context, id string, s map[string]string) (*os.File, error) {
	defer n.t.since("net", time.Now())
	return n.Networks.Isolated(ctx, id, s)
}

func (n timedNetworks) Release(ctx context.Context, id string) error {
	defer n.t.since("release", time.Now())
	return n.Networks.Release(ctx, id)
}

type timedKeeper struct {
	Keeper
	t *times
}

func (k timedKeeper) Launch(ctx context.Context, r keeper.LaunchRequest) (keeper.Process, error) {
	defer k.t.since("launch", time.Now())
	return k.Keeper.Launch(ctx, r)
}

type timedRuntime struct {
	Runtime
	t *times
}

func (r timedRuntime) NewGroup(ctx context.Context, id string, h *api.HostConfig) (Group, error) {
	defer r.t.since("cgroup", time.Now())
	return r.Runtime.NewGroup(ctx, id, h)
}

func (r timedRuntime) Container(ctx context.Context, in ContainerProcess) (*Program, error) {
	defer r.t.since("compile", time.Now())
	return r.Runtime.Container(ctx, in)
}

func (r timedRuntime) Exec(ctx context.Context, in ExecProcess) (*Program, error) {
	defer r.t.since("compile", time.Now())
	return r.Runtime.Exec(ctx, in)
}

// timed puts the stopwatch between the manager and what is below it.
func (r *rig) timed() *times {
	t := &times{took: map[string][]time.Duration{}}
	c := &r.Manager.cfg
	c.Layers, c.Networks, c.Keeper, c.Runtime = timedLayers{c.Layers, t}, timedNetworks{c.Networks, t}, timedKeeper{c.Keeper, t}, timedRuntime{c.Runtime, t}
	return t
}
