// Command bench measures skiff against Docker, alternating between the two in one run, and prints a table of medians and
// 95th percentiles with ratios; the same goes to a JSON file. Absolute times depend on the machine and its load; the ratios
// are what counts.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 20, "rounds of each measurement, alternating")
	only := flag.String("only", "", "run only the measurements whose name contains this")
	out := flag.String("json", "bench.json", "file for the figures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// report is the JSON file.
type report struct {
	Date, Kernel, CgroupMode, RCUExpedited string
	Docker, Skiff                          string
	Rounds                                 int
	Results                                []result
}

func run(ctx context.Context, rounds int, only, out string) error {
	skiff, docker, stop, err := engines(ctx)
	if err != nil {
		return err
	}
	defer stop()
	r := report{
		Date: time.Now().UTC().Format(time.RFC3339), Kernel: readLine("/proc/sys/kernel/osrelease"), CgroupMode: cgroupMode(),
		RCUExpedited: readLine("/sys/kernel/rcu_expedited"), Rounds: rounds, Docker: docker.version, Skiff: skiff.version,
	}
	fmt.Printf("kernel %s, cgroup %s, rcu_expedited %s, %d rounds, alternating\nskiff: %s\ndocker: %s\n\n",
		r.Kernel, r.CgroupMode, r.RCUExpedited, rounds, r.Skiff, r.Docker)
	fmt.Printf("%-34s %12s %12s %12s %12s %8s\n", "WHAT", "SKIFF med", "SKIFF p95", "DOCKER med", "DOCKER p95", "RATIO")
	for _, m := range measurements {
		if !strings.Contains(m.name, only) {
			continue
		}
		res, err := m.run(ctx, skiff, docker, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		fmt.Printf("%-34s %12s %12s %12s %12s %7.1fx\n", m.name, res.Skiff.text(res.Unit, res.Skiff.Median), res.Skiff.text(res.Unit, res.Skiff.P95),
			res.Docker.text(res.Unit, res.Docker.Median), res.Docker.text(res.Unit, res.Docker.P95), res.Ratio)
		r.Results = append(r.Results, res)
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
}

func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func cgroupMode() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "v2"
	}
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.controllers"); err == nil {
		return "hybrid"
	}
	return "v1"
}
