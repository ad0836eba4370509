package server

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"skiff/runtime/launch"

	"golang.org/x/sys/unix"

	"skiff/keeper/wire"
)

// The environment of an engine and of a keeper that an engine starts.
const (
	EnvFD = "SKIFF_KEEPER_FD" // number of the descriptor of the connection
)

// Main is the keeper's program. args are os.Args.
//
//	skiff-keeper [--exec-root DIR] [--] ENGINE ARG...   starts ENGINE (an absolute path) and keeps it
//	skiff-keeper --exec-root DIR --adopt FD             takes over from an engine whose keeper died
func Main(args []string) int {
	var memory launch.Memory // one for the process: what the keeper holds is never copied to its children
	return Run(args, func(program []byte, files []int) (pid, pidfd int, err error) {
		return launchProgram(program, files, &memory)
	})
}

type flags struct {
	execRoot string
	adopt    int
	resume   int
	check    bool
	debug    bool
	engine   []string
}

func parse(args []string) (*flags, error) {
	f := new(flags)
	fs := flag.NewFlagSet("skiff-keeper", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.execRoot, "exec-root", "/run/skiff", "folder for state files")
	fs.IntVar(&f.adopt, "adopt", -1, "descriptor of the connection to an engine whose keeper died")
	fs.IntVar(&f.resume, "resume", -1, "descriptor with the state of this process's former program")
	fs.BoolVar(&f.check, "check-state", false, "tell the version of the state that this program can resume")
	fs.BoolVar(&f.debug, "debug", false, "log more")
	if err := fs.Parse(args[1:]); err != nil {
		return nil, err
	}
	f.engine = fs.Args()
	if f.check || f.resume >= 0 || f.adopt >= 0 {
		return f, nil
	}
	if len(f.engine) == 0 {
		return nil, errors.New("no engine was named; this program is started by skiffd")
	}
	if !filepath.IsAbs(f.engine[0]) {
		return nil, fmt.Errorf("the engine's path %q is not absolute", f.engine[0])
	}
	return f, nil
}

// Run is Main with another way to start processes, for tests.
func Run(args []string, l Launcher) int {
	f, err := parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "skiff-keeper: %v\n", err)
		return ExitConfig
	}
	if f.check {
		fmt.Println(stateVersion)
		return 0
	}
	tune()
	level := slog.LevelInfo
	if f.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("program", "skiff-keeper")
	code, err := run(f, l, log)
	if err != nil {
		log.Error("the keeper ends", "error", err)
		fmt.Fprintf(os.Stderr, "skiff-keeper: %v\n", err)
	}
	return code
}

func run(f *flags, l Launcher, log *slog.Logger) (int, error) {
	exe, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("find out the keeper's own path: %w", err)
	}
	activation := takeActivation()
	cfg := wire.Config{ExecRoot: f.execRoot, Keeper: exe, Engine: f.engine, Env: os.Environ(), Debug: f.debug}
	cfg.Dir, _ = os.Getwd() // "" is the same
	if f.resume >= 0 {
		return resume(f, l, log)
	}
	lock, err := takeLock(f.execRoot, f.adopt >= 0)
	if err != nil {
		return ExitConfig, err
	}
	s, err := newServer(cfg, l, log)
	if err != nil {
		return 1, err
	}
	s.lock = lock
	maps.Copy(s.stash, activation)
	var conn *wire.Conn
	if f.adopt >= 0 { // everything comes over the connection
		if conn, err = wire.NewConn(f.adopt); err != nil {
			return 1, err
		}
	} else if err := s.recover(); err != nil {
		return 1, err
	}
	return s.live(conn), nil
}

// live is the keeper's life, from the moment that it has all it inherited.
func (s *Server) live(conn *wire.Conn) int {
	s.handleSignals()
	return s.superviseEngine(conn)
}

// tune makes the process small and closed.
func tune() {
	debug.SetGCPercent(50)
	runtime.GOMAXPROCS(min(runtime.NumCPU(), 4))
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	unix.Umask(0o022)
}

func (s *Server) handleSignals() {
	signal.Ignore(unix.SIGPIPE)
	signal.Notify(s.signals, forwarded...)
	go func() {
		for sig := range s.signals {
			switch sig {
			case unix.SIGUSR2:
				s.upgrade()
				continue
			case unix.SIGTERM, unix.SIGINT:
				if !s.stopping() { // this goroutine alone closes it
					close(s.stop)
				}
			}
			s.signalEngine(sig)
		}
	}()
	orphans := make(chan os.Signal, 1)
	signal.Notify(orphans, unix.SIGCHLD)
	go s.collectOrphans(orphans)
}

// takeLock makes sure that one keeper works in exec-root. If the one that had the lock is dead, or we are its successor, we wait a
// little: the lock goes with its last thread.
func takeLock(root string, successor bool) (*os.File, error) {
	dir := filepath.Join(root, "keeper")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the keeper's folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		pid, lives := lockHolder(f)
		if !errors.Is(err, unix.EWOULDBLOCK) || lives && !successor || time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("another skiffd works in %s already (its keeper has pid %d): %w", root, pid, err)
		}
	}
	_ = f.Truncate(0)
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return f, err
}

// lockHolder reads who has the lock. While it is being written it may be nobody: one who lives.
func lockHolder(f *os.File) (pid int, lives bool) {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0, true
	}
	state, _, _, err := procStat(pid)
	return pid, err == nil && state != 'Z' && state != 'X'
}
