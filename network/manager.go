package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"skiff/internal/errs"
	"skiff/network/netns"
	"skiff/network/nft"
	"skiff/network/rtnl"
)

// Manager connects containers. It is safe for use by several goroutines.
type Manager struct {
	cfg   Config
	ids   ifNames
	log   *slog.Logger
	maker *netns.Maker // makes namespaces for the pools
	inner *netns.Maker // works inside of those that were taken
	host  *rtnl.Conn   // in the host's namespace
	lo    *netns.Pool[*os.File]

	bridgeMu sync.Mutex // serialises the set-up of the bridge
	bridge   *bridge    // nil: not set up
	broken   error      // why not, since brokenAt
	brokenAt time.Time

	stateMu sync.Mutex
	state   state

	mu     sync.Mutex // guards what follows; not held over I/O
	conns  map[string]*connection
	closed bool

	work   sync.WaitGroup // background goroutines
	ctx    context.Context
	cancel context.CancelFunc
	reap   *reaper
}

// retryBridge is how long a failed set-up of the bridge is believed.
const retryBridge = time.Second

// New starts the networks. The default bridge and the nftables table are made right away; if that is impossible, New
// succeeds all the same and Connect reports the reason (and tries again), since --network none and host need neither.
func New(ctx context.Context, cfg Config) (*Manager, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.PoolMax <= 0 {
		cfg.PoolMax = 32
	}
	if cfg.PoolMin <= 0 {
		cfg.PoolMin = min(4, cfg.PoolMax)
	}
	st, err := loadState(cfg)
	if err != nil {
		return nil, err
	}
	host, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg: cfg, ids: cfg.ifNames(), log: cfg.Log, maker: netns.NewMaker(), inner: netns.NewMaker(), host: host, state: st,
		conns: map[string]*connection{},
	}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.reap = newReaper(m)
	m.lo = netns.NewPool(netns.Limits{Min: 0, Max: m.cfg.PoolMax, Idle: poolIdle},
		func(ctx context.Context) (*os.File, error) { return m.maker.New(ctx, furnishIsolated) },
		func(f *os.File) { f.Close() })
	if _, err := m.ready(ctx); err != nil {
		m.log.Warn("the default bridge is not available, containers can have --network none or host", "error", err)
	}
	return m, nil
}

// poolIdle is how long a burst of starts keeps the pools large.
const poolIdle = 30 * time.Second

// ready gives the default bridge, set up if it is not yet.
func (m *Manager) ready(ctx context.Context) (*bridge, error) {
	m.bridgeMu.Lock()
	defer m.bridgeMu.Unlock()
	if m.bridge != nil {
		return m.bridge, nil
	}
	if m.ctx.Err() != nil {
		return nil, errs.New(errs.Unavailable, "network bridge: the engine is shutting down")
	}
	if m.broken != nil && time.Since(m.brokenAt) < retryBridge {
		return nil, m.broken
	}
	b, err := m.setUp(ctx)
	if err != nil {
		m.broken, m.brokenAt = errs.As(errs.Unavailable, fmt.Errorf("network bridge is not available: %w", err)), time.Now()
		return nil, m.broken
	}
	m.bridge, m.broken = b, nil
	return b, nil
}

// Close ends all background work. Bridge, table and the connections of running containers stay as they are.
func (m *Manager) Close(_ context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	conns := m.conns
	m.conns = map[string]*connection{}
	m.mu.Unlock()
	m.cancel()
	m.lo.Close()
	m.bridgeMu.Lock()
	b := m.bridge
	m.bridge = nil
	m.bridgeMu.Unlock()
	var err error
	if b != nil {
		b.pool.Close()
		err = b.table.Close()
	}
	for _, c := range conns {
		c.closeSockets()
	}
	m.work.Wait()
	m.maker.Close()
	m.inner.Close()
	return errors.Join(err, m.host.Close())
}

// Destroy closes the manager and removes the bridge (if it made it) and the table, for tests and for uninstalling.
func (m *Manager) Destroy(ctx context.Context) error {
	err := m.Close(ctx)
	m.stateMu.Lock()
	own := m.state.Bridge
	m.stateMu.Unlock()
	c, oerr := rtnl.Open()
	if oerr != nil {
		return errors.Join(err, oerr)
	}
	defer c.Close()
	if index, ierr := c.Index(own); own != "" && ierr == nil {
		var b rtnl.Batch
		b.DelLink(index)
		err = errors.Join(err, c.Do(&b))
	}
	return errors.Join(err, nft.Destroy(ctx, m.ids.table))
}

// update changes the state and saves it.
func (m *Manager) update(durable bool, f func(s *state)) error {
	m.stateMu.Lock()
	defer m.stateMu.Unlock()
	f(&m.state)
	return m.state.save(m.cfg, durable)
}

func (m *Manager) current() state {
	m.stateMu.Lock()
	defer m.stateMu.Unlock()
	return m.state
}
