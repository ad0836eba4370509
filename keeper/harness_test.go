package keeper_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skiff/keeper"
	"skiff/keeper/logfile"
	"skiff/keeper/server"
	"skiff/runtime/launch"
)

// TestMain lets the test's own program be the keeper, the engine and a container's process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "--exec-root", "--check-state":
			if os.Getenv("SKIFF_TEST_PREFORK") != "" {
				os.Exit(server.Run(os.Args, prefork(1100)))
			}
			os.Exit(server.Main(os.Args))
		case "engine":
			os.Exit(engineMain(os.Args[2:]))
		case "writer":
			os.Exit(writerMain(os.Args[2:]))
		}
	}
	// Orphans of killed keepers come to us, so that they are gone after the test.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	os.Exit(m.Run())
}

func self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// start starts a keeper that ends with the test.
func start(t testing.TB) *keeper.Client {
	t.Helper()
	c, err := keeper.Start(ctx(t), keeper.StartOptions{Program: self(t), ExecRoot: execRoot(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// execRoot is t.TempDir for a keeper, which may still write there when it is killed.
func execRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "skiff-keeper-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 100 {
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	return dir
}

func ctx(t testing.TB) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return c
}

// program makes a launch program for a command with three streams in slots 0 to 2.
func program(t testing.TB, argv ...string) []byte {
	t.Helper()
	p, err := build(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func build(argv ...string) ([]byte, error) {
	b := launch.NewBuilder()
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		b.Do(name, unix.SYS_DUP3, b.Slot(name), launch.Int(uint32(i)), launch.Int(0))
	}
	b.Do("close all else", unix.SYS_CLOSE_RANGE, launch.Int(uint32(b.Keep+1)), launch.Int(uint32(1<<32-1)), launch.Int(0))
	b.Exec = launch.Exec{Name: argv[0], Paths: []uint32{uint32(b.Str(argv[0]).Value)}}
	b.Exec.Argv, b.Exec.Envp = b.Table(argv), b.Table([]string{"PATH=/usr/bin:/bin"})
	p, err := b.Finish()
	if err != nil {
		return nil, err
	}
	return p.MarshalBinary()
}

// streams are both ends of a process's pipes.
type streams struct {
	in, out, err             *os.File // ours
	childIn, childOut, chErr *os.File
}

func pipes(t testing.TB) *streams {
	t.Helper()
	s := new(streams)
	var errs [3]error
	s.childIn, s.in, errs[0] = keeper.InputPipe()
	s.out, s.childOut, errs[1] = keeper.OutputPipe()
	s.err, s.chErr, errs[2] = keeper.OutputPipe()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *streams) close() {
	for _, f := range []*os.File{s.in, s.out, s.err, s.childIn, s.childOut, s.chErr} {
		f.Close()
	}
}

// run launches a command with pipes.
func run(t testing.TB, c *keeper.Client, id string, log keeper.LogConfig, subs []keeper.Subscriber, argv ...string) keeper.Process {
	t.Helper()
	s := pipes(t)
	defer s.close()
	p, err := c.Launch(ctx(t), keeper.LaunchRequest{
		ID: id, Program: program(t, argv...), Files: []*os.File{s.childIn, s.childOut, s.chErr},
		Stdin: s.in, Stdout: s.out, Stderr: s.err, Log: log, Subscribers: subs,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0)
		p.PIDFD.Close()
	})
	return p
}

// exit waits for the end of a process, passing over others.
func exit(t testing.TB, c *keeper.Client, id string) keeper.Exit {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		select {
		case e := <-c.Exits():
			if e.ID == id {
				return e
			}
		case <-limit:
			t.Fatalf("process %s has not ended", id)
		}
	}
}

func jsonLog(t testing.TB) keeper.LogConfig {
	t.Helper()
	return keeper.LogConfig{Driver: "json-file", Path: filepath.Join(execRoot(t), "log", "x-json.log"), MaxSize: 20 << 20, MaxFiles: 3}
}

// logged is what a log holds of a stream, 0 for both.
func logged(t testing.TB, cfg keeper.LogConfig, s logfile.Stream) string {
	t.Helper()
	r, err := logfile.NewReader(logfile.Config(cfg), logfile.Options{Stdout: s != 2, Stderr: s != 1, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b strings.Builder
	for {
		e, err := r.Next(ctx(t))
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		b.Write(e.Line)
	}
}

// sink collects what a subscriber gets.
type sink struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	done chan struct{}
}

// subscriber makes one end for the keeper and reads the other.
func subscriber(t testing.TB, socket bool) (keeper.Subscriber, *sink) {
	t.Helper()
	var r, w *os.File
	if socket {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		r, w = os.NewFile(uintptr(p[0]), "r"), os.NewFile(uintptr(p[1]), "w")
	} else {
		var err error
		if r, w, err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	s := &sink{done: make(chan struct{})}
	go func() {
		defer close(s.done)
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Read(buf)
			s.mu.Lock()
			s.buf.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return keeper.Subscriber{W: w, Stdout: true, Stderr: true}, s
}

// wait gives all that came until the end.
func (s *sink) wait(t testing.TB) []byte {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		t.Fatal("a subscriber got no end")
	}
	return s.buf.Bytes()
}

// unframe takes Docker's frames apart.
func unframe(t testing.TB, b []byte) (out [3]string) {
	t.Helper()
	var bufs [3]strings.Builder
	for len(b) > 0 {
		if len(b) < 8 || b[0] < 1 || b[0] > 2 || b[1] != 0 || b[2] != 0 || b[3] != 0 {
			t.Fatalf("bad frame %.20q", b)
		}
		n := int(b[4])<<24 | int(b[5])<<16 | int(b[6])<<8 | int(b[7])
		if len(b) < 8+n {
			t.Fatalf("frame of %d bytes is cut", n)
		}
		bufs[b[0]].Write(b[8 : 8+n])
		b = b[8+n:]
	}
	for i := range out {
		out[i] = bufs[i].String()
	}
	return out
}

// numbers are n numbered lines.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

func files(fs ...*os.File) []*os.File { return fs }
