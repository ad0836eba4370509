package kit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Registry is a running skiff-registry with the stand-in images.
type Registry struct {
	Addr string // host:port
	dir  string
	cmd  *exec.Cmd
}

// URL is what --registry-mirror takes.
func (r *Registry) URL() string { return "http://" + r.Addr }

// StartRegistry makes the stand-in images if they are not cached, and serves them.
func StartRegistry(ctx context.Context) (*Registry, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	bin, err := Bin("skiff-registry")
	if err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "run", "./test/standin", "-cache", filepath.Join(root, ".cache", "standin"))
	build.Dir = root
	var stderr bytes.Buffer
	build.Stderr = &stderr
	out, err := build.Output()
	if err != nil {
		return nil, fmt.Errorf("make stand-in images: %w: %s", err, stderr.String())
	}
	dir, err := os.MkdirTemp("", "skr")
	if err != nil {
		return nil, err
	}
	r := &Registry{dir: dir}
	r.cmd = exec.Command(bin, "-addr", "127.0.0.1:0", "-addr-file", filepath.Join(dir, "addr"), "-root", strings.TrimSpace(string(out)))
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	for range 400 {
		if b, err := os.ReadFile(filepath.Join(dir, "addr")); err == nil {
			r.Addr = string(b)
			return r, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.Stop()
	return nil, fmt.Errorf("skiff-registry did not start")
}

// Stop ends the registry.
func (r *Registry) Stop() {
	r.cmd.Process.Signal(syscall.SIGTERM)
	r.cmd.Wait()
	os.RemoveAll(r.dir)
}
