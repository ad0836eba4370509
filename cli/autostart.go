package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// runDir is the default exec-root of skiffd, where its socket and its log are.
	runDir = "/run/skiff"
	// startTime is how long a daemon may take until it answers.
	startTime = 20 * time.Second
)

// autostart starts skiffd in the background if the caller is root and no daemon answers at the default socket. It is not used
// for a daemon that somebody named. A nil error means: try again.
func (a *App) autostart(ctx context.Context, cause error) error {
	if os.Geteuid() != 0 || a.Getenv("SKIFF_NO_AUTOSTART") != "" {
		return cause
	}
	if !errors.Is(cause, syscall.ENOENT) && !errors.Is(cause, syscall.ECONNREFUSED) {
		return cause
	}
	path := findDaemon()
	if path == "" {
		return cause
	}
	if err := os.MkdirAll(runDir, 0o711); err != nil {
		return cause
	}
	logPath := filepath.Join(runDir, "skiffd.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return cause
	}
	defer log.Close()
	begin, _ := log.Seek(0, io.SeekEnd) // what older daemons wrote is of no interest
	fmt.Fprintf(a.Err, "skiff: no daemon was running; starting %s (log: %s)\n", path, logPath)
	cmd := exec.Command(path)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(a.Err, "skiff: %v\n", err)
		return cause
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return a.awaitDaemon(ctx, ended, logPath, begin)
}

// awaitDaemon waits until the socket answers. The program that was started may end: it may hand over to another.
func (a *App) awaitDaemon(ctx context.Context, ended <-chan error, logPath string, begin int64) error {
	_, socket, _ := strings.Cut(DefaultHost, "://")
	deadline := time.Now().Add(startTime)
	for wait := time.Millisecond; ; wait = min(wait*2, 50*time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			return c.Close()
		}
		select {
		case err := <-ended:
			if err != nil {
				fmt.Fprintf(a.Err, "skiff: skiffd did not start (%v); its log %s says:\n%s\n", err, logPath, lastLines(logPath, begin, 5))
				return err
			}
			ended = nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(a.Err, "skiff: skiffd does not answer after %v; see %s\n", startTime, logPath)
			return errors.New("skiffd does not answer")
		}
	}
}

// findDaemon looks beside our own program first, then in the PATH.
func findDaemon() string {
	if self, err := os.Executable(); err == nil {
		p := filepath.Join(filepath.Dir(self), "skiffd")
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return p
		}
	}
	p, err := exec.LookPath("skiffd")
	if err != nil {
		return ""
	}
	return p
}

// lastLines are at most n lines of a file from begin on.
func lastLines(path string, begin int64, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(b[min(begin, int64(len(b))):]), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
