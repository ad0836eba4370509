package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fakeV2 is a folder of plain files that looks like a pure v2 hierarchy with the group /p/c. (The kernel of the
// reference machine has its controllers on v1.)
func fakeV2(t *testing.T, files map[string]string) (Host, *Cgroup) {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(root+"/p/c", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := Host{hiers: []hierarchy{{dir: root, v2: true, controllers: []string{"cpuset", "cpu", "blkio", "memory", "pids"}}}}
	h.choose(false)
	h.support = probe(h)
	c, err := h.Open("/p/c")
	if err != nil {
		t.Fatal(err)
	}
	return h, c
}

func TestHandDown(t *testing.T) {
	h, c := fakeV2(t, map[string]string{"cgroup.subtree_control": "cpuset cpu io memory\n", "p/cgroup.subtree_control": "cpuset cpu memory pids\n"})
	if err := c.enable(c.parts[0]); err != nil {
		t.Fatal(err)
	}
	// A plain file keeps the last write: the only controller that was missing there.
	for file, want := range map[string]string{"cgroup.subtree_control": "+pids", "p/cgroup.subtree_control": "+io"} {
		if got, _ := read(h.hiers[0].dir, file); got[:len(want)] != want {
			t.Errorf("%s: %q", file, got)
		}
	}
}

func TestLimitsOfV2(t *testing.T) {
	files := map[string]string{"p/c/io.weight": "", "p/c/memory.max": "max", "p/c/memory.swap.max": "max", "p/c/cpu.max": "", "p/c/cpu.weight": "", "p/c/memory.high": ""}
	h, c := fakeV2(t, files)
	if h.Version() != 2 || h.support.Swappiness || !h.support.Memory || !h.support.Throttle {
		t.Errorf("version %d, %+v", h.Version(), h.support)
	}
	warn, err := c.Update(&specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(300)), Swappiness: ptr(uint64(1))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(-1)), Period: ptr(uint64(1000))},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(9))}, // its file is not there: the controller was not handed down
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(100))},
		Unified: map[string]string{"memory.high": "77"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{
		"Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
		"Your kernel does not support pids.max in cgroup /p/c. Limitation discarded.",
	}, warn); d != "" {
		t.Error(d)
	}
	for file, want := range map[string]string{"io.weight": "910", "memory.max": "100", "memory.swap.max": "200", "cpu.max": "max 1000", "cpu.weight": "59", "memory.high": "77"} {
		if got, err := read(c.parts[0].dir, file); got != want || err != nil {
			t.Errorf("%s: %q, want %q (%v)", file, got, want, err)
		}
	}
	for _, bad := range []string{"../x.y", "nodot", "no.such", ".hidden"} {
		if _, err := c.Update(&specs.LinuxResources{Unified: map[string]string{bad: "1"}}); err == nil {
			t.Errorf("unified %q is taken", bad)
		}
	}
}

func TestStatsOfV2(t *testing.T) {
	_, c := fakeV2(t, map[string]string{
		"p/c/memory.current": "5\n", "p/c/memory.max": "max\n", "p/c/memory.swap.current": "3\n", "p/c/memory.stat": "anon 1\nfile 2\n",
		"p/c/memory.events": "low 0\noom 1\noom_kill 1\n",
		"p/c/cpu.stat":      "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 2\nnr_throttled 1\nthrottled_usec 6\n",
		"p/c/pids.current":  "2\n", "p/c/pids.max": "max\n", "p/c/io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
	})
	got, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	most := ^uint64(0)
	if d := cmp.Diff(&Stats{
		Memory: MemoryStats{Usage: 5, Limit: most, SwapUsage: 3, Raw: map[string]uint64{"anon": 1, "file": 2}},
		CPU:    CPUStats{Total: 7000, User: 4000, System: 3000, Periods: 2, ThrottledPeriods: 1, ThrottledTime: 6000},
		Pids:   PidsStats{Current: 2, Limit: most}, IO: []IOStats{{Major: 8, ReadBytes: 1, WriteBytes: 2, ReadOps: 3, WriteOps: 4}},
	}, got); d != "" {
		t.Error(d)
	}
	if oom, err := c.OOMKilled(); err != nil || !oom {
		t.Errorf("%v %v", oom, err)
	}
}
