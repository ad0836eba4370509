package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skiff/test/kit"
)

// shared is what most tests use: one registry and one daemon for the whole package. Tests that kill or configure a
// daemon start their own with newDaemon.
var shared struct {
	registry *kit.Registry
	daemon   *kit.Daemon
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: containers need root")
		return 1
	}
	ctx := context.Background()
	var err error
	if shared.registry, err = kit.StartRegistry(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.registry.Stop()
	if shared.daemon, err = kit.StartDaemon(ctx, kit.Options{Mirror: shared.registry.URL()}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := shared.daemon.Destroy(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: end of the shared daemon:", err)
		code = 1
	}
	return code
}

// newDaemon starts a daemon for one test, with both stand-in images pulled.
func newDaemon(t *testing.T, args ...string) *kit.Daemon {
	t.Helper()
	d, err := kit.StartDaemon(t.Context(), kit.Options{Mirror: shared.registry.URL(), Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of skiffd:\n%s", d.Log())
		}
		if err := d.Destroy(); err != nil {
			t.Error(err)
		}
	})
	c := skiff(d)
	for _, image := range []string{"busybox", "ubuntu"} {
		c.ok(t, "pull", "-q", image)
	}
	return d
}

// client is a command line client that is led to a daemon.
type client struct {
	name string
	argv []string
	env  []string
}

func skiff(d *kit.Daemon) client {
	bin, err := kit.Bin("skiff")
	if err != nil {
		panic(err)
	}
	return client{"skiff", []string{bin, "-H", "unix://" + d.Socket}, nil}
}

// clients are all that must be able to do a session: ours, the machine's docker and Debian's old one.
func clients(t *testing.T, d *kit.Daemon) []client {
	t.Helper()
	cs := []client{skiff(d)}
	root, err := kit.Root()
	if err != nil {
		t.Fatal(err)
	}
	config := "DOCKER_CONFIG=" + t.TempDir()
	if p, err := exec.LookPath("docker"); err == nil {
		cs = append(cs, client{"docker", []string{p, "-H", "unix://" + d.Socket}, []string{config}})
	}
	if p := filepath.Join(root, ".cache/docker-old/usr/bin/docker"); fileExists(p) {
		cs = append(cs, client{"docker-old", []string{p, "-H", "unix://" + d.Socket}, []string{config}})
	}
	if len(cs) == 1 {
		t.Fatal("no docker client: run test/prepare")
	}
	return cs
}

func fileExists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// each runs the test once for each client, against the shared daemon.
func each(t *testing.T, test func(t *testing.T, c client)) {
	t.Helper()
	for _, c := range clients(t, shared.daemon) {
		t.Run(c.name, func(t *testing.T) { test(t, c) })
	}
}

// result of a command.
type result struct {
	stdout, stderr string
	code           int
}

func (c client) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.argv[0], append(append([]string{}, c.argv[1:]...), args...)...)
	cmd.Env = append(os.Environ(), c.env...)
	return cmd
}

// run runs a command with the given input and reports how it ended; it fails the test only if the command hangs.
func (c client) run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 60*time.Second)
	defer cancel()
	cmd := c.command(ctx, args...)
	var out, errb bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errb
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %s: hangs; stdout %q stderr %q", c.name, strings.Join(args, " "), out.String(), errb.String())
	}
	r := result{stdout: out.String(), stderr: errb.String()}
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		r.code = ee.ExitCode()
	} else if err != nil {
		t.Fatalf("%s %s: %v", c.name, strings.Join(args, " "), err)
	}
	return r
}

// ok runs a command that must succeed and returns its stdout without the last newline.
func (c client) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := c.run(t, "", args...)
	if r.code != 0 {
		t.Fatalf("%s %s: exit %d\nstdout: %s\nstderr: %s", c.name, strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// fails runs a command that must end with the code and say the words on stderr (or stdout).
func (c client) fails(t *testing.T, code int, words string, args ...string) {
	t.Helper()
	r := c.run(t, "", args...)
	if r.code != code || !strings.Contains(r.stderr+r.stdout, words) {
		t.Errorf("%s %s: exit %d, want %d and %q\nstdout: %s\nstderr: %s", c.name, strings.Join(args, " "), r.code, code, words, r.stdout, r.stderr)
	}
}

// eventually waits until the check holds.
func eventually(t *testing.T, within time.Duration, what string, check func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !check() {
		if time.Now().After(deadline) {
			t.Fatalf("within %s: not so: %s", within, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
