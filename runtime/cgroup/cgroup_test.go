package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

func ptr[T any](v T) *T { return &v }

// testHost is the machine's own, or the test is skipped.
func testHost(t testing.TB) Host {
	t.Helper()
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 || len(h.hiers) == 0 {
		t.Skip("needs root and cgroups")
	}
	return h
}

// testPath is a path of this test and process alone.
func testPath(t testing.TB) string {
	return fmt.Sprintf("/skiff-test-%d/%s", os.Getpid(), strings.NewReplacer("/", "_", "#", "_").Replace(t.Name()))
}

func create(t testing.TB, h Host, r *specs.LinuxResources) *Cgroup {
	t.Helper()
	c, warn, err := h.Create(testPath(t), r)
	if err != nil {
		t.Fatal(err)
	}
	if len(warn) > 0 {
		t.Log("warnings:", warn)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(c.Kill(ctx), c.Remove(ctx)); err != nil {
			t.Error(err)
		}
		for _, p := range c.parts {
			if exists(p.dir) {
				t.Errorf("%s is still there", p.dir)
			}
			_ = unix.Rmdir(filepath.Dir(p.dir)) // the last test of the process takes the parent away
		}
	})
	return c
}

// spawn starts a shell that waits for a line on its stdin, then runs the script.
func spawn(t testing.TB, c *Cgroup, script string) (run func() (string, error), cmd *exec.Cmd) {
	t.Helper()
	cmd = exec.Command("/bin/sh", "-c", "read x; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	dir, err := c.Dir()
	if err != nil {
		t.Fatal(err)
	}
	if dir != nil {
		defer func() { _ = dir.Close() }()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return func() (string, error) {
		_, _ = in.Write([]byte("\n"))
		err := cmd.Wait()
		return out.String(), err
	}, cmd
}

func (c *Cgroup) must(t *testing.T, controller, file string) string {
	t.Helper()
	p, ok := c.part(controller)
	if !ok {
		t.Fatalf("no part for %s", controller)
	}
	s, err := read(p.dir, file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLimitsOfV1(t *testing.T) {
	h := testHost(t)
	if h.Version() != 1 {
		t.Skip("not a v1 host")
	}
	c := create(t, h, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(128 << 20)), Reservation: ptr(int64(32 << 20)), Swappiness: ptr(uint64(10)), DisableOOMKiller: ptr(true)},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(33))},
	})
	for _, w := range []struct{ ctl, file, want string }{
		{"memory", "memory.limit_in_bytes", "67108864"},
		{"memory", "memory.memsw.limit_in_bytes", "134217728"},
		{"memory", "memory.soft_limit_in_bytes", "33554432"},
		{"memory", "memory.swappiness", "10"},
		{"cpu", "cpu.shares", "512"},
		{"cpu", "cpu.cfs_quota_us", "50000"},
		{"cpuset", "cpuset.cpus", "0"},
		{"cpuset", "cpuset.mems", "0"},
		{"pids", "pids.max", "33"},
	} {
		if got := c.must(t, w.ctl, w.file); got != w.want {
			t.Errorf("%s: %s, want %s", w.file, got, w.want)
		}
	}
	if got := c.must(t, "memory", "memory.oom_control"); !strings.Contains(got, "oom_kill_disable 1") {
		t.Error(got)
	}
	// Both limits raised above and lowered below what they were.
	for _, mb := range []int64{512, 16} {
		if _, err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(mb << 20), Swap: ptr(mb << 20)}}); err != nil {
			t.Fatal(err)
		}
		if got := c.must(t, "memory", "memory.memsw.limit_in_bytes"); got != strconv.FormatInt(mb<<20, 10) {
			t.Error(got)
		}
	}
	// What is not mentioned stays.
	if got := c.must(t, "pids", "pids.max"); got != "33" {
		t.Error(got)
	}
	o, err := h.Open(c.Path())
	if err != nil || !cmp.Equal(o.Paths(), sortedAs(c.Paths(), o.Paths())) {
		t.Errorf("Open: %v\n%v\n%v", err, o.Paths(), c.Paths())
	}
}

// sortedAs puts a in the order of b.
func sortedAs(a, b []Mount) []Mount {
	out := slices.Clone(a)
	slices.SortFunc(out, func(x, y Mount) int {
		i := slices.IndexFunc(b, func(m Mount) bool { return m.Host == x.Host })
		j := slices.IndexFunc(b, func(m Mount) bool { return m.Host == y.Host })
		return i - j
	})
	return out
}

func TestRefusedLimit(t *testing.T) {
	h := testHost(t)
	if !h.support.Cpuset {
		t.Skip("no cpuset")
	}
	path := testPath(t)
	_, _, err := h.Create(path, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4096"}})
	if err == nil || !strings.Contains(err.Error(), "cpuset.cpus") {
		t.Errorf("%v", err)
	}
	for _, hi := range h.hiers {
		if exists(filepath.Join(hi.dir, path)) {
			t.Errorf("left behind: %s", filepath.Join(hi.dir, path))
		}
		_ = unix.Rmdir(filepath.Dir(filepath.Join(hi.dir, path)))
	}
	for _, bad := range []string{"/", "", "/a/../../b", "x\x00"} {
		if _, _, err := h.Create(bad, nil); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPidsLimit(t *testing.T) {
	h := testHost(t)
	if !h.support.Pids {
		t.Skip("no pids controller")
	}
	c := create(t, h, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(3))}})
	run, _ := spawn(t, c, "sleep 0.2 & sleep 0.2 & sleep 0.2 & sleep 0.2 & wait")
	out, _ := run()
	if !strings.Contains(strings.ToLower(out), "fork") {
		t.Errorf("fork bomb not stopped: %q", out)
	}
}

func TestOOM(t *testing.T) {
	h := testHost(t)
	if !h.support.Memory {
		t.Skip("no memory controller")
	}
	c := create(t, h, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(8 << 20)), Swap: ptr(int64(8 << 20))}})
	if oom, err := c.OOMKilled(); err != nil || oom {
		t.Fatalf("%v %v", oom, err)
	}
	run, _ := spawn(t, c, "exec head -c 64000000 /dev/zero | tail -c 63000000 >/dev/null")
	_, _ = run()
	if oom, err := c.OOMKilled(); err != nil || !oom {
		t.Errorf("OOM kill not seen: %v %v", oom, err)
	}
	s, err := c.Stats()
	if err != nil || s.Memory.Limit != 8<<20 || s.CPU.Total == 0 || s.CPU.Total < s.CPU.User {
		t.Errorf("%+v %v", s, err)
	}
}

// dockerRules are the rules of an ordinary container, shortened.
var dockerRules = []specs.LinuxDeviceCgroup{
	{Allow: false, Access: "rwm"},
	{Allow: true, Type: "c", Access: "m"},
	{Allow: true, Type: "b", Access: "m"},
	{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(3)), Access: "rwm"},
	{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(5)), Access: "r"},
}

const deviceScript = `
(echo x >/dev/null) 2>/dev/null && echo null-w
(head -c1 /dev/zero >/dev/null) 2>/dev/null && echo zero-r
(echo x >/dev/zero) 2>/dev/null && echo zero-w
(head -c1 /dev/urandom >/dev/null) 2>/dev/null && echo urandom-r
exit 0`

func TestDevices(t *testing.T) {
	h := testHost(t)
	c := create(t, h, &specs.LinuxResources{Devices: dockerRules})
	run, _ := spawn(t, c, deviceScript)
	if out, err := run(); out != "null-w\nzero-r\n" || err != nil {
		t.Errorf("got %q %v", out, err)
	}
	if _, err := c.Update(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true}}}); err != nil {
		t.Fatal(err)
	}
	run, _ = spawn(t, c, deviceScript)
	if out, _ := run(); out != "null-w\nzero-r\nzero-w\nurandom-r\n" {
		t.Errorf("after update: %q", out)
	}
}

// TestDevicesOfV2 forces the eBPF way: on a hybrid host v2 takes programs as well.
func TestDevicesOfV2(t *testing.T) {
	h := testHost(t)
	hi, ok := h.v2()
	if !ok {
		t.Skip("no cgroup v2")
	}
	hi.controllers = nil
	only := Host{hiers: []hierarchy{hi}}
	c := create(t, only, &specs.LinuxResources{Devices: dockerRules})
	run, _ := spawn(t, c, deviceScript)
	if out, err := run(); out != "null-w\nzero-r\n" || err != nil {
		t.Errorf("got %q %v", out, err)
	}
	// The default turned round, twice: the old program must go.
	for _, u := range []struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{[]specs.LinuxDeviceCgroup{{Allow: true}, {Allow: false, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(5)), Access: "w"}}, "null-w\nzero-r\nurandom-r\n"},
		{[]specs.LinuxDeviceCgroup{{Allow: true}}, "null-w\nzero-r\nzero-w\nurandom-r\n"},
	} {
		if _, err := c.Update(&specs.LinuxResources{Devices: u.rules}); err != nil {
			t.Fatal(err)
		}
		run, _ = spawn(t, c, deviceScript)
		if out, _ := run(); out != u.want {
			t.Errorf("after update: %q, want %q", out, u.want)
		}
	}
	f, err := os.Open(c.parts[0].dir)
	if err != nil {
		t.Fatal(err)
	}
	progs, err := attached(f)
	if err != nil || len(progs) != 1 {
		t.Errorf("%d programs, %v", len(progs), err)
	}
	closeAll(progs)
	_ = f.Close()
}

func TestFreezeAndKill(t *testing.T) {
	host := testHost(t)
	hosts := map[string]Host{"whole": host}
	if v1 := (Host{hiers: slices.DeleteFunc(slices.Clone(host.hiers), func(h hierarchy) bool { return h.v2 })}); len(v1.hiers) > 0 {
		v1.choose(false)
		v1.support = probe(v1)
		hosts["v1 alone"] = v1
	}
	for name, h := range hosts {
		t.Run(name, func(t *testing.T) {
			c := create(t, h, nil)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			run, cmd := spawn(t, c, "sleep 100 & sleep 100 & wait")
			go func() { _, _ = run() }()
			waitFor(t, func() bool { p, err := c.Procs(); return err == nil && len(p) == 3 })
			if p, _ := c.Procs(); !slices.Contains(p, cmd.Process.Pid) {
				t.Errorf("%v without %d", p, cmd.Process.Pid)
			}
			for range 2 {
				if err := c.Freeze(ctx); err != nil {
					t.Fatal(err)
				}
				if err := c.Thaw(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Freeze(ctx); err != nil {
				t.Fatal(err)
			}
			short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
			defer stop()
			if err := c.Remove(short); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, unix.EBUSY) {
				t.Errorf("Remove of a living group: %v", err)
			}
			if _, _, err := h.Create(c.Path(), nil); !errs.Is(err, errs.Conflict) {
				t.Errorf("Create over a living group: %v", err)
			}
			if err := c.Kill(ctx); err != nil { // frozen
				t.Fatal(err)
			}
			waitFor(t, func() bool { p, err := c.Procs(); return err == nil && len(p) == 0 })
		})
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatal("it did not come to pass")
}

// A limit in a hierarchy that the group has no folder in yet: its processes move in.
func TestUpdateMovesIn(t *testing.T) {
	h := testHost(t)
	if _, ok := h.home("cpuset"); !ok || h.Version() != 1 {
		t.Skip("no cpuset on v1")
	}
	c := create(t, h, nil)
	if _, ok := c.part("cpuset"); ok {
		t.Fatal("cpuset is made though nobody asked for it")
	}
	run, cmd := spawn(t, c, "sleep 100 & wait")
	go func() { _, _ = run() }()
	waitFor(t, func() bool { p, _ := c.Procs(); return len(p) == 2 })
	if _, err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(c.must(t, "cpuset", "cgroup.procs")); len(got) != 2 || !slices.Contains(got, strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("%v", got)
	}
}

// What a crash left is taken over, with folders inside.
func TestLeftovers(t *testing.T) {
	h := testHost(t)
	c := create(t, h, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}})
	for _, p := range c.parts {
		if err := os.MkdirAll(p.dir+"/in/ner", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := h.List(filepath.Dir(c.Path())); err != nil || !slices.Contains(names, filepath.Base(c.Path())) {
		t.Errorf("List: %v %v", names, err)
	}
	d, _, err := h.Create(c.Path(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.support.Pids {
		if got := d.must(t, "pids", "pids.max"); got != "max" {
			t.Errorf("an old limit survived: %s", got)
		}
	}
	if err := d.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context()); err != nil {
		t.Errorf("second Remove: %v", err)
	}
	if _, err := h.Open(c.Path()); !errs.Is(err, errs.NotFound) {
		t.Errorf("Open of a removed group: %v", err)
	}
	if p, err := d.Procs(); err != nil || len(p) != 0 {
		t.Errorf("Procs of a removed group: %v %v", p, err)
	}
}

func TestNoCgroups(t *testing.T) {
	c, warn, err := Host{}.Create("/skiff/x", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}})
	if err != nil || len(warn) != 1 {
		t.Fatalf("%v %v", warn, err)
	}
	ctx := t.Context()
	_, e1 := c.Stats()
	_, e2 := c.OOMKilled()
	d, e3 := c.Dir()
	if err := errors.Join(e1, e2, e3, c.Kill(ctx), c.Remove(ctx)); err != nil || len(c.Paths()) != 0 || d != nil {
		t.Error(err, d)
	}
}

// A process that writes "0" to the tasks files of v1 is in, as the launch program does it.
func TestEnter(t *testing.T) {
	h := testHost(t)
	c := create(t, h, nil)
	script, want := "", 0
	for _, m := range c.Paths() {
		if !m.V2 {
			script += fmt.Sprintf("echo 0 >%s/tasks; ", m.Host)
			want++
		}
	}
	out, err := exec.Command("/bin/sh", "-c", script+"cat /proc/self/cgroup").Output()
	if err != nil {
		t.Fatal(err)
	}
	in := 0
	for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
		if strings.HasSuffix(s.Text(), ":"+c.Path()) {
			in++
		}
	}
	if in != want {
		t.Errorf("%d of %d:\n%s", in, want, out)
	}
}

func BenchmarkCreateRemove(b *testing.B) {
	h := testHost(b)
	r := &specs.LinuxResources{Devices: dockerRules}
	path := testPath(b)
	for b.Loop() {
		c, _, err := h.Create(path, r)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	for _, hi := range h.hiers {
		_ = unix.Rmdir(filepath.Join(hi.dir, filepath.Dir(path)))
	}
}
