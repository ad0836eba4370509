package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestLifecycle takes a container through its states, one command each.
func TestLifecycle(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		name := "life-" + c.name
		state := func() string { return c.ok(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name) }
		cid := filepath.Join(t.TempDir(), "cid")
		id := c.ok(t, "create", "--name", name, "--cidfile", cid, "--label", "who="+c.name, "busybox", "sh", "-c",
			"trap 'echo got-hup' HUP; trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")
		defer c.run(t, "", "rm", "-f", name)
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(id) {
			t.Errorf("create printed %q", id)
		}
		if b, err := os.ReadFile(cid); err != nil || string(b) != id {
			t.Errorf("cidfile: %q %v", b, err)
		}
		if got := state(); got != "created 0" {
			t.Errorf("after create: %s", got)
		}
		c.fails(t, 125, "is already in use by container", "run", "--name", name, "busybox", "true")
		if got := c.ok(t, "start", name); got != name {
			t.Errorf("start printed %q", got)
		}
		eventually(t, 5*time.Second, "it is up", func() bool { return c.ok(t, "logs", name) == "up" })
		if got := c.ok(t, "ps", "--filter", "label=who="+c.name, "--format", "{{.Names}} {{.State}}"); got != name+" running" {
			t.Errorf("ps: %q", got)
		}
		if got := c.ok(t, "top", name); !strings.Contains(got, "sleep 0.05") && !strings.Contains(got, "trap") || !strings.HasPrefix(got, "UID") {
			t.Errorf("top:\n%s", got)
		}
		c.ok(t, "kill", "-s", "HUP", name)
		eventually(t, 5*time.Second, "the signal arrived", func() bool { return strings.Contains(c.ok(t, "logs", name), "got-hup") })
		c.fails(t, 1, "container is running", "rm", name)
		c.ok(t, "restart", "-t", "5", name)
		if got := state(); got != "running 0" {
			t.Errorf("after restart: %s", got)
		}
		eventually(t, 5*time.Second, "it is up again", func() bool { return strings.HasSuffix(c.ok(t, "logs", name), "\nup") })
		c.ok(t, "stop", "-t", "5", name)
		if got := state(); got != "exited 9" {
			t.Errorf("after stop: %s", got)
		}
		if got := c.ok(t, "wait", name); got != "9" {
			t.Errorf("wait printed %q", got)
		}
		c.ok(t, "start", name)
		c.ok(t, "kill", name)
		if got := c.ok(t, "wait", name); got != "137" {
			t.Errorf("wait after kill: %q", got)
		}
		c.fails(t, 1, "is not running", "kill", name)
		c.fails(t, 1, "is not running", "exec", name, "true")
		r := c.run(t, "", "rm", name, "nonesuch")
		if r.code != 1 || r.stdout != name+"\n" || !strings.Contains(r.stderr, "No such container: nonesuch") {
			t.Errorf("rm of two: %+v", r)
		}
	})
}

// TestAttach attaches to a running container, from two clients at once, and leaves it running.
func TestAttach(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		id := c.ok(t, "run", "-d", "-i", "-t", "busybox", "sh")
		defer c.run(t, "", "rm", "-f", id)
		x, y := c.terminal(t, 24, 80, "attach", id), c.terminal(t, 24, 80, "attach", id)
		time.Sleep(300 * time.Millisecond)
		x.typ("echo both-$((40+2))\n")
		x.expect("both-42")
		y.expect("both-42")
		y.typ("\x10\x11")
		y.wait()
		x.typ("echo still-$((1+1))\n")
		x.expect("still-2")
		x.typ("exit 4\n")
		if code := x.wait(); code != 4 {
			t.Errorf("exit code of attach: %d", code)
		}
	})
}

// TestEvents follows what happens to one container.
func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		name := "events-" + c.name
		cmd := c.command(t.Context(), "events", "--filter", "container="+name, "--format", "{{json .}}")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		time.Sleep(500 * time.Millisecond)
		c.run(t, "", "run", "--rm", "--name", name, "busybox", "sh", "-c", "exit 7")
		var seen []string
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var e struct {
				Action string
				Actor  struct{ Attributes map[string]string }
			}
			if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
				t.Fatalf("event %q: %v", sc.Text(), err)
			}
			if e.Action == "die" && e.Actor.Attributes["exitCode"] != "7" {
				t.Errorf("die: %v", e.Actor.Attributes)
			}
			if e.Action != "attach" {
				seen = append(seen, e.Action)
			}
			if e.Action == "destroy" {
				break
			}
		}
		if got := strings.Join(seen, " "); got != "create start die destroy" {
			t.Errorf("events: %s", got)
		}
	})
}

// TestDaemonTellsOfItself has the commands that ask about the daemon.
func TestDaemonTellsOfItself(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		if got := c.ok(t, "version", "--format", "{{.Server.Os}} {{.Server.APIVersion}}"); !strings.HasPrefix(got, "linux 1.") {
			t.Errorf("version: %q", got)
		}
		if got := c.ok(t, "info", "--format", "{{.Driver}} {{.DockerRootDir}} {{.NCPU}}"); !strings.Contains(got, shared.daemon.DataRoot) {
			t.Errorf("info: %q", got)
		}
		if got := c.ok(t, "system", "df"); !strings.Contains(got, "Images") || !strings.Contains(got, "Containers") {
			t.Errorf("system df:\n%s", got)
		}
	})
}

// TestLogs has the drivers and what they keep: lines of any length, any bytes.
func TestLogs(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		for _, driver := range []string{"json-file", "local"} {
			id := c.ok(t, "run", "-d", "--log-driver", driver, "--log-opt", "max-size=1m", "--log-opt", "max-file=3", "busybox", "sh", "-c",
				`printf 'a\000b\377c\n'; head -c 200000 /dev/zero | tr '\0' x; echo; echo to-stderr >&2; printf no-newline`)
			defer c.run(t, "", "rm", "-f", id)
			c.ok(t, "wait", id)
			r := c.run(t, "", "logs", id)
			want := "a\x00b\xffc\n" + strings.Repeat("x", 200000) + "\nno-newline"
			if r.stdout != want || r.stderr != "to-stderr\n" {
				t.Errorf("%s: %d bytes, want %d; begins %q; stderr %q", driver, len(r.stdout), len(want), r.stdout[:min(len(r.stdout), 20)], r.stderr)
			}
			if got := c.run(t, "", "logs", "-t", "--tail", "1", id); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT[0-9:.]+Z `).MatchString(got.stdout + got.stderr) {
				t.Errorf("%s: -t --tail 1: %q", driver, got.stdout)
			}
			if got := c.run(t, "", "logs", "--since", "2100-01-01T00:00:00Z", id); got.stdout+got.stderr != "" {
				t.Errorf("%s: since the future: %q", driver, got.stdout)
			}
		}
		id := c.ok(t, "run", "-d", "--log-driver", "none", "busybox", "echo", "x")
		defer c.run(t, "", "rm", "-f", id)
		c.ok(t, "wait", id)
		c.fails(t, 1, "does not support reading", "logs", id)
		c.fails(t, 125, "nosuchdriver", "run", "--rm", "--log-driver", "nosuchdriver", "busybox", "true")
	})
}

// TestSlowClient leaves a client unread while others go on.
func TestSlowClient(t *testing.T) {
	c := skiff(shared.daemon)
	id := c.ok(t, "run", "-d", "busybox", "sh", "-c", "sleep 1; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i of a flood of output; done")
	defer c.run(t, "", "rm", "-f", id)
	slow := c.command(t.Context(), "attach", id)
	r, w, err := os.Pipe() // nobody reads r
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	slow.Stdout = w
	if err := slow.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer slow.Wait()
	defer slow.Process.Kill()
	fast := c.run(t, "", "attach", id)
	if n := strings.Count(fast.stdout, "\n"); n != 20000 {
		t.Errorf("the fast client got %d lines", n)
	}
	if got := strings.Count(c.ok(t, "logs", id)+"\n", "\n"); got != 20000 {
		t.Errorf("the log has %d lines", got)
	}
}

// TestGoneClients: a client that is gone leaves nothing behind at a daemon whose container says nothing.
func TestGoneClients(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		id := c.ok(t, "run", "-d", "-i", "busybox", "sleep", "1000")
		defer c.run(t, "", "rm", "-f", id)
		engine := shared.daemon.PID("skiffd")
		fds := func() int {
			list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", engine))
			if err != nil {
				t.Fatal(err)
			}
			return len(list)
		}
		before := fds()
		for _, args := range [][]string{{"attach", "--no-stdin", id}, {"attach", id}, {"logs", "-f", id}, {"wait", id}} {
			for range 5 {
				cmd := c.command(t.Context(), args...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			// a few connections and pooled namespaces come and go by themselves
			eventually(t, 5*time.Second, fmt.Sprintf("the descriptors of %v are closed", args), func() bool { return fds() < before+10 })
		}
	})
}

// TestQuietRuntimes: our own programs let the kernel wake them late (docs/decisions/0021); what they start is not concerned (see
// TestInside).
func TestQuietRuntimes(t *testing.T) {
	slack := func(pid int) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", pid))
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(b))
	}
	c := skiff(shared.daemon)
	events := c.command(t.Context(), "events")
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	defer events.Wait()
	defer events.Process.Kill()
	for name, pid := range map[string]int{
		"skiff": events.Process.Pid, "skiffd": shared.daemon.PID("skiffd"), "skiff-keeper": shared.daemon.PID("skiff-keeper"),
	} {
		eventually(t, 3*time.Second, name+" has a timer slack of 1 ms", func() bool { return slack(pid) == "1000000" })
	}
}
