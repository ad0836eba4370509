package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"skiff/internal/errs"
	"skiff/internal/timerslack"
)

// ExecOptions say how a program becomes the keeper.
type ExecOptions struct {
	Program  string   // absolute path of skiff-keeper; "" : it is looked for
	ExecRoot string   // absolute path of the folder for its state
	Args     []string // the engine's arguments, without the program's name
	Debug    bool     // the keeper logs more
}

// ExecInto replaces this process by skiff-keeper, which starts this program again, with the same arguments and environment, as the
// engine. It returns only if that fails.
func ExecInto(o ExecOptions) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find out our own path: %w", err)
	}
	if o.Program == "" {
		if o.Program, err = FindProgram(); err != nil {
			return err
		}
	}
	args := []string{o.Program, "--exec-root", o.ExecRoot}
	if o.Debug {
		args = append(args, "--debug")
	}
	args = append(append(args, "--", self), o.Args...)
	runtime.LockOSThread()
	_ = timerslack.Set(timerslack.Own) // both programs run as well without
	return fmt.Errorf("execute %s: %w", o.Program, syscall.Exec(o.Program, args, os.Environ()))
}

// FindProgram looks for skiff-keeper beside this program, in PATH and in /usr/libexec/skiff.
func FindProgram() (string, error) {
	const name = "skiff-keeper"
	var tried []string
	if self, err := os.Executable(); err == nil {
		tried = append(tried, filepath.Join(filepath.Dir(self), name))
	}
	if p, err := exec.LookPath(name); err == nil {
		if p, err = filepath.Abs(p); err == nil {
			tried = append(tried, p)
		}
	}
	tried = append(tried, filepath.Join("/usr/libexec/skiff", name))
	for _, p := range tried {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", errs.New(errs.NotFound, "skiff-keeper is neither in PATH nor in any of %v", tried)
}
