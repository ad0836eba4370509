package e2e

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal runs a client command on a pty and lets a test type and read.
type terminal struct {
	t    *testing.T
	name string
	ptm  *os.File
	cmd  *exec.Cmd
	mu   sync.Mutex
	seen string
	done chan struct{}
}

func (c client) terminal(t *testing.T, rows, cols uint16, args ...string) *terminal {
	t.Helper()
	cmd := c.command(t.Context(), args...)
	ptm, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: cols})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, name: c.name + " " + strings.Join(args, " "), ptm: ptm, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(term.done)
		b := make([]byte, 4096)
		for {
			n, err := ptm.Read(b)
			term.mu.Lock()
			term.seen += string(b[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		ptm.Close()
		<-term.done
	})
	return term
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen
}

// typ types the text.
func (x *terminal) typ(text string) {
	x.t.Helper()
	if _, err := x.ptm.WriteString(text); err != nil {
		x.t.Fatalf("%s: type %q: %v", x.name, text, err)
	}
}

// expect waits until the words appeared, and forgets all up to them.
func (x *terminal) expect(words string) {
	x.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		x.mu.Lock()
		if i := strings.Index(x.seen, words); i >= 0 {
			x.seen = x.seen[i+len(words):]
			x.mu.Unlock()
			return
		}
		x.mu.Unlock()
		if time.Now().After(deadline) {
			x.t.Fatalf("%s: %q did not appear; on the screen:\n%s", x.name, words, x.text())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// wait waits for the end of the command and returns its exit code.
func (x *terminal) wait() int {
	x.t.Helper()
	done := make(chan struct{})
	go func() { x.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		x.t.Fatalf("%s: does not end; on the screen:\n%s", x.name, x.text())
	}
	return x.cmd.ProcessState.ExitCode()
}
