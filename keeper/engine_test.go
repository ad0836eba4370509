package keeper_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skiff/keeper"
	"skiff/keeper/logfile"
)

// house is a keeper with an engine, as a user has them.
type house struct {
	t    *testing.T
	dir  string
	args []string
	cmd  *exec.Cmd
	code chan int // of the keeper that was started first
}

func newHouse(t *testing.T, lines, pause, code int) *house {
	t.Helper()
	h := &house{t: t, dir: execRoot(t)}
	h.args = []string{"--exec-root", h.dir, "--", self(t), "engine", h.dir, strconv.Itoa(lines), strconv.Itoa(pause), strconv.Itoa(code)}
	h.start()
	t.Cleanup(func() {
		for range 3 { // whatever is left, and what starts again
			for _, pid := range []int{h.engine(), h.keeper(), h.number("launched")} {
				h.kill(pid, unix.SIGKILL)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return h
}

func (h *house) start() {
	h.t.Helper()
	h.cmd = exec.Command(self(h.t), h.args...)
	out, err := os.OpenFile(filepath.Join(h.dir, "output"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer out.Close()
	h.cmd.Stdout, h.cmd.Stderr = out, out
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	cmd := h.cmd
	code := make(chan int, 1)
	h.code = code
	go func() {
		_ = cmd.Wait()
		code <- cmd.ProcessState.ExitCode()
	}()
}

// number is the number in the last line of a file.
func (h *house) number(name string) int {
	lines := h.lines(name)
	if len(lines) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(lines[len(lines)-1])
	return n
}

func (h *house) lines(name string) []string {
	b, _ := os.ReadFile(filepath.Join(h.dir, name))
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(b)), " ", "="))
}

func (h *house) engine() int { return h.number("pids") }
func (h *house) keeper() int { return h.number("keeper/lock") }

// kill signals a process only if it is this test's program.
func (h *house) kill(pid int, sig unix.Signal) bool {
	if pid <= 1 {
		return false
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.HasPrefix(string(cmdline), self(h.t)) && unix.Kill(pid, sig) == nil
}

// wait waits until the writer's end was noted.
func (h *house) wait() []string {
	h.t.Helper()
	return h.until("exits")
}

func (h *house) until(name string) []string {
	h.t.Helper()
	for range 6000 {
		if l := h.lines(name); len(l) > 0 {
			return l
		}
		time.Sleep(10 * time.Millisecond)
	}
	out, _ := os.ReadFile(filepath.Join(h.dir, "output"))
	h.t.Fatalf("no %s; output:\n%s", name, out[max(0, len(out)-5000):])
	return nil
}

// mustLive ends the test if nobody has been alive for long.
func (h *house) mustLive(since time.Time) {
	h.t.Helper()
	if time.Since(since) > 20*time.Second {
		out, _ := os.ReadFile(filepath.Join(h.dir, "output"))
		h.t.Fatalf("keeper %d and engine %d are dead; output:\n%s", h.keeper(), h.engine(), out[max(0, len(out)-5000):])
	}
}

func (h *house) log() keeper.LogConfig {
	return keeper.LogConfig{Driver: "json-file", Path: filepath.Join(h.dir, "log")}
}

// check looks at the writer's log.
func (h *house) check(lines int) {
	h.t.Helper()
	sameLines(h.t, "stdout", logged(h.t, h.log(), 1), numbers(lines))
	sameLines(h.t, "stderr", logged(h.t, h.log(), 2), numbers((lines+4)/5))
	if l := h.lines("errors"); len(l) > 0 {
		h.t.Errorf("engine: %q", l)
	}
}

// checkButPipe is check for a house whose keeper and engine were dead at the same time: what is in the pipe when a process
// ends while nobody else has it open is gone with it. Nothing else may be.
func (h *house) checkButPipe(lines int) {
	h.t.Helper()
	for s, want := range map[logfile.Stream]string{logfile.Stdout: numbers(lines), logfile.Stderr: numbers((lines + 4) / 5)} {
		got := logged(h.t, h.log(), s)
		if lost := len(want) - len(got); lost > 0 && lost <= 64<<10 {
			h.t.Logf("%d bytes of %v were in the pipe at the writer's end", lost, s)
			want = want[:len(got)]
		}
		sameLines(h.t, s.String(), got, want)
	}
}

// call connects to the engine's socket; a connection that was accepted by an engine that died at once is no answer.
func (h *house) call() error {
	c, err := net.DialTimeout("unix", filepath.Join(h.dir, "sock"), 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(c)
	if err == nil && string(b) != "pong\n" {
		return nil // the engine died while it answered
	}
	if errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

func (h *house) stop() {
	h.t.Helper()
	if !h.kill(h.keeper(), unix.SIGTERM) {
		h.t.Error("no keeper to end")
	}
	for range 1000 {
		if !alive(h.keeper()) && !alive(h.engine()) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Error("the house doesn't end")
}

// alive is false for a zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestEngineDies(t *testing.T) {
	const n = 100000
	h := newHouse(t, n, 200, 5)
	h.until("launched")
	kills := 0
	for len(h.lines("exits")) == 0 {
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		if h.kill(h.engine(), unix.SIGKILL) {
			kills++
		}
		if err := h.call(); err != nil {
			t.Errorf("call: %v", err)
		}
	}
	t.Logf("%d kills, %d engines", kills, len(h.lines("pids")))
	if l := h.wait(); l[0] != "w=5" {
		t.Errorf("exits %q", l)
	}
	h.check(n)
	h.stop()
	if code := <-h.code; code != 0 {
		t.Errorf("keeper's exit code %d", code)
	}
}

func TestBothDieInTurn(t *testing.T) {
	const n = 100000
	h := newHouse(t, n, 200, 5)
	h.until("launched")
	keepers, engines, both := 0, 0, 0
	for len(h.lines("exits")) == 0 {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		if rand.IntN(2) == 0 {
			if h.kill(h.engine(), unix.SIGKILL) {
				engines++
			}
		} else if h.kill(h.keeper(), unix.SIGKILL) {
			keepers++
		}
		time.Sleep(20 * time.Millisecond)
		if !alive(h.engine()) && !alive(h.keeper()) { // both at the same time: only somebody outside can help
			time.Sleep(200 * time.Millisecond)
			if !alive(h.engine()) && !alive(h.keeper()) {
				both++
				h.start()
			}
		}
	}
	t.Logf("%d keepers and %d engines killed, %d times both at once", keepers, engines, both)
	l := h.wait()
	if both > 0 {
		if l[0] != "w=5" && l[0] != "w=-1" { // nobody may have been there to see it
			t.Errorf("exits %q", l)
		}
		h.checkButPipe(n)
	} else {
		if l[0] != "w=5" {
			t.Errorf("exits %q", l)
		}
		h.check(n)
	}
	h.stop()
}

func TestBothDieTogether(t *testing.T) {
	for range 5 {
		const n = 20000
		h := newHouse(t, n, 200, 5)
		h.until("launched")
		writer := h.number("launched")
		reapWhenOurs(t, writer)
		kills, begin := 0, time.Now()
		for alive(writer) {
			time.Sleep(time.Duration(20+rand.IntN(250)) * time.Millisecond)
			k, e := h.keeper(), h.engine()
			if !alive(writer) || !alive(k) || !alive(e) {
				h.mustLive(begin)
				continue
			}
			begin = time.Now()
			h.kill(k, unix.SIGSTOP)
			h.kill(e, unix.SIGKILL)
			h.kill(k, unix.SIGKILL)
			kills++
			for alive(k) || alive(e) {
				time.Sleep(time.Millisecond)
			}
			h.start()
		}
		t.Logf("%d times", kills)
		if l := h.wait(); l[0] != "w=5" && l[0] != "w=-1" {
			t.Errorf("exits %q", l)
		}
		h.checkButPipe(n)
		h.stop()
	}
}

func TestEngineEndsForGood(t *testing.T) {
	h := newHouse(t, 10, 0, 5)
	h.wait()
	if !h.kill(h.keeper(), unix.SIGTERM) {
		t.Error("no keeper")
	}
	if code := <-h.code; code != 0 {
		t.Errorf("code %d", code)
	}
	// A second keeper in the same folder is refused.
	a := newHouse(t, 1000000, 1000, 5)
	a.until("launched")
	a.start()
	if code := <-a.code; code != keeper.ExitConfig {
		t.Errorf("code %d", code)
	}
}
