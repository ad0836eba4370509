package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/nftables"

	"skiff/test/kit"
)

// engine is one of the two sides: a client program and an API socket.
type engine struct {
	name    string
	cli     []string // program and the arguments that lead it to the daemon
	socket  string
	version string
	http    *http.Client
	// pids finds the engine's own processes, not the containers'.
	pids func() []int
}

func newEngine(name, socket string, cli ...string) *engine {
	e := &engine{name: name, cli: cli, socket: socket}
	e.http = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 32,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	return e
}

// command runs the client and fails with its output if it fails.
func (e *engine) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, e.cli[0], append(e.cli[1:], args...)...)
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", e.name, strings.Join(args, " "), err, errb.String())
	}
	return out.Bytes(), nil
}

// call makes an API request and returns the body of a 2xx or 304 answer.
func (e *engine) call(ctx context.Context, method, path, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://engine/v1.41"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 400 {
		return nil, fmt.Errorf("%s %s %s: %s: %s", e.name, method, path, resp.Status, b)
	}
	return b, nil
}

// engines starts both sides with the same busybox image.
func engines(ctx context.Context) (skiff, docker *engine, stop func(), err error) {
	var stops []func()
	stop = func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	reg, err := kit.StartRegistry(ctx)
	if err != nil {
		return nil, nil, stop, err
	}
	stops = append(stops, reg.Stop)
	d, err := kit.StartDaemon(ctx, kit.Options{Mirror: reg.URL()})
	if err != nil {
		return nil, nil, stop, err
	}
	stops = append(stops, func() { d.Destroy() })
	bin, err := kit.Bin("skiff")
	if err != nil {
		return nil, nil, stop, err
	}
	skiff = newEngine("skiff", d.Socket, bin, "-H", "unix://"+d.Socket)
	skiff.pids = func() (pids []int) {
		for _, p := range d.Processes() {
			pids = append(pids, p.PID)
		}
		return pids
	}
	docker, dstop, err := startDocker(ctx)
	if err != nil {
		return nil, nil, stop, err
	}
	stops = append(stops, dstop)
	if _, err = skiff.command(ctx, "pull", "-q", "busybox"); err != nil {
		return nil, nil, stop, err
	}
	tar := filepath.Join(d.Dir, "busybox.tar")
	if _, err = skiff.command(ctx, "save", "-o", tar, "busybox"); err != nil {
		return nil, nil, stop, err
	}
	if _, err = docker.command(ctx, "load", "-i", tar); err != nil {
		return nil, nil, stop, err
	}
	for _, e := range []*engine{skiff, docker} {
		v, err := e.command(ctx, "version", "--format", "{{.Server.Version}} (API {{.Server.APIVersion}}), client {{.Client.Version}}")
		if err != nil {
			return nil, nil, stop, err
		}
		e.version = strings.TrimSpace(string(v))
	}
	return skiff, docker, stop, nil
}

// startDocker uses the running Docker of the machine, else starts dockerd (of the PATH, or the one that test/prepare put
// under .cache/) in folders of its own.
func startDocker(ctx context.Context) (*engine, func(), error) {
	root, err := kit.Root()
	if err != nil {
		return nil, nil, err
	}
	unpacked := filepath.Join(root, ".cache", "dockerd", "usr")
	path := os.Getenv("PATH") + ":" + unpacked + "/sbin:" + unpacked + "/bin"
	os.Setenv("PATH", path) // dockerd finds containerd and runc there
	client, err := exec.LookPath("docker")
	if err != nil {
		return nil, nil, errors.New("no docker client: run test/prepare docker")
	}
	if c, err := net.Dial("unix", "/var/run/docker.sock"); err == nil {
		c.Close()
		e := newEngine("docker", "/var/run/docker.sock", client)
		e.pids = pidsOf("dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy")
		return e, func() {}, nil
	}
	dockerd, err := exec.LookPath("dockerd")
	if err != nil {
		return nil, nil, errors.New("no dockerd: run test/prepare docker")
	}
	dir, err := os.MkdirTemp("", "skd")
	if err != nil {
		return nil, nil, err
	}
	socket := filepath.Join(dir, "d.sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd := exec.Command(dockerd, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"-H", "unix://"+socket, "--pidfile", filepath.Join(dir, "pid"), "--config-file", filepath.Join(dir, "none"))
	cmd.Stdout, cmd.Stderr = log, log
	os.WriteFile(filepath.Join(dir, "none"), []byte("{}"), 0o644)
	foreign, err := tables()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start dockerd: %w", err)
	}
	stop := func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		unmountBelow(dir)
		os.RemoveAll(dir)
		// dockerd leaves its bridge and its firewall tables behind, one of which drops what others forward.
		exec.Command("ip", "link", "del", "docker0").Run()
		removeTables(foreign)
	}
	e := newEngine("docker", socket, client, "-H", "unix://"+socket)
	e.pids = pidsOf("dockerd", "containerd", "containerd-shim-runc-v2", "containerd-shim", "docker-proxy")
	for range 600 {
		if _, err = e.call(ctx, "GET", "/_ping", ""); err == nil {
			return e, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	b, _ := os.ReadFile(log.Name())
	stop()
	return nil, nil, fmt.Errorf("dockerd did not answer: %w; its log:\n%s", err, b)
}

type tableKey struct {
	family nftables.TableFamily
	name   string
}

// tables lists the firewall tables of the host.
func tables() (map[tableKey]bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	ts, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	seen := map[tableKey]bool{}
	for _, t := range ts {
		seen[tableKey{t.Family, t.Name}] = true
	}
	return seen, nil
}

// removeTables removes what iptables-nft made for dockerd: its tables, if they were not there before.
func removeTables(before map[tableKey]bool) {
	now, err := tables()
	if err != nil {
		return
	}
	conn, err := nftables.New()
	if err != nil {
		return
	}
	for k := range now {
		if !before[k] && (k.name == "nat" || k.name == "filter" || k.name == "raw") {
			conn.DelTable(&nftables.Table{Family: k.family, Name: k.name})
		}
	}
	conn.Flush()
}

func unmountBelow(dir string) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	lines := strings.Split(string(b), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 4 && strings.HasPrefix(f[4], dir) {
			syscall.Unmount(f[4], syscall.MNT_DETACH)
		}
	}
}

// pidsOf finds processes by the base names of their executables.
func pidsOf(names ...string) func() []int {
	return func() (pids []int) {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			exe, err := os.Readlink(dir + "/exe")
			if err != nil {
				continue
			}
			for _, n := range names {
				var pid int
				if filepath.Base(exe) == n {
					fmt.Sscan(filepath.Base(dir), &pid)
					pids = append(pids, pid)
				}
			}
		}
		return pids
	}
}
