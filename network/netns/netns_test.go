package netns

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestMaker(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	home := inode(t, "/proc/self/ns/net")
	m := NewMaker()
	defer m.Close()
	boom := errors.New("boom")
	if _, err := m.New(t.Context(), func(*os.File) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("failing setup: %v", err)
	}
	ns, err := m.New(t.Context(), func(*os.File) error { return LoopbackUp() })
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil || st.Ino == home {
		t.Errorf("%v %v", st.Ino, err)
	}
	for range 3 {
		var in uint64
		if err := m.Inside(t.Context(), ns, func() error { in = inode(t, "/proc/thread-self/ns/net"); return nil }); err != nil || in != st.Ino {
			t.Errorf("inside: %d, %v", in, err)
		}
	}
	if inode(t, "/proc/self/ns/net") != home {
		t.Error("the process's namespace changed")
	}
	for range 50 { // no thread of the others is in the namespace
		runtime.LockOSThread()
		if inode(t, "/proc/thread-self/ns/net") != home {
			t.Error("a foreign thread is inside")
		}
		runtime.UnlockOSThread()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.New(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	m.Close()
	if _, err := m.New(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestSysctlPath(t *testing.T) {
	for in, want := range map[string]string{
		"net.ipv4.ip_forward":          "/proc/sys/net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.5/proxy":   "/proc/sys/net/ipv4/conf/eth0.5/proxy",
		"net.ipv4.conf.eth0/5.proxy":   "/proc/sys/net/ipv4/conf/eth0.5/proxy",
		"kernel.shmmax":                "",
		"net":                          "",
		"net/../kernel/core_pattern":   "",
		"net.ipv4.":                    "",
		"net./..kernel":                "",
		"net.ipv4.//.kernel":           "",
		"net/ipv4//x":                  "",
		"":                             "",
		"../x":                         "",
		"net.ipv4.conf.\x00.something": "",
	} {
		got, err := sysctlPath(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestPoolGrowsAndShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made, dropped atomic.Int32
		p := NewPool(Limits{Min: 2, Max: 16, Idle: 10 * time.Second}, func(context.Context) (int, error) {
			time.Sleep(time.Millisecond)
			return int(made.Add(1)), nil
		}, func(int) { dropped.Add(1) })
		synctest.Wait()
		time.Sleep(time.Second)
		if made.Load() != 2 {
			t.Errorf("made %d", made.Load())
		}
		var wg sync.WaitGroup
		seen := sync.Map{}
		for range 50 {
			wg.Go(func() {
				v, err := p.Take(t.Context())
				if err != nil {
					t.Error(err)
				}
				if _, twice := seen.LoadOrStore(v, true); twice {
					t.Errorf("%d twice", v)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second)
		if n := made.Load(); n != 50+16 {
			t.Errorf("made %d after a burst", n)
		}
		time.Sleep(30 * time.Second)
		if dropped.Load() != 14 {
			t.Errorf("dropped %d after a pause", dropped.Load())
		}
		p.SetMin(5)
		time.Sleep(time.Second)
		p.Close()
		if made.Load()-dropped.Load() != 50 {
			t.Errorf("made %d, dropped %d", made.Load(), dropped.Load())
		}
		if _, err := p.Take(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestPoolErrorsAndCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		var fail atomic.Bool
		fail.Store(true)
		var tries, made, dropped atomic.Int32
		p := NewPool(Limits{Min: 1, Max: 4, Idle: 10 * time.Second}, func(context.Context) (int, error) {
			tries.Add(1)
			time.Sleep(10 * time.Millisecond)
			if fail.Load() {
				return 0, boom
			}
			return int(made.Add(1)), nil
		}, func(int) { dropped.Add(1) })
		if _, err := p.Take(t.Context()); !errors.Is(err, boom) {
			t.Errorf("%v", err)
		}
		time.Sleep(10 * time.Second)
		if n := tries.Load(); n > 15 {
			t.Errorf("%d tries in ten seconds", n)
		}
		fail.Store(false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := p.Take(ctx)
		if !errors.Is(err, context.DeadlineExceeded) && err != nil {
			t.Errorf("%v", err)
		}
		if _, err := p.Take(t.Context()); err != nil {
			t.Errorf("%v", err)
		}
		p.Close()
	})
}
