package keeper_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skiff/keeper"
	"skiff/keeper/server"
	"skiff/runtime/launch"
)

// BenchmarkLaunch measures launch, exit and forget of /bin/true; "direct" is the launch program without a keeper.
func BenchmarkLaunch(b *testing.B) {
	prog := program(b, "/bin/true")
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	fs := files(null, null, null)
	b.Run("direct", func(b *testing.B) {
		for b.Loop() {
			var p launch.Program
			if err := p.UnmarshalBinary(prog); err != nil {
				b.Fatal(err)
			}
			proc, err := p.Start(fs, launch.Options{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := proc.Wait(); err != nil {
				b.Fatal(err)
			}
			proc.PIDFD.Close()
		}
	})
	for _, log := range []bool{false, true} {
		b.Run(fmt.Sprintf("keeper,log=%v", log), func(b *testing.B) {
			c := startProgram(b)
			var launches []time.Duration
			var cfg keeper.LogConfig
			for i := 0; b.Loop(); i++ {
				id := fmt.Sprintf("p%d", i)
				s := pipes(b)
				if log {
					cfg = jsonLog(b)
				}
				begin := time.Now()
				p, err := c.Launch(ctx(b), keeper.LaunchRequest{ID: id, Program: prog, Files: fs, Stdout: s.out, Stderr: s.err, Log: cfg})
				if err != nil {
					b.Fatal(err)
				}
				launches = append(launches, time.Since(begin))
				p.PIDFD.Close()
				s.close()
				exit(b, c, id)
				if err := c.Forget(ctx(b), id); err != nil {
					b.Fatal(err)
				}
			}
			slices.Sort(launches)
			b.ReportMetric(float64(launches[len(launches)/2].Microseconds()), "µs/launch(median)")
		})
	}
	b.Run("ping", func(b *testing.B) {
		c := startProgram(b)
		for b.Loop() {
			if err := c.Ping(ctx(b)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// prefork is a launcher that has its processes already: what remains of a launch is the keeper's own work.
func prefork(n int) server.Launcher {
	ready := make(chan [2]int, n)
	for range n {
		pidfd := -1
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "100"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{PidFD: &pidfd, Pdeathsig: syscall.SIGKILL}})
		if err != nil {
			panic(err)
		}
		ready <- [2]int{pid, pidfd}
	}
	return func([]byte, []int) (int, int, error) {
		p := <-ready
		return p[0], p[1], nil
	}
}

// BenchmarkLaunchOverhead is what the keeper adds to clone and execve.
func BenchmarkLaunchOverhead(b *testing.B) {
	b.Setenv("SKIFF_TEST_PREFORK", "1")
	prog := append(program(b, "/bin/true"), make([]byte, 16<<10)...)
	for _, log := range []bool{false, true} {
		b.Run(fmt.Sprintf("log=%v", log), func(b *testing.B) {
			c := start(b)
			dir := execRoot(b)
			var all []time.Duration
			for i := range 1000 {
				id := fmt.Sprintf("p%d", i)
				s := pipes(b)
				var cfg keeper.LogConfig
				if log {
					cfg = keeper.LogConfig{Driver: "json-file", Path: filepath.Join(dir, id), MaxSize: 20 << 20, MaxFiles: 3}
				}
				begin := time.Now()
				p, err := c.Launch(context.Background(), keeper.LaunchRequest{ID: id, Program: prog, Files: files(s.childIn, s.childOut, s.chErr), Stdin: s.in, Stdout: s.out, Stderr: s.err, Log: cfg})
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, time.Since(begin))
				p.PIDFD.Close()
				s.close()
			}
			slices.Sort(all)
			for b.Loop() { // all was measured above
			}
			b.ReportMetric(float64(all[500].Microseconds()), "µs(median)")
			b.ReportMetric(float64(all[950].Microseconds()), "µs(p95)")
		})
	}
}

// keeperProgram builds the real program: its size and memory are what counts.
func keeperProgram(t testing.TB) string {
	t.Helper()
	path := filepath.Join(execRoot(t), "skiff-keeper")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "skiff/cmd/skiff-keeper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func startProgram(t testing.TB) *keeper.Client {
	t.Helper()
	c, err := keeper.Start(ctx(t), keeper.StartOptions{Program: keeperProgram(t), ExecRoot: execRoot(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pss is a process's proportional set size in KiB, and its resident set.
func pss(t testing.TB, pid int) (p, rss int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		_, _ = fmt.Sscanf(l, "Pss: %d kB", &p)
		_, _ = fmt.Sscanf(l, "Rss: %d kB", &rss)
	}
	return p, rss
}

// TestMemory holds the keeper to its bounds: 6 MB at rest, 40 KB for each idle process.
func TestMemory(t *testing.T) {
	c := startProgram(t)
	time.Sleep(200 * time.Millisecond)
	empty, rss := pss(t, c.Pid())
	const n = 200
	for i := range n {
		log := jsonLog(t)
		run(t, c, fmt.Sprintf("p%d", i), log, nil, "/bin/sh", "-c", "echo hello; exec sleep 1000")
	}
	time.Sleep(8 * time.Second)
	full, rssFull := pss(t, c.Pid())
	each := float64(full-empty) / n
	t.Logf("at rest %d KiB PSS (%d KiB RSS), with %d idle processes %d KiB (%d): %.1f KiB each", empty, rss, n, full, rssFull, each)
	if empty > 6<<10 || each > 40 {
		t.Error("too much")
	}
}

// TestReplacementIsQuick holds the time between a keeper's death and its successor's first answer.
func TestReplacementIsQuick(t *testing.T) {
	c := startProgram(t)
	for i := range 20 {
		run(t, c, fmt.Sprintf("p%d", i), jsonLog(t), nil, "/bin/sleep", "1000")
	}
	var all []time.Duration
	for range 10 {
		pid := c.Pid()
		begin := time.Now()
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for c.Pid() == pid || c.Ping(ctx(t)) != nil {
			time.Sleep(100 * time.Microsecond)
		}
		all = append(all, time.Since(begin))
	}
	slices.Sort(all)
	t.Logf("median %v, worst %v", all[len(all)/2], all[len(all)-1])
	if all[len(all)/2] > 500*time.Millisecond {
		t.Error("too slow")
	}
}
