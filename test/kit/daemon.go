// Package kit starts the built binaries for end-to-end tests and benchmarks: a registry with stand-in images, and daemons
// that each have a data root, an exec root, a socket and network names of their own. All it starts it ends, by pid.
package kit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Root is the repository's folder, found upwards from the working folder.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("kit: no go.mod above the working folder")
}

// Bin is the path of a built binary, made by `make all`.
func Bin(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	p := filepath.Join(root, "bin", name)
	if _, err := os.Stat(p); err != nil {
		return "", fmt.Errorf("kit: %s is not built (run make): %w", name, err)
	}
	return p, nil
}

// Daemon is a running skiffd with all that belongs to it.
type Daemon struct {
	Dir      string // a short temporary folder; everything but the data root is below it
	DataRoot string
	ExecRoot string
	Socket   string
	LogPath  string
	args     []string
	cmd      *exec.Cmd
	exited   chan struct{}
}

// Options of a daemon.
type Options struct {
	Mirror   string   // http://host:port of a registry that stands in for Docker Hub
	Args     []string // further flags
	DataRoot string   // "" : below Dir
}

// NewDaemon chooses the folders of a daemon and starts nothing.
func NewDaemon(o Options) (*Daemon, error) {
	dir, err := os.MkdirTemp("", "skt")
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		Dir: dir, DataRoot: o.DataRoot, ExecRoot: filepath.Join(dir, "exec"), Socket: filepath.Join(dir, "s.sock"),
		LogPath: filepath.Join(dir, "skiffd.log"),
	}
	if d.DataRoot == "" {
		d.DataRoot = filepath.Join(dir, "data")
	}
	// A configuration of the machine's must not reach the tests.
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o644); err != nil {
		return nil, err
	}
	d.args = []string{
		"--data-root", d.DataRoot, "--exec-root", d.ExecRoot, "-H", "unix://" + d.Socket,
		"--pidfile", filepath.Join(dir, "skiffd.pid"), "--config-file", config,
	}
	if o.Mirror != "" {
		d.args = append(d.args, "--registry-mirror", o.Mirror)
	}
	d.args = append(d.args, o.Args...)
	return d, nil
}

// StartDaemon makes a daemon and waits until its socket answers.
func StartDaemon(ctx context.Context, o Options) (*Daemon, error) {
	d, err := NewDaemon(o)
	if err != nil {
		return nil, err
	}
	if err := d.Start(ctx); err != nil {
		d.Destroy()
		return nil, err
	}
	return d, nil
}

// Start starts skiffd (again) on the same folders.
func (d *Daemon) Start(ctx context.Context) error {
	bin, err := Bin("skiffd")
	if err != nil {
		return err
	}
	log, err := os.OpenFile(d.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(bin, d.args...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start skiffd: %w", err)
	}
	d.exited = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		close(done)
	}(d.cmd, d.exited)
	return d.WaitReady(ctx)
}

// WaitReady waits, at most 20 s, until the API answers a ping.
func (d *Daemon) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		err := d.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("skiffd did not answer: %w; its log:\n%s", err, d.Log())
		case <-time.After(5 * time.Millisecond):
		}
		select {
		case <-d.exited: // Processes alone can't tell: in the middle of its execve a process has no command line
			if len(d.Processes()) == 0 {
				return fmt.Errorf("skiffd ended; its log:\n%s", d.Log())
			}
		default:
		}
	}
}

func (d *Daemon) ping(ctx context.Context) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", d.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("GET /_ping HTTP/1.0\r\nHost: x\r\n\r\n")); err != nil {
		return err
	}
	b := make([]byte, 12)
	if _, err := c.Read(b); err != nil {
		return err
	}
	if !bytes.HasSuffix(b, []byte(" 200")) {
		return fmt.Errorf("ping answered %q", b)
	}
	return nil
}

// Log is what the daemon wrote to its standard error.
func (d *Daemon) Log() string {
	b, _ := os.ReadFile(d.LogPath)
	if len(b) > 8000 {
		b = b[len(b)-8000:]
	}
	return string(b)
}

// Process is one of the daemon's own processes.
type Process struct {
	PID  int
	Name string // "skiffd" or "skiff-keeper"
}

// Processes finds the daemon's processes by their executables and this daemon's exec root on their command line or in
// their environment, never others'.
func (d *Daemon) Processes() []Process {
	var ps []Process
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		exe, err := os.Readlink(dir + "/exe")
		if err != nil {
			continue
		}
		name := strings.TrimSuffix(filepath.Base(exe), " (deleted)")
		if name != "skiffd" && name != "skiff-keeper" {
			continue
		}
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		environ, _ := os.ReadFile(dir + "/environ")
		if !bytes.Contains(cmdline, []byte(d.ExecRoot)) && !bytes.Contains(environ, []byte(d.ExecRoot)) {
			continue
		}
		if st, err := os.ReadFile(dir + "/stat"); err != nil || bytes.Contains(st, []byte(") Z ")) {
			continue
		}
		if sameProgram(parent(dir), exe) {
			continue // a child before its execve: a container or an engine to be
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		ps = append(ps, Process{pid, name})
	}
	return ps
}

// parent is the /proc folder of a process's parent (proc(5), status), "" if it can't be read.
func parent(dir string) string {
	b, _ := os.ReadFile(dir + "/status")
	for line := range strings.Lines(string(b)) {
		if ppid, ok := strings.CutPrefix(line, "PPid:"); ok {
			return "/proc/" + strings.TrimSpace(ppid)
		}
	}
	return ""
}

func sameProgram(dir, exe string) bool {
	other, err := os.Readlink(dir + "/exe")
	return err == nil && other == exe
}

// PID is the pid of the newest process of the given name, 0 if there is none.
func (d *Daemon) PID(name string) int {
	pid := 0
	for _, p := range d.Processes() {
		if p.Name == name && p.PID > pid {
			pid = p.PID
		}
	}
	return pid
}

// Stop ends the daemon as a service manager does (SIGTERM to the keeper), and by SIGKILL after 40 s, which is an error.
func (d *Daemon) Stop() error {
	keeper := d.PID("skiff-keeper")
	if keeper != 0 {
		syscall.Kill(keeper, syscall.SIGTERM)
	} else if e := d.PID("skiffd"); e != 0 {
		syscall.Kill(e, syscall.SIGTERM)
	}
	deadline := time.Now().Add(40 * time.Second)
	for time.Now().Before(deadline) {
		if len(d.Processes()) == 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	left := d.Processes()
	d.Kill()
	return fmt.Errorf("skiffd did not end on SIGTERM; left: %v; its log:\n%s", left, d.Log())
}

// Kill ends all of the daemon's own processes with SIGKILL at once; containers live on.
func (d *Daemon) Kill() {
	for range 50 {
		ps := d.Processes()
		if len(ps) == 0 {
			return
		}
		for _, p := range ps {
			syscall.Kill(p.PID, syscall.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Crash kills the daemon's own processes and all containers, as the end of a machine does.
func (d *Daemon) Crash() {
	d.Kill()
	d.killContainers()
	d.Kill() // an engine that was being started
}

// Destroy stops the daemon if it runs and removes its folders. What a daemon that ended in order leaves on the host is an error.
func (d *Daemon) Destroy() error {
	ran := len(d.Processes()) > 0
	err := d.Stop()
	if left := d.left(); ran && err == nil && len(left) > 0 {
		err = fmt.Errorf("skiffd left on the host: %v", left)
	}
	d.killContainers()
	d.removeNetwork()
	if rerr := os.RemoveAll(d.Dir); err == nil {
		err = rerr
	}
	return err
}

// left is what is still on the host after some seconds: the kernel takes network namespaces, and the interfaces in them, down in the
// background.
func (d *Daemon) left() (left []string) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = append(d.Links(), d.Mounts()...); len(left) == 0 {
			return nil
		}
	}
	return left
}

// removeNetwork removes what an engine that was killed last had on the host.
func (d *Daemon) removeNetwork() {
	for _, link := range d.Links() {
		exec.Command("ip", "link", "del", link).Run()
	}
	exec.Command("nft", "delete", "table", "inet", "skiff-"+d.Tag()).Run() // mostly there is none
}

// killContainers ends what a failed test left in this daemon's cgroups.
func (d *Daemon) killContainers() {
	for _, dir := range d.Cgroups() {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	time.Sleep(20 * time.Millisecond)
	for dirs := d.Cgroups(); len(dirs) > 0; dirs = dirs[:len(dirs)-1] {
		syscall.Rmdir(dirs[len(dirs)-1])
	}
}
