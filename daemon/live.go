package daemon

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"skiff/container"
	"skiff/daemon/config"
)

const (
	// requestPatience is how long requests under way may go on when the engine ends.
	requestPatience = 5 * time.Second
	// farewell is how long clients have to fetch the last output and the exit code of containers that were stopped.
	farewell = 500 * time.Millisecond
)

func notifySignals() chan os.Signal {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, unix.SIGHUP, unix.SIGTERM, unix.SIGINT, unix.SIGUSR1)
	return ch
}

// live waits for what ends the engine; the result is its exit code.
func (e *engine) live(ctx context.Context, signals <-chan os.Signal) int {
	for {
		select {
		case sig := <-signals:
			switch sig {
			case unix.SIGHUP:
				e.reload()
			case unix.SIGUSR1:
				e.dumpGoroutines()
			default:
				e.log.Info("the engine ends", "signal", sig.String())
				e.shutdown(ctx)
				return 0
			}
		case err := <-e.failed:
			e.log.Error("a listener broke, starting anew", "error", err)
			return exitError // the keeper starts another one; nothing has to be closed
		case <-e.keeper.Revived():
			e.tellPid()
		case <-e.keeper.Done():
			e.log.Error("the connection to the keeper is lost for good", "error", e.keeper.Err())
			return exitError
		}
	}
}

// tellPid tells the service manager, and whoever reads the pid file, which process the keeper is now.
func (e *engine) tellPid() {
	pid := e.keeper.Pid()
	if err := writePidFile(e.cfg.Load().PidFile, pid); err != nil {
		e.log.Warn("the pid file is out of date", "error", err)
	}
	_, _ = sdnotify.SdNotify(false, fmt.Sprintf("MAINPID=%d", pid))
}

// reload reads the configuration again. An invalid one changes nothing.
func (e *engine) reload() {
	_, _ = sdnotify.SdNotify(false, "RELOADING=1\nMONOTONIC_USEC="+monotonicMicros())
	defer func() { _, _ = sdnotify.SdNotify(false, "READY=1") }()
	old := e.cfg.Load()
	cfg, changed, kept, err := e.loader.Reload(old)
	if err == nil {
		err = e.applyReload(cfg)
	}
	if err != nil {
		e.log.Error("the configuration was not reloaded, the old one stays", "error", err)
		return
	}
	e.cfg.Store(cfg)
	e.level.Set(levelOf(cfg))
	e.log.Info("configuration reloaded", "changed", strings.Join(changed, ","), "only-after-restart", strings.Join(kept, ","))
	e.publishReload(cfg)
}

// monotonicMicros is the time as sd_notify(3) wants it with RELOADING.
func monotonicMicros() string {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return strconv.FormatInt(ts.Nano()/1000, 10)
}

// shutdown stops the containers (unless they are to live on), then everything else. Clients that are attached see the end of
// their containers.
func (e *engine) shutdown(ctx context.Context) {
	_, _ = sdnotify.SdNotify(false, "STOPPING=1")
	cfg := e.cfg.Load()
	ended := e.refuseRequests()
	left, moment := -1, time.Duration(0)
	if !cfg.LiveRestore {
		left, moment = e.stopContainers(ctx, cfg), farewell
	}
	e.endRequests(ended, moment)
	if left == 0 {
		e.clearHost(ctx)
	}
	e.close()
	for _, l := range e.listeners {
		if l.path != "" {
			_ = os.Remove(l.path)
		}
	}
	_ = os.Remove(cfg.PidFile)
	e.log.Info("the engine has ended", "running-containers-left", max(left, 0))
}

// stopContainers asks all running containers to end and tells how many did not, within the shutdown timeout.
func (e *engine) stopContainers(ctx context.Context, cfg *config.Config) (left int) {
	running, err := e.containers.List(ctx, container.ListOptions{})
	if err != nil {
		e.log.Error("listing the running containers", "error", err)
		return -1
	}
	if cfg.ShutdownTimeout >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(cfg.ShutdownTimeout)*time.Second)
		defer cancel()
	}
	var wg sync.WaitGroup
	for _, c := range running {
		wg.Go(func() {
			if err := e.containers.Stop(ctx, c.ID, container.StopOptions{}); err != nil {
				e.log.Warn("stopping a container", "container", c.ID, "error", err)
			}
		})
	}
	wg.Wait()
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestPatience)
	defer cancel()
	for _, c := range running { // those that took too long
		_ = e.containers.Kill(after, c.ID, "KILL")
	}
	for _, c := range running {
		e.awaitEnd(after, c.ID)
	}
	rest, err := e.containers.List(after, container.ListOptions{})
	if err != nil {
		return -1
	}
	return len(rest)
}

func (e *engine) awaitEnd(ctx context.Context, id string) {
	ch, err := e.containers.Wait(ctx, id, "not-running")
	if err != nil {
		return // it is gone
	}
	select {
	case <-ch:
	case <-ctx.Done():
	}
}
