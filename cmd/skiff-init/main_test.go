package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// build makes the real, static program.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "skiff-init")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// inPIDNamespace makes a command pid 1.
func inPIDNamespace(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	return cmd
}

func TestInit(t *testing.T) {
	bin := build(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("codes", func(t *testing.T) {
		for _, c := range []struct {
			args []string
			code int
			text string
		}{
			{[]string{"--", "true"}, 0, ""},
			{[]string{"--", "sh", "-c", "exit 7"}, 7, ""},
			{[]string{"sh", "-c", "kill -9 $$"}, 137, ""},
			{[]string{"--", "no-such-command"}, 127, "skiff-init: exec no-such-command: no such file or directory\n"},
			{[]string{"--", "/no/such/command"}, 127, "skiff-init: exec /no/such/command: no such file or directory\n"},
			{[]string{"--", plain}, 126, "skiff-init: exec " + plain + ": permission denied\n"},
			{[]string{"--", "/"}, 126, "skiff-init: exec /: permission denied\n"},
			{[]string{"--"}, 1, "usage"},
			{[]string{"--", "sh", "-c", "echo $PPID"}, 0, "1\n"},
		} {
			out, err := inPIDNamespace(t, append([]string{bin}, c.args...)...).CombinedOutput()
			code := 0
			if ee := (*exec.ExitError)(nil); errors.As(err, &ee) {
				code = ee.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != c.code || !strings.Contains(string(out), c.text) {
				t.Errorf("%v: code %d, %q", c.args, code, out)
			}
		}
	})
	t.Run("forwards signals", func(t *testing.T) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGINT} {
			cmd := inPIDNamespace(t, bin, "--", "sh", "-c", "trap 'exit 42' TERM HUP USR1 INT; echo ready; while :; do sleep 0.05; done")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 8)); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 42 {
				t.Errorf("%v: code %d", sig, code)
			}
		}
	})
	t.Run("reaps orphans", func(t *testing.T) {
		// A hundred grandchildren are orphaned and end; a zombie would show as a child of pid 1.
		script := `for i in $(seq 100); do (sh -c 'sleep 0.01 &' &); done; sleep 0.5
mount -t proc proc /proc && cat /proc/[0-9]*/stat | grep -c ') Z' || true`
		cmd := inPIDNamespace(t, bin, "--", "sh", "-c", script)
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // private mounts
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		done := make(chan error, 1)
		go func() { done <- cmd.Run() }()
		select {
		case err := <-done:
			if err != nil || out.String() != "0\n" {
				t.Errorf("%v, %q", err, out.String())
			}
		case <-time.After(10 * time.Second):
			t.Fatal("hangs")
		}
	})
}
