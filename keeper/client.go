package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper/wire"
	"skiff/runtime/launch"
)

// EnvFD is the environment variable in which an engine finds the number of its connection's descriptor.
const EnvFD = "SKIFF_KEEPER_FD"

// ExitConfig is the engine's exit code for a configuration that can't work: the keeper ends too, instead of trying again.
const ExitConfig = 78

// Client is the connection to the keeper. It survives the keeper's death by starting another one. Its methods may be called
// from several goroutines.
type Client struct {
	log *slog.Logger

	mu      sync.Mutex
	cond    *sync.Cond // conn or err changed
	conn    *wire.Conn // nil while there is no keeper
	err     error      // final
	cfg     wire.Config
	seq     uint64
	number  uint64 // of subscribers
	calls   map[uint64]*call
	vault   map[string]*holding
	subs    map[uint64]*heldSub
	stash   map[string][]int
	limbo   []wire.Pipe // indexes into limboFD
	limboFD []int

	exits   *queue
	revived chan struct{}
	done    chan struct{}
}

// call is a request under way.
type call struct {
	conn  *wire.Conn
	part  func(m *wire.Message, files wire.Files) // gets each good reply, in the order of the connection, with c.mu held
	fails func()                                  // called with c.mu held if it fails, even when nobody waits for it any more; may be nil
	ended chan error
}

// HasKeeper says whether this process was started by a keeper.
func HasKeeper() bool { return os.Getenv(EnvFD) != "" }

// Connect takes up the connection to the keeper that started this process; errs.Unavailable if none did. It is called once. ctx bounds
// the first exchange only.
func Connect(ctx context.Context) (*Client, error) {
	v := os.Getenv(EnvFD)
	if v == "" {
		return nil, errs.New(errs.Unavailable, "this process was not started by skiff-keeper: %s is not set", EnvFD)
	}
	os.Unsetenv(EnvFD) // it is not for our children
	fd, err := strconv.Atoi(v)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s is %q, not a number", EnvFD, v)
	}
	conn, err := wire.NewConn(fd)
	if err != nil {
		return nil, err
	}
	c := newClient()
	if err := c.attach(ctx, conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to the keeper: %w", err)
	}
	return c, nil
}

// StartOptions say how Start starts a keeper.
type StartOptions struct {
	Program  string // absolute path of skiff-keeper
	ExecRoot string // absolute path of the folder for its state
}

// Start starts a keeper as a child of this process, for programs that are not the engine (tests, skiff-runtime).
func Start(ctx context.Context, o StartOptions) (*Client, error) {
	c := newClient()
	c.cfg = wire.Config{Keeper: o.Program, ExecRoot: o.ExecRoot}
	conn, err := c.replace(ctx)
	if err != nil {
		return nil, fmt.Errorf("start a keeper: %w", err)
	}
	c.setConn(conn)
	return c, nil
}

func newClient() *Client {
	c := &Client{
		log: slog.Default(), calls: map[uint64]*call{}, vault: map[string]*holding{}, subs: map[uint64]*heldSub{}, stash: map[string][]int{},
		exits: newQueue(), revived: make(chan struct{}, 1), done: make(chan struct{}),
	}
	c.cond = sync.NewCond(&c.mu)
	return c
}

// attach makes the first exchange with a keeper that may have processes already.
func (c *Client) attach(ctx context.Context, conn *wire.Conn) error {
	c.read(conn)
	if err := c.hello(ctx, conn); err != nil {
		return err
	}
	err := c.exchange(ctx, conn, &wire.Message{Op: wire.OpStashed}, nil, nil, func(m *wire.Message, files wire.Files) {
		if m.ID != "" {
			c.stash[m.ID] = takeAll(files)
		}
	})
	if err != nil {
		return err
	}
	err = c.exchange(ctx, conn, &wire.Message{Op: wire.OpList}, nil, nil, func(m *wire.Message, files wire.Files) {
		for i := range m.Processes {
			c.learn(&m.Processes[i], files)
		}
	})
	if err != nil {
		return err
	}
	c.setConn(conn)
	return nil
}

// hello learns what a successor of this keeper will need.
func (c *Client) hello(ctx context.Context, conn *wire.Conn) error {
	return c.exchange(ctx, conn, &wire.Message{Op: wire.OpHello}, nil, nil, func(m *wire.Message, files wire.Files) {
		if m.Config != nil {
			c.cfg = *m.Config
		}
		closeAll(c.limboFD)
		c.limbo = m.Limbo
		c.limboFD = takeAll(files)
	})
}

func (c *Client) setConn(conn *wire.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
	c.cond.Broadcast()
}

// Exits gives the ends of processes. The channel is never closed; what is not read waits.
func (c *Client) Exits() <-chan Exit { return c.exits.out }

// Done is closed when the client can't work any more: after Close, or if another keeper has taken the folder. Err says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the client can't work any more, nil as long as it can.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Pid is the keeper's process id.
func (c *Client) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.PID
}

// Close ends the connection. The keeper sees it and waits for the end of this process.
func (c *Client) Close() error {
	c.fail(errs.New(errs.Unavailable, "the connection to the keeper was closed"))
	return nil
}

// fail ends the client for good.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	conn := c.conn
	c.conn = nil
	if conn != nil {
		conn.Close()
	}
	close(c.done)
	c.exits.stop()
	c.cond.Broadcast()
}

// current waits for a living connection.
func (c *Client) current(ctx context.Context) (*wire.Conn, error) {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cond.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.conn == nil && c.err == nil && ctx.Err() == nil {
		c.cond.Wait()
	}
	if c.err != nil {
		return nil, c.err
	}
	if c.conn == nil {
		return nil, errs.New(errs.Unavailable, "the keeper died and is not replaced yet: %w", context.Cause(ctx))
	}
	return c.conn, nil
}

// request sends a request to the current keeper and waits for the end of its replies.
func (c *Client) request(ctx context.Context, m *wire.Message, payload []byte, files wire.Files, part func(*wire.Message, wire.Files)) error {
	conn, err := c.current(ctx)
	if err != nil {
		return err
	}
	return c.exchange(ctx, conn, m, payload, files, part)
}

// exchange is request on a given connection.
func (c *Client) exchange(ctx context.Context, conn *wire.Conn, m *wire.Message, payload []byte, files wire.Files, part func(*wire.Message, wire.Files)) error {
	return c.do(ctx, &call{conn: conn, part: part}, m, payload, files)
}

// do carries out a call.
func (c *Client) do(ctx context.Context, k *call, m *wire.Message, payload []byte, files wire.Files) error {
	k.ended = make(chan error, 1)
	c.mu.Lock()
	c.seq++
	m.Seq = c.seq
	c.calls[m.Seq] = k
	c.mu.Unlock()
	if err := k.conn.Send(m, payload, files); err != nil {
		err = errs.As(errs.Unavailable, err)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.calls[m.Seq] != nil {
			c.finish(m.Seq, err)
		}
		return err
	}
	select {
	case err := <-k.ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the keeper's answer to %q: %w", m.Op, context.Cause(ctx)) // the call stays: its files are taken care of
	}
}

// finish ends a call. The caller holds c.mu.
func (c *Client) finish(seq uint64, err error) {
	k := c.calls[seq]
	delete(c.calls, seq)
	if err != nil && k.fails != nil {
		k.fails()
	}
	k.ended <- err
}

// read starts the goroutine that reads a connection.
func (c *Client) read(conn *wire.Conn) {
	go func() {
		for {
			m, _, files, err := conn.Recv()
			if err != nil {
				c.lost(conn, err)
				return
			}
			c.handle(m, files)
		}
	}()
}

// handle takes one message of the keeper.
func (c *Client) handle(m *wire.Message, files wire.Files) {
	defer wire.CloseAll(files)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !m.Reply {
		switch {
		case m.Op == wire.OpExit && m.Exit != nil:
			c.noteExit(m.Exit)
		case m.Op == wire.OpUnsubs && m.Subscriber != nil:
			c.dropSub(m.Subscriber.Number)
		}
		return
	}
	k := c.calls[m.Seq]
	if k == nil {
		return
	}
	if k.part != nil && m.Err == nil {
		k.part(m, files)
	}
	if !m.More {
		c.finish(m.Seq, fromWire(m.Err))
	}
}

// lost handles the end of a connection.
func (c *Client) lost(conn *wire.Conn, cause error) {
	conn.Close()
	if errors.Is(cause, io.EOF) {
		cause = errors.New("it died")
	}
	c.mu.Lock()
	for seq, k := range c.calls {
		if k.conn == conn {
			c.finish(seq, errs.New(errs.Unavailable, "the keeper did not answer: %w", cause))
		}
	}
	mine := c.conn == conn
	if mine {
		c.conn = nil
	}
	c.mu.Unlock()
	if mine {
		c.log.Error("the keeper is gone, another one is started", "pid", c.Pid(), "cause", cause)
		go c.revive()
	}
}

// fromWire gives an error its own form again.
func fromWire(w *wire.Error) error {
	if w == nil {
		return nil
	}
	if s := w.Step; s != nil {
		step := &launch.StepError{
			Index: s.Index, Name: s.Name, Errno: unix.Errno(s.Errno), Killed: unix.Signal(s.Killed), Exec: s.Exec, Search: s.Search,
		}
		return errs.As(w.Class, step)
	}
	return w.Classed()
}
