package keeper_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"skiff/keeper"
)

// reapWhenOurs collects a process once its parent, a keeper, was killed.
func reapWhenOurs(t *testing.T, pid int) {
	t.Helper()
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	go func() {
		for {
			var ws unix.WaitStatus
			if n, _ := unix.Wait4(pid, &ws, unix.WNOHANG, nil); n == pid {
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
}

// killKeepers kills the keeper at random moments until stop is closed, and tells how often.
func killKeepers(c *keeper.Client, sig unix.Signal, most time.Duration, stop <-chan struct{}) <-chan int {
	done := make(chan int, 1)
	go func() {
		n := 0
		last := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			case <-time.After(time.Duration(rand.Int64N(int64(most)))):
			}
			if pid := c.Pid(); pid > 0 && (pid != last || sig != unix.SIGKILL) {
				if unix.Kill(pid, sig) == nil {
					n++
				}
				last = pid
			}
		}
	}()
	return done
}

// sameLines complains about the first difference.
func sameLines(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Errorf("%s: line %d of %d (want %d) is %q, want %q; around: %q", what, i, len(g)-1, len(w)-1, g[i], w[i], g[max(i-2, 0):min(i+4, len(g))])
			return
		}
	}
	t.Errorf("%s: %d lines, want %d", what, len(g)-1, len(w)-1)
}

func TestKeeperDies(t *testing.T) {
	for _, reaped := range []bool{false, true} {
		t.Run(fmt.Sprintf("reaped=%v", reaped), func(t *testing.T) {
			c := start(t)
			log := jsonLog(t)
			log.MaxSize, log.MaxFiles, log.Compress = 300<<10, 500, true
			sub, got := subscriber(t, true)
			sub2, got2 := subscriber(t, false)
			const n = 150000
			p := run(t, c, "w", log, []keeper.Subscriber{sub, sub2}, self(t), "writer", fmt.Sprint(n), "200", "7")
			sub.W.Close()
			sub2.W.Close()
			if reaped {
				reapWhenOurs(t, p.PID)
			}
			stop := make(chan struct{})
			kills := killKeepers(c, unix.SIGKILL, 80*time.Millisecond, stop)
			e := exit(t, c, "w")
			close(stop)
			t.Logf("%d keepers were killed", <-kills)
			if e.Code != 7 {
				t.Errorf("%+v", e)
			}
			sameLines(t, "stdout", logged(t, log, 1), numbers(n))
			sameLines(t, "stderr", logged(t, log, 2), numbers(n/5))
			for _, g := range []*sink{got, got2} {
				s := unframe(t, g.wait(t))
				sameLines(t, "subscriber's stdout", s[1], numbers(n))
				sameLines(t, "subscriber's stderr", s[2], numbers(n/5))
			}
			if err := c.Forget(ctx(t), "w"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestKeeperDiesTerminal(t *testing.T) {
	c := start(t)
	log := jsonLog(t)
	log.Driver = "local"
	sub, got := subscriber(t, true)
	m, s, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	const n = 60000
	_, err = c.Launch(ctx(t), keeper.LaunchRequest{
		ID: "tty", Program: program(t, "/bin/sh", "-c", "exec "+self(t)+fmt.Sprintf(" writer %d 300 9 2>/dev/null", n)),
		Files: files(s, s, s), Stdin: m, Stdout: m, Terminal: true, Log: log, Subscribers: []keeper.Subscriber{sub},
	})
	s.Close()
	sub.W.Close()
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	kills := killKeepers(c, unix.SIGKILL, 80*time.Millisecond, stop)
	e := exit(t, c, "tty")
	close(stop)
	t.Logf("%d keepers were killed", <-kills)
	if e.Code != 9 {
		t.Errorf("%+v", e)
	}
	want := strings.ReplaceAll(numbers(n), "\n", "\r\n")
	sameLines(t, "log", logged(t, log, 0), want)
	sameLines(t, "subscriber", string(got.wait(t)), want)
}

func TestLaunchesWhileKeepersDie(t *testing.T) {
	c := start(t)
	stop := make(chan struct{})
	kills := killKeepers(c, unix.SIGKILL, 100*time.Millisecond, stop)
	want := map[string]int{}
	failed := 0
	begin := time.Now()
	for i := 0; time.Since(begin) < 4*time.Second; i++ {
		s := pipes(t)
		id := fmt.Sprintf("p%d", i)
		_, err := c.Launch(ctx(t), keeper.LaunchRequest{
			ID: id, Program: program(t, "/bin/sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i%100)), Files: files(s.childIn, s.childOut, s.chErr),
			Stdout: s.out, Stderr: s.err,
		})
		s.close()
		if err == nil {
			want[id] = i % 100
		} else {
			failed++
		}
	}
	close(stop)
	t.Logf("%d keepers were killed, %d processes launched, %d failed", <-kills, len(want), failed)
	limit := time.After(20 * time.Second)
	for left := len(want); left > 0; {
		select {
		case e := <-c.Exits():
			code, ok := want[e.ID]
			if !ok {
				t.Errorf("%+v of nobody, or twice", e)
				continue
			}
			if e.Code != code {
				t.Errorf("%+v, want %d", e, code)
			}
			delete(want, e.ID)
			left--
		case <-limit:
			t.Fatalf("no end of %d: %v", left, want)
		}
	}
}

func TestStashSurvives(t *testing.T) {
	c := start(t)
	a, b := pipes(t), pipes(t)
	defer a.close()
	defer b.close()
	if err := c.Stash(ctx(t), "two", files(a.out, a.childOut)); err != nil {
		t.Fatal(err)
	}
	if err := c.Stash(ctx(t), "one", files(b.out)); err != nil {
		t.Fatal(err)
	}
	if err := c.Stash(ctx(t), "gone", files(b.out)); err != nil {
		t.Fatal(err)
	}
	if err := c.Unstash(ctx(t), "gone"); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []unix.Signal{0, unix.SIGKILL, unix.SIGUSR2, unix.SIGKILL} {
		if err := unix.Kill(c.Pid(), sig); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		got, err := c.Stashed(ctx(t))
		if err != nil || len(got) != 2 || len(got["two"]) != 2 || len(got["one"]) != 1 {
			t.Fatalf("%v %v", got, err)
		}
		if _, err := got["two"][1].WriteString("x"); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 2)
		if n, err := got["two"][0].Read(buf); n != 1 || err != nil {
			t.Error(n, err)
		}
		for _, fs := range got {
			for _, f := range fs {
				f.Close()
			}
		}
	}
}

func TestUpdateInPlace(t *testing.T) {
	c := start(t)
	log := jsonLog(t)
	log.MaxSize, log.MaxFiles = 500<<10, 500
	sub, got := subscriber(t, true)
	slow, got2 := subscriber(t, true)
	got2.mu.Lock() // it reads nothing until all is written
	const n = 150000
	run(t, c, "w", log, []keeper.Subscriber{sub, slow}, self(t), "writer", fmt.Sprint(n), "200", "7")
	sub.W.Close()
	slow.W.Close()
	pid := c.Pid()
	stop := make(chan struct{})
	updates := killKeepers(c, unix.SIGUSR2, 400*time.Millisecond, stop)
	e := exit(t, c, "w")
	time.Sleep(300 * time.Millisecond) // an update with an ended process and a subscriber that is behind
	close(stop)
	t.Logf("%d updates", <-updates)
	got2.mu.Unlock()
	if e.Code != 7 || c.Pid() != pid {
		t.Errorf("%+v, pid %d, was %d", e, c.Pid(), pid)
	}
	sameLines(t, "stdout", logged(t, log, 1), numbers(n))
	sameLines(t, "stderr", logged(t, log, 2), numbers(n/5))
	for _, g := range []*sink{got, got2} {
		s := unframe(t, g.wait(t))
		sameLines(t, "subscriber's stdout", s[1], numbers(n))
		sameLines(t, "subscriber's stderr", s[2], numbers(n/5))
	}
}
