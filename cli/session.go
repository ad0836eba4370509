package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"skiff/client"
)

// session connects our standard streams with a process's.
type session struct {
	*App
	conn       *client.Hijacked
	stdin      io.Reader // nil: none
	stdout     io.Writer // nil: none
	stderr     io.Writer // nil: none
	tty        bool
	detachKeys []byte
}

// copy moves bytes until the output ends, or the user typed the detach keys (errDetached). With a terminal at both ends ours is
// raw meanwhile.
func (s *session) copy(ctx context.Context) error {
	restore := s.raw()
	defer restore()
	hasOutput := s.stdout != nil || s.stderr != nil
	if s.stdin == nil {
		if err := s.conn.CloseWrite(); err != nil || !hasOutput {
			return ignoreClosed(err)
		}
		stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
		err := s.conn.Copy(s.stdout, s.stderr)
		if !stop() {
			return ctx.Err()
		}
		return ignoreClosed(err)
	}
	output := make(chan error, 1)
	if hasOutput {
		go func() {
			err := s.conn.Copy(s.stdout, s.stderr)
			restore()
			output <- err
		}()
	}
	input := make(chan error, 1)
	go func() { input <- s.send() }()

	for {
		select {
		case err := <-output:
			return ignoreClosed(err)
		case err := <-input:
			if errors.Is(err, errDetached) {
				return err
			}
			if !hasOutput {
				return ignoreClosed(err)
			}
			input = nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send sends the input and then its end.
func (s *session) send() error {
	in := s.stdin
	if s.tty && len(s.detachKeys) > 0 {
		in = newKeyReader(in, s.detachKeys)
	}
	_, err := io.Copy(s.conn, in)
	if errors.Is(err, errDetached) {
		return err
	}
	if cerr := s.conn.CloseWrite(); err == nil {
		err = cerr
	}
	return err
}

// raw makes our terminal raw, and returns what undoes it.
func (s *session) raw() func() {
	f, ok := s.stdin.(*os.File)
	if !s.tty || !ok || s.Getenv("NORAW") != "" {
		return func() {}
	}
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return func() {}
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return func() {}
	}
	done := make(chan struct{}, 1)
	return func() {
		select {
		case done <- struct{}{}:
			_ = term.Restore(fd, old)
		default:
		}
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// ttySize is the size of our terminal; ok is false without one.
func (a *App) ttySize() (height, width uint, ok bool) {
	fd, isTerm := terminal(a.Out)
	if !isTerm {
		return 0, 0, false
	}
	w, h, err := term.GetSize(fd)
	if err != nil || w == 0 && h == 0 {
		return 0, 0, false
	}
	return uint(h), uint(w), true
}

// followSize keeps the size of a process's terminal that of ours, until ctx ends.
func (a *App) followSize(ctx context.Context, resize func(ctx context.Context, height, width uint) error) {
	if _, _, ok := a.ttySize(); !ok {
		return
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGWINCH)
	go func() {
		defer signal.Stop(changes)
		// The process may not be ready at once.
		for try := range 10 {
			h, w, ok := a.ttySize()
			if !ok || resize(ctx, h, w) == nil || ctx.Err() != nil {
				break
			}
			time.Sleep(time.Duration(try+1) * 10 * time.Millisecond)
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-changes:
				if h, w, ok := a.ttySize(); ok {
					_ = resize(ctx, h, w)
				}
			}
		}
	}()
}

// checkTTY refuses a terminal for the container if we have none to connect with it.
func (a *App) checkTTY(attachStdin, tty bool) error {
	if !attachStdin || !tty {
		return nil
	}
	if _, ok := terminal(a.In); !ok {
		return errors.New("the input device is not a TTY")
	}
	return nil
}

// keys are the detach keys: the flag's, the configuration file's, or Docker's.
func (a *App) keys(flag string) (text string, keys []byte, err error) {
	text = flag
	if text == "" {
		text = client.LoadConfig(a.configDir()).DetachKeys
	}
	if text == "" {
		keys, err = parseKeys(defaultDetachKeys)
		return "", keys, err
	}
	keys, err = parseKeys(text)
	return text, keys, err
}
