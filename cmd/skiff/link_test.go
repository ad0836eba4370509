package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxSize is how large the static, stripped program may be, in bytes. It is 5.1 MB; a new dependency that takes it over this
// needs a reason.
const maxSize = 6 << 20

// allowed are the modules and standard packages with a notable cost that the client may link.
var allowedModules = []string{
	"skiff/cli", "skiff/client", "skiff/cmd/skiff", "skiff/internal/version",
	"github.com/docker/go-units", "github.com/spf13/pflag", "golang.org/x/sys/unix", "golang.org/x/term",
}

// forbidden are packages that cost time at every start (measured: net/http 2 ms, crypto/tls 0.9 ms, go-digest 1.3 ms,
// reference 3.5 ms, cobra 0.6 ms, where an empty program takes 4), and the daemon's.
var forbidden = []string{
	"net/http", "crypto/tls", "crypto/x509", "regexp", "github.com/spf13/cobra", "github.com/opencontainers/go-digest",
	"github.com/distribution/reference", "github.com/moby/moby/api/types/container",
	"skiff/api", "skiff/container", "skiff/daemon", "skiff/db", "skiff/image", "skiff/keeper", "skiff/layer", "skiff/network",
	"skiff/registry", "skiff/runtime", "skiff/event", "go.etcd.io/bbolt", "github.com/vishvananda/netlink",
}

func TestLinkedPackages(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for p := range strings.FieldsSeq(string(out)) {
		for _, f := range forbidden {
			if p == f || strings.HasPrefix(p, f+"/") {
				t.Errorf("skiff links %s", p)
			}
		}
		if first, _, _ := strings.Cut(p, "/"); !strings.Contains(first, ".") && first != "skiff" || strings.HasPrefix(p, "vendor/") {
			continue // the standard library
		}
		ok := false
		for _, a := range allowedModules {
			ok = ok || p == a
		}
		if !ok {
			t.Errorf("skiff links %s, which is not in the list", p)
		}
	}
}

func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	bin := filepath.Join(t.TempDir(), "skiff")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	fi, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() > maxSize {
		t.Errorf("skiff has %d bytes, more than %d", fi.Size(), maxSize)
	}
}
