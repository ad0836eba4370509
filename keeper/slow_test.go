package keeper_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skiff/keeper"
)

// stuck is a subscriber who reads nothing; r is where he would read.
func stuck(t *testing.T) (s keeper.Subscriber, r *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(p[0]), "r"), os.NewFile(uintptr(p[1]), "w")
	t.Cleanup(func() { r.Close(); w.Close() })
	return keeper.Subscriber{W: w, Stdout: true, Stderr: true}, r
}

func TestSlowSubscriberHoldsNobodyUp(t *testing.T) {
	c := start(t)
	log := jsonLog(t)
	log.MaxSize = 0
	slow, r := stuck(t)
	quick, got := subscriber(t, true)
	const n = 200000
	run(t, c, "w", log, []keeper.Subscriber{slow, quick}, self(t), "writer", "200000", "0", "0")
	slow.W.Close()
	quick.W.Close()
	exit(t, c, "w")
	if s := unframe(t, got.wait(t)); s[1] != numbers(n) || s[2] != numbers(n/5) {
		t.Error("the quick one's bytes differ")
	}
	if logged(t, log, 1) != numbers(n) {
		t.Error("the log differs")
	}
	// Now it reads, after the process's end.
	s := drainAll(t, r)
	if u := unframe(t, s); u[1] != numbers(n) || u[2] != numbers(n/5) {
		t.Error("the slow one's bytes differ")
	}
}

func drainAll(t *testing.T, r *os.File) []byte {
	t.Helper()
	_ = r.SetReadDeadline(time.Now().Add(30 * time.Second))
	var b []byte
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf)
		b = append(b, buf[:n]...)
		if err != nil {
			if os.IsTimeout(err) {
				t.Fatal("a subscriber got no end")
			}
			return b
		}
	}
}

func TestGoneSubscriberIsRemoved(t *testing.T) {
	c := start(t)
	a, r := stuck(t)
	p := run(t, c, "w", keeper.LogConfig{}, []keeper.Subscriber{a}, "/bin/sleep", "1000")
	a.W.Close()
	fds := func() int {
		l, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(l)
	}
	before := fds()
	r.Close()
	for range 500 {
		if fds() < before-2 { // the vault's duplicates are gone
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := fds(); n >= before-2 {
		t.Errorf("%d descriptors, %d before", n, before)
	}
	_ = unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0)
	exit(t, c, "w")
}

// TestFullDisk lets a log run into a full disk: the process goes on, and what is in the log is whole.
func TestFullDisk(t *testing.T) {
	dir := execRoot(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	c := start(t)
	log := keeper.LogConfig{Driver: "json-file", Path: filepath.Join(dir, "log")}
	sub, got := subscriber(t, true)
	const n = 20000
	run(t, c, "w", log, []keeper.Subscriber{sub}, self(t), "writer", "20000", "0", "3")
	sub.W.Close()
	if e := exit(t, c, "w"); e.Code != 3 {
		t.Errorf("%+v", e)
	}
	if s := unframe(t, got.wait(t)); s[1] != numbers(n) {
		t.Error("subscriber's bytes differ")
	}
	if l := logged(t, log, 1); l == "" || !strings.HasPrefix(numbers(n), l[:1000]) {
		t.Errorf("log %.100q", l)
	}
	if err := c.Forget(ctx(t), "w"); err != nil {
		t.Error(err)
	}
}

// TestOrphansAreCollected: with the host's pid namespace a daemonised process becomes the keeper's child.
func TestOrphansAreCollected(t *testing.T) {
	c := start(t)
	run(t, c, "d", keeper.LogConfig{}, nil, "/bin/sh", "-c", "(sleep 0.3; exit 4) >/dev/null 2>&1 & exit 0")
	exit(t, c, "d")
	time.Sleep(100 * time.Millisecond)
	children := func() string {
		var all strings.Builder
		lists, _ := filepath.Glob("/proc/" + strconv.Itoa(c.Pid()) + "/task/*/children")
		for _, l := range lists {
			b, _ := os.ReadFile(l)
			all.Write(b)
		}
		return strings.TrimSpace(all.String())
	}
	if children() == "" {
		t.Error("the orphan is nobody's child")
	}
	for range 100 {
		if time.Sleep(100 * time.Millisecond); children() == "" {
			return
		}
	}
	t.Errorf("children left: %s", children())
}
