package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/launch"
)

// runHooks runs hooks one after the other, giving each the container's state on its standard input. The first one that
// fails ends it. inside, if not nil, is the process whose namespaces (the flags) they run in.
func runHooks(kind string, hooks []specs.Hook, state *specs.State, inside *os.File, flags uint64) error {
	if len(hooks) == 0 {
		return nil
	}
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("encode the state for hooks: %w", err)
	}
	for i := range hooks {
		if err := runHook(&hooks[i], text, inside, flags); err != nil {
			return fmt.Errorf("error running hook %s #%d (%s): %w", kind, i, hooks[i].Path, err)
		}
	}
	return nil
}

func runHook(h *specs.Hook, state []byte, inside *os.File, flags uint64) error {
	if !strings.HasPrefix(h.Path, "/") {
		return errs.New(errs.Invalid, "the hook's path is not absolute")
	}
	if h.Timeout != nil && *h.Timeout <= 0 {
		return errs.New(errs.Invalid, "the hook's timeout is not positive")
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, inR.Close(), inW.Close())
	}
	p, err := startHook(h, inR, outW, inside, flags)
	_, _ = inR.Close(), outW.Close() // the hook has its own
	if err != nil {
		_, _ = inW.Close(), outR.Close()
		return err
	}
	defer func() { _ = p.PIDFD.Close() }()
	go func() {
		_, _ = inW.Write(state) // a hook need not read it
		_ = inW.Close()
	}()
	output := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(outR, 64<<10)) // for an error's text
		_, _ = io.Copy(io.Discard, outR)
		output <- b
	}()
	code, err := waitHook(p, h.Timeout)
	_ = outR.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // what it left behind may hold the pipe
	text := bytes.TrimSpace(<-output)
	_ = outR.Close()
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	if err != nil {
		return fmt.Errorf("%w, output: %s", err, text)
	}
	return nil
}

// waitHook waits for a hook, not longer than its timeout (seconds).
func waitHook(p *launch.Process, timeout *int) (int, error) {
	if timeout == nil {
		return p.Wait()
	}
	late := false
	fds := []unix.PollFd{{Fd: int32(p.PIDFD.Fd()), Events: unix.POLLIN}}
	end := time.Now().Add(time.Duration(*timeout) * time.Second)
	for {
		n, err := unix.Poll(fds, max(0, int(time.Until(end).Milliseconds())))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if late = n == 0; late {
			_ = unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0)
		}
		break
	}
	code, err := p.Wait()
	if late {
		return code, fmt.Errorf("the hook ran past its timeout of %d s", *timeout)
	}
	return code, err
}

func startHook(h *specs.Hook, in, out, inside *os.File, flags uint64) (*launch.Process, error) {
	b := launch.NewBuilder()
	files := []*os.File{in, out}
	i, o := b.Slot("standard input"), b.Slot("output")
	b.Do("standard input", unix.SYS_DUP3, i, launch.Int(0), launch.Int(0))
	b.Do("standard output", unix.SYS_DUP3, o, launch.Int(1), launch.Int(0))
	b.Do("standard error", unix.SYS_DUP3, o, launch.Int(2), launch.Int(0))
	if inside != nil {
		s := b.Slot("the container's process")
		files = append(files, inside)
		if flags&unix.CLONE_NEWPID != 0 {
			b.JoinPID = int(s.Value)
		}
		if rest := flags &^ unix.CLONE_NEWPID; rest != 0 {
			b.Do("join the container's namespaces", unix.SYS_SETNS, s, launch.Int(rest))
		}
	}
	b.Do("close all other descriptors", unix.SYS_CLOSE_RANGE, launch.Int(b.Keep+1), launch.Int(^uint32(0)), launch.Int(0))
	b.Do("umask", unix.SYS_UMASK, launch.Int(0o022))
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	b.Exec = launch.Exec{Name: h.Path, Paths: []uint32{uint32(b.Str(h.Path).Value)}, Argv: b.Table(args), Envp: b.Table(h.Env)}
	p, err := b.Finish()
	if err != nil {
		return nil, err
	}
	return p.Start(files, launch.Options{})
}
