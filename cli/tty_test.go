package cli

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be skiff itself, for tests that need a process.
func TestMain(m *testing.M) {
	if os.Getenv("SKIFF_TEST_MAIN") != "" {
		os.Exit(Main(os.Args[1:]))
	}
	time.Local = time.UTC // goldens hold times; set before anything else runs
	os.Exit(m.Run())
}

// process starts skiff as a process that speaks to the fake engine.
func (h *harness) process(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SKIFF_TEST_MAIN=1", "TERM=xterm")
	for k, v := range h.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// screen collects what a terminal shows.
type screen struct {
	f    *os.File
	text chan []byte
	all  []byte
}

func watch(f *os.File) *screen {
	s := &screen{f: f, text: make(chan []byte, 100)}
	go func() {
		defer close(s.text)
		for {
			b := make([]byte, 1024)
			n, err := f.Read(b)
			s.text <- b[:n]
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for !bytes.Contains(s.all, []byte(text)) {
		select {
		case b, ok := <-s.text:
			if !ok {
				t.Fatalf("the terminal shows %q, not %q", s.all, text)
			}
			s.all = append(s.all, b...)
		case <-timeout:
			t.Fatalf("the terminal shows %q, not %q", s.all, text)
		}
	}
}

func TestTerminal(t *testing.T) {
	h := newHarness(t)
	cmd := h.process("run", "-it", "--name", "tty", "busybox", "sh")
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if before.Lflag&unix.ECHO != 0 { // not raw yet
		defer func(want uint32) {
			now, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
			if err == nil && now.Lflag != want {
				t.Errorf("the terminal's flags are %x afterwards, they were %x", now.Lflag, want)
			}
		}(before.Lflag)
	}
	s := watch(f)
	s.await(t, "ready> ")
	_, _ = io.WriteString(f, "a\x03b\x10c")
	s.await(t, "a\x03b\x10c") // Ctrl-C is a byte for the container; Ctrl-P alone is no detach key
	if err := pty.Setsize(f, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	h.awaitCall(t, "POST /containers/tty/resize?h=40&w=120")
	_, _ = io.WriteString(f, "\x10\x11")
	if err := cmd.Wait(); err != nil {
		t.Errorf("detached: %v", err)
	}
	if b := string(h.engine.body); !strings.Contains(b, `"ConsoleSize":[30,100]`) {
		t.Errorf("the container was made with %s", b)
	}
}

// awaitCall waits until the engine was asked for something.
func (h *harness) awaitCall(t *testing.T, call string) {
	t.Helper()
	var calls []string
	for range 400 {
		calls = append(calls, h.engine.asked()...)
		if slices.Contains(calls, call) {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("asked %v, not %s", calls, call)
}

// TestSignalProxy: a signal for skiff goes to the container.
func TestSignalProxy(t *testing.T) {
	h := newHarness(t)
	cmd := h.process("run", "-i", "--name", "echo", "busybox", "cat")
	in, _ := cmd.StdinPipe()
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.awaitCall(t, "POST /containers/echo/start")
	time.Sleep(50 * time.Millisecond)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	h.awaitCall(t, "POST /containers/echo/kill?signal=TERM")
	_, _ = io.WriteString(in, "still here")
	_ = in.Close()
	if err := cmd.Wait(); err != nil || out.String() != "still here" {
		t.Errorf("%v, %q", err, out.String())
	}
}

// TestPullOnATerminal draws, and leaves the cursor below.
func TestPullOnATerminal(t *testing.T) {
	h := newHarness(t)
	cmd := h.process("pull", "nginx")
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 120})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := watch(f)
	s.await(t, "docker.io/library/nginx:latest")
	if !bytes.Contains(s.all, []byte("\x1b[1A")) || !bytes.Contains(s.all, []byte("aaaaaaaaaaaa: Pull complete")) {
		t.Errorf("the terminal shows %q", s.all)
	}
	_ = cmd.Wait()
}
