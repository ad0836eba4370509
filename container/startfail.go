package container

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"skiff/internal/errs"
	"skiff/runtime/launch"
)

// Exit codes of containers that could not be started.
const (
	codeNotStarted = 128
	codeNoInvoke   = 126
	codeNotFound   = 127
)

// startFailed notes why a start failed, as dockerd does, and gives the error for the caller. It is one of the object's
// commands; everything else was undone.
func (m *Manager) startFailed(ctx context.Context, o *object, err error) error {
	code, err := startError(err)
	next, terr := o.status().after(changeFail, func(s *status) { s.Error, s.ExitCode, s.Failed = err.Error(), code, true })
	if terr != nil {
		return errors.Join(err, terr)
	}
	o.set(next)
	m.warn("record a failed start", o.id, m.store.state(o.def(), next))
	if o.def().HostConfig.AutoRemove {
		if rerr := m.remove(ctx, o); rerr != nil {
			m.warn("remove a container that could not be started", o.id, rerr)
		}
	}
	return err
}

// startError words a failed launch as dockerd does, so that clients find their exit codes (127, 126, 125) in it.
func startError(err error) (int, error) {
	if step, ok := errors.AsType[*launch.StepError](err); ok {
		err = describe(err, launch.CreateMessage(step))
	}
	code := failureCode(err)
	if code != codeNotStarted && errs.Of(err) == errs.Internal {
		err = errs.As(errs.Invalid, err)
	}
	return code, err
}

// described has a text of its own for an error.
type described struct {
	err  error
	text string
}

func (d described) Error() string { return d.text }
func (d described) Unwrap() error { return d.err }

func describe(err error, text string) error { return described{err, text} }

// failureCode reads the exit code out of the text, by dockerd's rules.
func failureCode(err error) int {
	text := strings.ToLower(err.Error())
	for _, r := range []struct {
		text string
		code int
	}{
		{"executable file not found", codeNotFound},
		{"no such file or directory", codeNotFound},
		{"permission denied", codeNoInvoke},
		{"is a directory", codeNoInvoke},
		{syscall.ENOTDIR.Error(), codeNoInvoke},
	} {
		if strings.Contains(text, r.text) {
			return r.code
		}
	}
	return codeNotStarted
}

// execError is startError for an exec.
func execError(err error) (int, error) {
	if step, ok := errors.AsType[*launch.StepError](err); ok {
		err = describe(err, launch.ExecMessage(step))
	} else {
		err = fmt.Errorf("OCI runtime exec failed: %w", err)
	}
	code := failureCode(err)
	if code == codeNotStarted {
		return codeNoInvoke, err
	}
	return code, errs.As(errs.Invalid, err)
}
