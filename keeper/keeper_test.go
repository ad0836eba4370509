package keeper_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/keeper"
	"skiff/runtime/launch"
)

func TestLaunch(t *testing.T) {
	c := start(t)
	for _, socket := range []bool{false, true} {
		log := jsonLog(t)
		sub, got := subscriber(t, socket)
		p := run(t, c, "one", log, []keeper.Subscriber{sub}, "/bin/sh", "-c", "echo out; echo err >&2; printf more; exit 3")
		sub.W.Close()
		if p.PID <= 0 || p.StartTime == 0 || p.StartedAt.IsZero() {
			t.Errorf("process %+v", p)
		}
		e := exit(t, c, "one")
		if e.Code != 3 || e.Signal != 0 {
			t.Errorf("exit %+v", e)
		}
		if out, err := logged(t, log, 1), logged(t, log, 2); out != "out\nmore" || err != "err\n" {
			t.Errorf("log %q, %q", out, err)
		}
		if s := unframe(t, got.wait(t)); s[1] != "out\nmore" || s[2] != "err\n" {
			t.Errorf("subscriber (socket %v) got %q", socket, s)
		}
		states, err := c.List(ctx(t))
		if err != nil || len(states) != 1 || states[0].Exited == nil || states[0].Exited.Code != 3 || states[0].Stdout != nil {
			t.Errorf("list %+v, %v", states, err)
		}
		states[0].PIDFD.Close()
		if err := c.Forget(ctx(t), "one"); err != nil {
			t.Error(err)
		}
		if states, err := c.List(ctx(t)); err != nil || len(states) != 0 {
			t.Errorf("list after forget %+v, %v", states, err)
		}
	}
}

func TestStepError(t *testing.T) {
	c := start(t)
	s := pipes(t)
	defer s.close()
	r := keeper.LaunchRequest{ID: "x", Program: program(t, "/not/there"), Files: []*os.File{s.childIn, s.childOut, s.chErr}}
	_, err := c.Launch(ctx(t), r)
	var step *launch.StepError
	if !errors.As(err, &step) || step.Errno != unix.ENOENT || step.ExitCode() != 127 {
		t.Errorf("%v", err)
	}
	if states, err := c.List(ctx(t)); err != nil || len(states) != 0 {
		t.Errorf("list %+v, %v", states, err)
	}
	r.Program = []byte("garbage")
	if _, err = c.Launch(ctx(t), r); !errs.Is(err, errs.Invalid) {
		t.Errorf("%v, class %v", err, errs.Of(err))
	}
}

func TestSignalsAndBooks(t *testing.T) {
	c := start(t)
	p := run(t, c, "a/b", keeper.LogConfig{}, nil, "/bin/sleep", "1000")
	s := pipes(t)
	defer s.close()
	r := keeper.LaunchRequest{ID: "a/b", Program: program(t, "/bin/true"), Files: []*os.File{s.childIn, s.childOut, s.chErr}}
	if _, err := c.Launch(ctx(t), r); !errs.Is(err, errs.Conflict) {
		t.Errorf("second launch: %v", err)
	}
	if err := c.Forget(ctx(t), "a/b"); !errs.Is(err, errs.Conflict) {
		t.Errorf("forget: %v", err)
	}
	if err := unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	if e := exit(t, c, "a/b"); e.Code != 143 || e.Signal != 15 {
		t.Errorf("exit %+v", e)
	}
	sub, _ := subscriber(t, true)
	if err := c.Subscribe(ctx(t), "a/b", sub); !errs.Is(err, errs.Conflict) {
		t.Errorf("subscribe: %v", err)
	}
	if err := c.Subscribe(ctx(t), "nobody", sub); !errs.Is(err, errs.NotFound) {
		t.Errorf("subscribe: %v", err)
	}
	// An ended process makes room for a new one of the same name.
	if _, err := c.Launch(ctx(t), r); err != nil {
		t.Error(err)
	}
	exit(t, c, "a/b")
}

func TestStdin(t *testing.T) {
	c := start(t)
	log := jsonLog(t)
	s := pipes(t)
	defer s.close()
	_, err := c.Launch(ctx(t), keeper.LaunchRequest{
		ID: "cat", Program: program(t, "/bin/cat"), Files: []*os.File{s.childIn, s.childOut, s.chErr}, Stdin: s.in, Stdout: s.out, Stderr: s.err, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.in.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	s.in.Close()
	s.childIn.Close()
	s.childOut.Close()
	s.chErr.Close()
	states, err := c.List(ctx(t))
	if err != nil || len(states) != 1 || states[0].Stdin == nil || states[0].Exited != nil {
		t.Fatalf("%+v %v", states, err)
	}
	if _, err := states[0].Stdin.WriteString(" again\n"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{states[0].Stdin, states[0].Stdout, states[0].Stderr, states[0].PIDFD} {
		f.Close()
	}
	if err := c.CloseStdin(ctx(t), "cat"); err != nil {
		t.Fatal(err)
	}
	if e := exit(t, c, "cat"); e.Code != 0 {
		t.Errorf("%+v", e)
	}
	if got := logged(t, log, 0); got != "hello again\n" {
		t.Errorf("log %q", got)
	}
}

func terminal(t *testing.T, c *keeper.Client, id string, log keeper.LogConfig, subs []keeper.Subscriber, argv ...string) (master *os.File) {
	t.Helper()
	m, s, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	defer s.Close()
	_, err = c.Launch(ctx(t), keeper.LaunchRequest{
		ID: id, Program: program(t, argv...), Files: []*os.File{s, s, s}, Stdin: m, Stdout: m, Terminal: true, Log: log, Subscribers: subs,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTerminal(t *testing.T) {
	c := start(t)
	log := jsonLog(t)
	sub, got := subscriber(t, true)
	m := terminal(t, c, "tty", log, []keeper.Subscriber{sub}, "/bin/sh", "-c", "stty -echo; echo ready; read a; echo got $a; exit 4")
	sub.W.Close()
	for !strings.Contains(logged(t, log, 0), "ready") {
		time.Sleep(time.Millisecond)
	}
	if _, err := m.WriteString("abc\n"); err != nil {
		t.Fatal(err)
	}
	if e := exit(t, c, "tty"); e.Code != 4 {
		t.Errorf("%+v", e)
	}
	if s := string(got.wait(t)); s != "ready\r\ngot abc\r\n" {
		t.Errorf("subscriber got %q", s)
	}
	if s := logged(t, log, 0); s != "ready\r\ngot abc\r\n" {
		t.Errorf("log %q", s)
	}
}

func TestMuchOutput(t *testing.T) {
	c := start(t)
	log := jsonLog(t)
	log.MaxSize = 0
	sub, got := subscriber(t, true)
	const n = 200000
	begin := time.Now()
	run(t, c, "w", log, []keeper.Subscriber{sub}, self(t), "writer", "200000", "0", "7")
	sub.W.Close()
	if e := exit(t, c, "w"); e.Code != 7 {
		t.Errorf("%+v", e)
	}
	t.Logf("%d lines in %v", n, time.Since(begin))
	if logged(t, log, 1) != numbers(n) || logged(t, log, 2) != numbers(n/5) {
		t.Error("log differs")
	}
	if s := unframe(t, got.wait(t)); s[1] != numbers(n) || s[2] != numbers(n/5) {
		t.Error("subscriber's bytes differ")
	}
}

func TestGrandchildHoldsPipe(t *testing.T) {
	c := start(t)
	log := jsonLog(t)
	sub, got := subscriber(t, false)
	begin := time.Now()
	run(t, c, "d", log, []keeper.Subscriber{sub}, "/bin/sh", "-c", "(sleep 1; echo late) & echo now; exit 0")
	sub.W.Close()
	exit(t, c, "d")
	if d := time.Since(begin); d > 700*time.Millisecond {
		t.Errorf("exit after %v", d)
	}
	if s := unframe(t, got.wait(t)); s[1] != "now\n" {
		t.Errorf("%q", s)
	}
	time.Sleep(1200 * time.Millisecond)
	if s := logged(t, log, 0); s != "now\nlate\n" {
		t.Errorf("log %q", s)
	}
}
