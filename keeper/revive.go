package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper/wire"
)

// revive replaces a dead keeper, and tries until it succeeds or can't any more.
func (c *Client) revive() {
	pause := 10 * time.Millisecond
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		conn, err := c.replace(ctx)
		cancel()
		if err == nil {
			c.mu.Lock()
			ok := c.err == nil
			if ok {
				c.conn = conn
			}
			c.cond.Broadcast()
			c.mu.Unlock()
			if !ok {
				conn.Close()
				return
			}
			if conn.Ping() != nil { // it died between: its end was not ours yet
				c.lost(conn, errors.New("it died"))
			}
			c.log.Info("a new keeper has taken over", "pid", c.Pid())
			select {
			case c.revived <- struct{}{}:
			default: // it is known already that something changed
			}
			return
		}
		var config *configError
		if errors.As(err, &config) {
			c.fail(errs.As(errs.Unavailable, err))
			return
		}
		c.log.Error("can't replace the keeper", "error", err)
		select {
		case <-c.done:
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// Revived tells, after a keeper died, that another one is there: Pid is a new one.
func (c *Client) Revived() <-chan struct{} { return c.revived }

// configError says that the keeper refused to start, and would again.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

// replace starts a keeper and hands it everything in the vault.
func (c *Client) replace(ctx context.Context) (*wire.Conn, error) {
	conn, ended, err := c.startKeeper()
	if err != nil {
		return nil, err
	}
	c.read(conn)
	if err = c.handOver(ctx, conn); err == nil {
		err = c.hello(ctx, conn)
	}
	if err == nil {
		return conn, nil
	}
	conn.Close()
	select {
	case code := <-ended:
		if code == ExitConfig {
			return nil, &configError{fmt.Errorf("keeper %s refused to start: %w", c.cfg.Keeper, err)}
		}
		err = fmt.Errorf("keeper %s ended with code %d: %w", c.cfg.Keeper, code, err)
	case <-time.After(time.Second):
	}
	return nil, err
}

// startKeeper starts the keeper's program as a child that stays when we go.
func (c *Client) startKeeper() (conn *wire.Conn, ended <-chan int, err error) {
	ours, theirs, err := wire.Pair()
	if err != nil {
		return nil, nil, err
	}
	other := os.NewFile(uintptr(theirs), "keeper's end")
	defer other.Close()
	if conn, err = wire.NewConn(ours); err != nil {
		closeFD(ours)
		return nil, nil, err
	}
	args := []string{"--exec-root", c.cfg.ExecRoot, "--adopt", "3"}
	if c.cfg.Debug {
		args = append(args, "--debug")
	}
	cmd := exec.Command(c.cfg.Keeper, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, EnvFD+"=") })
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{other}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("start keeper: %w", err)
	}
	ch := make(chan int, 1)
	go func() {
		_ = cmd.Wait()
		ch <- cmd.ProcessState.ExitCode()
	}()
	return conn, ch, nil
}

// handOver gives a new keeper all that the vault holds.
func (c *Client) handOver(ctx context.Context, conn *wire.Conn) error {
	if err := c.introduce(ctx, conn); err != nil {
		return fmt.Errorf("introduce ourselves: %w", err)
	}
	c.mu.Lock()
	ids := make([]string, 0, len(c.vault))
	for id := range c.vault {
		ids = append(ids, id)
	}
	names := make([]string, 0, len(c.stash))
	for name := range c.stash {
		names = append(names, name)
	}
	c.mu.Unlock()
	for _, id := range ids {
		m := &wire.Message{Op: wire.OpAdopt}
		files := c.packProcess(m, id)
		err := c.exchange(ctx, conn, m, nil, files, nil)
		closeAll(files)
		if err != nil {
			return fmt.Errorf("hand over process %s: %w", id, err)
		}
	}
	for _, name := range names {
		c.mu.Lock()
		files := dupAll(c.stash[name])
		c.mu.Unlock()
		err := c.exchange(ctx, conn, &wire.Message{Op: wire.OpStash, ID: name}, nil, files, nil)
		closeAll(files)
		if err != nil {
			return fmt.Errorf("hand over the files stashed as %s: %w", name, err)
		}
	}
	if err := c.exchange(ctx, conn, &wire.Message{Op: wire.OpAdopted}, nil, nil, nil); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	return nil
}

// introduce tells a new keeper what it needs to go on alone, should this process die meanwhile.
func (c *Client) introduce(ctx context.Context, conn *wire.Conn) error {
	m := &wire.Message{Op: wire.OpHello, EnginePID: os.Getpid()}
	c.mu.Lock()
	cfg := c.cfg
	m.Config, m.Limbo = &cfg, c.limbo
	files := dupAll(c.limboFD)
	c.mu.Unlock()
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		closeAll(files)
		return fmt.Errorf("open our own process: %w", err)
	}
	engine := files.Add(self)
	m.Engine = &engine
	err = c.exchange(ctx, conn, m, nil, files, nil)
	closeAll(files)
	return err
}

// packProcess puts a process into a message, with duplicates of its files: the vault's own may be closed meanwhile.
func (c *Client) packProcess(m *wire.Message, id string) (files wire.Files) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.vault[id]
	if h == nil {
		return nil
	}
	p := h.p
	p.PIDFD, p.Stdin, p.Stdout, p.Stderr = files.Add(dup(h.pidfd)), files.Add(dup(h.stdin)), files.Add(dup(h.stdout)), files.Add(dup(h.stderr))
	for _, s := range h.subs {
		if s.fd >= 0 && len(files)+3 <= wire.MaxFiles {
			d := *s
			d.fd, d.pipe = dup(s.fd), [2]int{dup(s.pipe[0]), dup(s.pipe[1])}
			p.Subscribers = append(p.Subscribers, d.wire(&files))
		}
	}
	m.Processes = []wire.Process{p}
	return files
}

func dupAll(fds []int) wire.Files {
	out := make(wire.Files, len(fds))
	for i, fd := range fds {
		out[i] = dup(fd)
	}
	return out
}
