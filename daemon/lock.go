package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// lockPatience is how long a new engine waits for the last thread of a dead one.
const lockPatience = 3 * time.Second

// lockDataRoot makes sure that one daemon works in the data root. The lock goes with the file's descriptor.
func lockDataRoot(dir string) (*os.File, error) {
	path := filepath.Join(dir, "skiffd.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data root %s: %w", dir, err)
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(deadline) {
			continue
		}
		pid := make([]byte, 32)
		n, _ := f.ReadAt(pid, 0)
		f.Close()
		return nil, errs.New(errs.Conflict, "another skiffd (pid %s) works in the data root %s already: %w", strings.TrimSpace(string(pid[:n])), dir, err)
	}
	_ = f.Truncate(0)
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return f, err
}

// writePidFile records the pid that a service manager signals: the keeper's. One that names another living skiffd is
// an error.
func writePidFile(path string, pid int) error {
	if b, err := os.ReadFile(path); err == nil {
		old, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		if old > 0 && old != pid && isOurs(old) && old != os.Getpid() {
			return errs.New(errs.Conflict, "process with PID %d is still running, as %s says: is another skiffd running?", old, path)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the pid file %s: %w", path, err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("write the pid file %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write the pid file %s: %w", path, err)
	}
	return nil
}

// isOurs says whether a process runs one of our programs: a pid may have been given to somebody else since.
func isOurs(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	name := strings.TrimSuffix(filepath.Base(exe), " (deleted)")
	return err == nil && (name == "skiffd" || name == "skiff-keeper")
}
