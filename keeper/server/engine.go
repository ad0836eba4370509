package server

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skiff/keeper/wire"
)

// ExitConfig is the engine's exit code for a configuration that it can't work with: it is not started again (EX_CONFIG of
// sysexits.h).
const ExitConfig = 78

const (
	firstPause = 100 * time.Millisecond
	longPause  = 500 * time.Millisecond
	stable     = 10 * time.Second // an engine that ran so long is started again at once
)

// engine is the running engine. Its fields are under Server.mu.
type engine struct {
	pid     int
	pidfd   int
	started time.Time
}

// superviseEngine runs engines until one ends for good, and gives its exit code. conn, if not nil, is that of one that runs already.
func (s *Server) superviseEngine(conn *wire.Conn) int {
	tries := 0
	for {
		if conn == nil {
			var err error
			if conn, err = s.startEngine(); err != nil {
				s.log.Error("can't start the engine", "error", err)
				tries++
				if s.sleep(backOff(tries)) {
					return 1
				}
				continue
			}
		}
		err := s.serve(conn)
		conn = nil
		if err != nil {
			s.log.Error("connection to the engine", "error", err)
		}
		if len(s.cfg.Engine) == 0 { // nothing to start again
			return 0
		}
		if s.pool == nil { // the engine died before it had handed over everything
			if err := s.recover(); err != nil {
				s.log.Error("take over from a keeper and an engine that died", "error", err)
				return 1
			}
		}
		code, killed := s.awaitEngine()
		ran := time.Since(s.engine.started)
		if !killed && (code == 0 || code == ExitConfig) {
			return code
		}
		if s.stopping() {
			return code
		}
		if ran >= stable {
			tries = 0
		}
		pause := backOff(tries)
		tries++
		s.log.Error("the engine died and is started again", "code", code, "after", ran.Round(time.Millisecond), "pause", pause)
		if s.sleep(pause) {
			return code
		}
	}
}

// backOff is the pause before the next try: none before the first.
func backOff(tries int) time.Duration {
	if tries == 0 {
		return 0
	}
	return min(firstPause<<min(tries-1, 10), longPause)
}

// startEngine starts the engine's program as our child.
func (s *Server) startEngine() (*wire.Conn, error) {
	ours, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer closeFD(theirs)
	conn, err := wire.NewConn(ours)
	if err != nil {
		closeFD(ours)
		return nil, err
	}
	const fd = 3
	env := make([]string, 0, len(s.cfg.Env)+1)
	for _, v := range s.cfg.Env {
		if !strings.HasPrefix(v, EnvFD+"=") {
			env = append(env, v)
		}
	}
	env = append(env, EnvFD+"="+strconv.Itoa(fd))
	pidfd := -1
	var pid int
	withoutMask(func() {
		pid, err = syscall.ForkExec(s.cfg.Engine[0], s.cfg.Engine, &syscall.ProcAttr{
			Dir: s.cfg.Dir, Env: env, Files: []uintptr{0, 1, 2, uintptr(theirs)},
			// A group of its own: a terminal's Ctrl-C comes to the keeper, which forwards it once.
			Sys: &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
		})
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start engine %s: %w", s.cfg.Engine[0], err)
	}
	s.setEngine(pid, pidfd)
	if s.stopping() { // asked for while there was no engine to tell
		s.signalEngine(unix.SIGTERM)
	}
	return conn, nil
}

func (s *Server) setEngine(pid, pidfd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	closeFD(s.engine.pidfd)
	s.engine = engine{pid: pid, pidfd: pidfd, started: time.Now()}
}

// awaitEngine waits for the end of the engine's process. One that closed its connection but lives on is ended after a while.
func (s *Server) awaitEngine() (code int, killed bool) {
	s.mu.Lock()
	pid, pidfd := s.engine.pid, s.engine.pidfd
	s.mu.Unlock()
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for deadline, sig := time.Now().Add(5*time.Minute), unix.SIGTERM; ; {
		n, err := unix.Poll(poll, 1000)
		if n > 0 || err != nil && err != unix.EINTR {
			break
		}
		if time.Now().After(deadline) {
			_ = unix.PidfdSendSignal(pidfd, sig, nil, 0)
			deadline, sig = time.Now().Add(10*time.Second), unix.SIGKILL
		}
	}
	_, start, _, _ := procStat(pid)
	status, ok := exitStatus(pidfd, pid, start)
	s.mu.Lock()
	s.engine.pid = 0
	s.mu.Unlock()
	switch {
	case !ok:
		return 1, true
	case status.Signaled():
		return 128 + int(status.Signal()), true
	}
	return status.ExitStatus(), false
}

// signalEngine forwards a signal.
func (s *Server) signalEngine(sig os.Signal) {
	n, ok := sig.(syscall.Signal)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ok && s.engine.pid > 0 && s.engine.pidfd >= 0 {
		_ = unix.PidfdSendSignal(s.engine.pidfd, n, nil, 0)
	}
}

// stopping says that somebody asked for the end.
func (s *Server) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// sleep is true if the end was asked for meanwhile.
func (s *Server) sleep(d time.Duration) bool {
	select {
	case <-s.stop:
		return true
	case <-time.After(d):
		return false
	}
}
