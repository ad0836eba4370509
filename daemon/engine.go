package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"

	"skiff/api"
	"skiff/daemon/config"
	"skiff/internal/version"
	"skiff/keeper"
)

// engine is a running daemon.
type engine struct {
	cfg    atomic.Pointer[config.Config]
	loader *config.Loader
	log    *slog.Logger
	level  *slog.LevelVar
	keeper *keeper.Client
	*services

	listeners []listener
	servers   []*http.Server
	serving   sync.WaitGroup
	cancel    context.CancelFunc // of all requests
	failed    chan error         // a listener broke
	closers   []func() error     // undone in reverse order
}

// run is the engine from start to end; the result is its exit code.
func run(ctx context.Context, cfg *config.Config, loader *config.Loader) int {
	e := &engine{loader: loader, level: new(slog.LevelVar), failed: make(chan error, 1)}
	e.cfg.Store(cfg)
	e.log = newLogger(cfg, e.level, os.Stderr)
	slog.SetDefault(e.log)
	signals := notifySignals()
	first, err := e.start(ctx)
	if err != nil {
		e.close()
		e.log.Error("the engine can't start", "error", err)
		fmt.Fprintf(os.Stderr, "skiffd: %v\n", err)
		if first { // a user is waiting for an answer; later, containers wait for an engine
			return keeper.ExitConfig
		}
		return exitError
	}
	return e.live(ctx, signals)
}

// newLogger makes the log; level can be changed afterwards.
func newLogger(cfg *config.Config, level *slog.LevelVar, w io.Writer) *slog.Logger {
	level.Set(levelOf(cfg))
	opt := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

func levelOf(cfg *config.Config) slog.Level {
	return map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError, "fatal": slog.LevelError + 4,
	}[cfg.LogLevel]
}

// instance tells this daemon's names on the host apart from other daemons': "" for the default exec root.
func instance(execRoot string) string {
	if execRoot == config.DefaultExecRoot {
		return ""
	}
	sum := sha256.Sum256([]byte(execRoot))
	return hex.EncodeToString(sum[:])[:6]
}

// start brings everything up; first says that no engine of this keeper came so far before.
func (e *engine) start(ctx context.Context) (first bool, err error) {
	cfg := e.cfg.Load()
	began := time.Now()
	first = true
	if err := makeFolders(cfg); err != nil {
		return first, err
	}
	lock, err := lockDataRoot(cfg.DataRoot)
	if err != nil {
		return first, err
	}
	e.onClose(lock.Close)
	if e.keeper, err = keeper.Connect(ctx); err != nil {
		return first, err
	}
	e.onClose(e.keeper.Close)
	if err := writePidFile(cfg.PidFile, e.keeper.Pid()); err != nil {
		return first, err
	}
	setProxies(cfg)
	if e.listeners, first, err = openListeners(ctx, cfg, e.keeper, e.log); err != nil {
		return first, err
	}
	if e.services, err = e.build(ctx, cfg); err != nil {
		return first, err
	}
	e.serve(ctx)
	_, _ = sdnotify.SdNotify(false, fmt.Sprintf("READY=1\nMAINPID=%d", e.keeper.Pid()))
	e.log.Info("the engine is ready", "version", version.Version, "commit", version.Commit, "after", time.Since(began).Round(time.Millisecond),
		"data-root", cfg.DataRoot, "exec-root", cfg.ExecRoot, "keeper", e.keeper.Pid())
	return first, nil
}

func (e *engine) onClose(f func() error) { e.closers = append(e.closers, f) }

// close undoes what start did. Containers and listening sockets stay as they are.
func (e *engine) close() {
	for i := len(e.closers) - 1; i >= 0; i-- {
		if err := e.closers[i](); err != nil {
			e.log.Warn("closing", "error", err)
		}
	}
	e.closers = nil
}

func makeFolders(cfg *config.Config) error {
	for path, mode := range map[string]os.FileMode{
		cfg.DataRoot: 0o710, cfg.ExecRoot: 0o711,
		filepath.Join(cfg.DataRoot, "network"): 0o700,
	} {
		if err := os.MkdirAll(path, mode); err != nil {
			return fmt.Errorf("make the folder %s: %w", path, err)
		}
	}
	return nil
}

// setProxies gives the configured proxies to whatever connects from this process; the environment's are overridden.
func setProxies(cfg *config.Config) {
	for name, value := range map[string]string{"HTTP_PROXY": cfg.HTTPProxy, "HTTPS_PROXY": cfg.HTTPSProxy, "NO_PROXY": cfg.NoProxy} {
		if value != "" {
			os.Setenv(name, value)
		}
	}
}

// serve answers requests on all listeners from now on.
func (e *engine) serve(ctx context.Context) {
	cfg := e.cfg.Load()
	ctx, e.cancel = context.WithCancel(ctx)
	conf := e.apiConfig()
	plain := api.New(conf)
	conf.Profiling = cfg.Debug
	local := api.New(conf)
	for _, l := range e.listeners {
		handler := http.Handler(plain)
		if l.Addr().Network() == "unix" {
			handler = local
		}
		srv := &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: time.Minute,
			BaseContext:       func(net.Listener) context.Context { return ctx },
			ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
		}
		e.servers = append(e.servers, srv)
		e.log.Info("API listen on "+l.Addr().String(), "host", l.host.String())
		e.serving.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				select {
				case e.failed <- fmt.Errorf("serving %s: %w", l.host, err):
				default:
				}
			}
		})
	}
}

// refuseRequests closes the listening sockets; what is under way goes on. The result is closed when all requests have ended.
func (e *engine) refuseRequests() (ended <-chan struct{}) {
	var all sync.WaitGroup
	for _, srv := range e.servers {
		all.Go(func() { _ = srv.Shutdown(context.Background()) })
	}
	ch := make(chan struct{})
	go func() {
		all.Wait()
		close(ch)
	}()
	return ch
}

// endRequests lets the requests under way finish for a moment, and then ends them. Connections that were taken over for a
// stream end with the process at the latest.
func (e *engine) endRequests(ended <-chan struct{}, moment time.Duration) {
	select {
	case <-ended:
	case <-time.After(moment):
	}
	e.cancel() // streams and waits end by this
	select {
	case <-ended:
	case <-time.After(requestPatience):
		for _, srv := range e.servers {
			_ = srv.Close()
		}
	}
	e.serving.Wait()
}

// dumpGoroutines writes all stacks to the log, for support.
func (e *engine) dumpGoroutines() {
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	e.log.Info("=== BEGIN goroutine stack dump ===\n" + string(buf[:n]) + "\n=== END goroutine stack dump ===")
}
