package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"skiff/test/kit"
)

// figures are the outcomes of one side, in the result's unit.
type figures struct {
	Median, P95 float64
	All         []float64
}

func (f figures) text(unit string, v float64) string {
	switch unit {
	case "s":
		if v < 1 {
			return fmt.Sprintf("%.1f ms", v*1000)
		}
		return fmt.Sprintf("%.2f s", v)
	case "kB":
		return fmt.Sprintf("%.0f kB", v)
	default:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
}

// result is one line of the table. Ratio is how many times better skiff is: Docker's median over skiff's.
type result struct {
	Name, Unit    string
	Skiff, Docker figures
	Ratio         float64
}

// settle is a pause before each round: an engine still works when its client has ended (Docker for tens of milliseconds), which
// would be counted as the other's time.
const settle = 200 * time.Millisecond

// measurement measures one thing on one engine; less is better. divide is how many rounds it is worth (1: all).
type measurement struct {
	name, unit string
	divide     int
	once       func(ctx context.Context, e *engine, round int) (float64, error)
}

var measurements = []measurement{
	{"run --rm busybox true", "s", 1, timed(cli("run", "--rm", "busybox", "true"))},
	{"run --rm --network none", "s", 1, timed(cli("run", "--rm", "--network", "none", "busybox", "true"))},
	{"exec CONTAINER true", "s", 1, execTrue},
	{"API create+start+wait+remove", "s", 1, timed(lifecycle)},
	{"200 starts, 16 in flight", "s", 7, burst},
	{"memory per idle container (PSS)", "kB", 20, idleMemory},
	{"ps with 200 containers", "s", 2, nil}, // needs containers made before the clock starts: see run
	{"engine CPU for 100 run --rm", "s", 10, cpuOfRuns},
}

func (m measurement) run(ctx context.Context, skiff, docker *engine, rounds int) (result, error) {
	res := result{Name: m.name, Unit: m.unit}
	once := m.once
	if once == nil {
		for _, e := range []*engine{skiff, docker} {
			if err := createMany(ctx, e, 200); err != nil {
				return res, err
			}
			defer removeAll(ctx, e)
		}
		once = timed(cli("ps", "-a", "--no-trunc"))
	}
	for _, e := range []*engine{skiff, docker} { // warm both
		if m.divide <= 2 {
			if _, err := once(ctx, e, -1); err != nil {
				return res, err
			}
		}
	}
	n := max(rounds/m.divide, 1)
	for i := range n {
		for _, side := range []struct {
			e *engine
			f *figures
		}{{skiff, &res.Skiff}, {docker, &res.Docker}} {
			time.Sleep(settle)
			v, err := once(ctx, side.e, i)
			if err != nil {
				return res, err
			}
			side.f.All = append(side.f.All, v)
		}
	}
	res.Skiff.close()
	res.Docker.close()
	res.Ratio = res.Docker.Median / res.Skiff.Median
	return res, nil
}

func (f *figures) close() {
	s := append([]float64(nil), f.All...)
	sort.Float64s(s)
	f.Median = s[len(s)/2]
	f.P95 = s[min(len(s)-1, len(s)*95/100)]
}

func timed(do func(context.Context, *engine) error) func(context.Context, *engine, int) (float64, error) {
	return func(ctx context.Context, e *engine, _ int) (float64, error) {
		start := time.Now()
		err := do(ctx, e)
		return time.Since(start).Seconds(), err
	}
}

func cli(args ...string) func(context.Context, *engine) error {
	return func(ctx context.Context, e *engine) error {
		_, err := e.command(ctx, args...)
		return err
	}
}

func execTrue(ctx context.Context, e *engine, round int) (float64, error) {
	if round <= 0 { // the warm-up starts the container; round 0 follows it at once
		e.command(ctx, "rm", "-f", "bench-exec")
		if _, err := e.command(ctx, "run", "-d", "--name", "bench-exec", "busybox", "sleep", "3600"); err != nil {
			return 0, err
		}
	}
	return timed(cli("exec", "bench-exec", "true"))(ctx, e, round)
}

const trueContainer = `{"Image":"busybox","Cmd":["true"]}`

func create(ctx context.Context, e *engine, body string) (string, error) {
	b, err := e.call(ctx, "POST", "/containers/create", body)
	if err != nil {
		return "", err
	}
	var c struct{ Id string }
	return c.Id, json.Unmarshal(b, &c)
}

func lifecycle(ctx context.Context, e *engine) error {
	id, err := create(ctx, e, trueContainer)
	if err != nil {
		return err
	}
	for _, step := range [][2]string{{"POST", "/start"}, {"POST", "/wait"}, {"DELETE", ""}} {
		if _, err := e.call(ctx, step[0], "/containers/"+id+step[1], ""); err != nil {
			return err
		}
	}
	return nil
}

func burst(ctx context.Context, e *engine, _ int) (float64, error) {
	ids := make([]string, 200)
	for i := range ids {
		id, err := create(ctx, e, trueContainer)
		if err != nil {
			return 0, err
		}
		ids[i] = id
	}
	defer removeAll(ctx, e)
	start := time.Now()
	err := parallel(16, ids, func(id string) error {
		_, err := e.call(ctx, "POST", "/containers/"+id+"/start", "")
		return err
	})
	return time.Since(start).Seconds(), err
}

func parallel(width int, items []string, do func(string) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		next  = make(chan string)
	)
	for range width {
		wg.Go(func() {
			for it := range next {
				if err := do(it); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	for _, it := range items {
		next <- it
	}
	close(next)
	wg.Wait()
	return first
}

func createMany(ctx context.Context, e *engine, n int) error {
	return parallel(8, make([]string, n), func(string) error {
		_, err := create(ctx, e, trueContainer)
		return err
	})
}

// removeAll removes every container of the engine but the one that execs run in. The engine is the benchmark's own or
// has only what the benchmark made: containers are told by their image.
func removeAll(ctx context.Context, e *engine) error {
	b, err := e.call(ctx, "GET", `/containers/json?all=1&filters={"ancestor":["busybox"]}`, "")
	if err != nil {
		return err
	}
	var cs []struct {
		Id    string
		Names []string
	}
	if err := json.Unmarshal(b, &cs); err != nil {
		return err
	}
	var ids []string
	for _, c := range cs {
		if len(c.Names) == 0 || c.Names[0] != "/bench-exec" {
			ids = append(ids, c.Id)
		}
	}
	return parallel(8, ids, func(id string) error {
		_, err := e.call(ctx, "DELETE", "/containers/"+id+"?force=1", "")
		return err
	})
}

// idleMemory is the whole engine's memory while 100 containers idle, for each of them: its own processes, the clients' and
// the containers' left out.
func idleMemory(ctx context.Context, e *engine, _ int) (float64, error) {
	for range 100 {
		id, err := create(ctx, e, `{"Image":"busybox","Cmd":["sleep","3600"]}`)
		if err != nil {
			return 0, err
		}
		if _, err := e.call(ctx, "POST", "/containers/"+id+"/start", ""); err != nil {
			return 0, err
		}
	}
	defer removeAll(ctx, e)
	time.Sleep(3 * time.Second) // what is garbage after that counts
	return float64(pss(e)) / 100, nil
}

func pss(e *engine) int {
	sum := 0
	for _, pid := range e.pids() {
		sum += kit.PSS(pid)
	}
	return sum
}

// cpuOfRuns is the CPU time of all processes of the engine, its clients and its helpers during 100 `run --rm`: the difference
// of the machine's busy time, so that short-lived helpers count too.
func cpuOfRuns(ctx context.Context, e *engine, _ int) (float64, error) {
	before, err := busy()
	if err != nil {
		return 0, err
	}
	for range 100 {
		if _, err := e.command(ctx, "run", "--rm", "busybox", "true"); err != nil {
			return 0, err
		}
	}
	after, err := busy()
	return after - before, err
}

// busy is the machine's CPU time in seconds that was not idle (proc(5), /proc/stat: user nice system idle iowait …).
func busy() (float64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	sum := 0.0
	for i, f := range strings.Fields(line)[1:] {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i != 3 && i != 4 && i < 8 {
			sum += v
		}
	}
	return sum / 100, nil
}
