package server

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper/wire"
	"skiff/runtime/launch"
)

// launchProgram starts a launch program in its binary form.
func launchProgram(program []byte, files []int, memory *launch.Memory) (pid, pidfd int, err error) {
	var p launch.Program
	if err := p.UnmarshalBinary(program); err != nil {
		return 0, -1, errs.As(errs.Invalid, err)
	}
	fs := make([]*os.File, len(files))
	for i, fd := range files {
		// A duplicate, since files close themselves when they are collected. Its description is the same.
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return 0, -1, err
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK != 0 {
			_ = unix.SetNonblock(dup, false) // programs don't expect it, and Go's os.Pipe and os.Open set it
		}
		fs[i] = os.NewFile(uintptr(dup), "slot")
		defer fs[i].Close()
	}
	proc, err := p.Start(fs, launch.Options{Memory: memory})
	if err != nil {
		return 0, -1, err
	}
	defer proc.PIDFD.Close()
	pidfd, err = unix.FcntlInt(proc.PIDFD.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	return proc.PID, pidfd, err
}

// toWire gives an error its wire form, a failed step with its parts.
func toWire(err error) *wire.Error {
	w := wire.FromError(err)
	var step *launch.StepError
	if errors.As(err, &step) {
		w.Step = &wire.Step{
			Index: step.Index, Name: step.Name, Errno: int(step.Errno), Killed: int(step.Killed), Exec: step.Exec, Search: step.Search,
		}
	}
	return w
}
