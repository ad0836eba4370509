package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"skiff/test/kit"
)

// TestMachineCrash ends everything at once, as a power cut does: the engine, the keeper and all containers, and the run-time folder is
// empty. The next daemon shows what was acknowledged, as it is now, and clears what is left.
func TestMachineCrash(t *testing.T) {
	d := newDaemon(t)
	c := skiff(d)
	ran := c.ok(t, "run", "-d", "--name", "ran", "-p", "127.0.0.1::80", "busybox", "sh", "-c", "echo before > /kept; echo said; sleep 1000")
	c.ok(t, "run", "--name", "ended", "busybox", "true")
	c.ok(t, "create", "--name", "made", "busybox", "true")
	c.ok(t, "run", "-d", "--rm", "--name", "fleeting", "busybox", "sleep", "1000")
	eventually(t, 3*time.Second, "the file is written", func() bool {
		return c.run(t, "", "exec", ran, "cat", "/kept").stdout == "before\n"
	})
	d.Crash()
	if err := os.RemoveAll(d.ExecRoot); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := c.ok(t, "ps", "-a", "--format", "{{.Names}} {{.State}}")
	for _, want := range []string{"ran exited", "ended exited", "made created"} {
		if !strings.Contains(got, want) {
			t.Errorf("ps -a has no %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "fleeting") {
		t.Errorf("a --rm container outlived its machine:\n%s", got)
	}
	eventually(t, 5*time.Second, "cgroups and interfaces of the dead are gone", func() bool {
		n := d.Count()
		return len(n.Mounts) == 0 && !strings.Contains(fmt.Sprint(n.Cgroups), ran) && !strings.Contains(fmt.Sprint(n.Links), "skv")
	})
	if logs := c.ok(t, "logs", ran); logs != "said" {
		t.Errorf("its log: %q", logs)
	}
	c.ok(t, "start", ran)
	if kept := c.ok(t, "exec", ran, "cat", "/kept"); kept != "before" {
		t.Errorf("what it had written: %q", kept)
	}
	c.ok(t, "rm", "-f", "ran", "ended", "made")
}

// TestAutoStart: a skiff that finds no daemon at the default socket starts one and says so. It has mounts and a network of its own here,
// for the default places are the machine's.
func TestAutoStart(t *testing.T) {
	bin, err := kit.Bin("skiff")
	if err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	script := `set -e
mount -t tmpfs none /run; mount -t tmpfs none /var/lib
mkdir -p /etc/skiff; mount -t tmpfs none /etc/skiff
` + bin + ` images -q
` + bin + ` version --format '{{.Server.Version}}'
cat /run/skiff/skiffd.pid > ` + pidFile + `
SKIFF_NO_AUTOSTART=1 ` + bin + ` ps -q`
	made := false
	if _, err := os.Stat("/etc/skiff"); os.IsNotExist(err) {
		made = true
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=", "SKIFF_HOST=", "DOCKER_CONTEXT=", "DOCKER_CONFIG="+t.TempDir())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if made {
		_ = os.Remove("/etc/skiff") // the mount point
	}
	pid := 0
	if b, rerr := os.ReadFile(pidFile); rerr == nil {
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	if pid <= 1 || err != nil {
		t.Fatalf("%v, pid %d\n%s\n%s", err, pid, &stdout, &stderr)
	}
	defer func() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
		eventually(t, 20*time.Second, "the daemon ends", func() bool { return syscall.Kill(pid, 0) != nil })
	}()
	if strings.Count(stderr.String(), "no daemon was running; starting ") != 1 || strings.TrimSpace(stdout.String()) == "" {
		t.Errorf("stdout:\n%s\nstderr:\n%s", &stdout, &stderr)
	}
}
