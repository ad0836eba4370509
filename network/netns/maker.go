package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"skiff/network/rtnl"
)

// ErrClosed is returned by a Maker or Pool that was closed.
var ErrClosed = errors.New("network namespaces: closed")

// Maker makes network namespaces and runs functions inside them, one after the other.
type Maker struct {
	jobs   chan job
	closed chan struct{}
	once   sync.Once
	done   chan struct{}
}

type job struct {
	ns   *os.File // to enter, or nil: a new one
	run  func(ns *os.File) error
	done chan result
}

type result struct {
	ns  *os.File
	err error
}

// NewMaker starts a Maker. Its home is the network namespace of the process's main thread.
func NewMaker() *Maker {
	m := &Maker{jobs: make(chan job), closed: make(chan struct{}), done: make(chan struct{})}
	go m.thread()
	return m
}

// Close ends the Maker and waits for its thread.
func (m *Maker) Close() {
	m.once.Do(func() { close(m.closed) })
	<-m.done
}

// New makes a namespace and runs setup inside. The caller owns the file.
func (m *Maker) New(ctx context.Context, setup func(ns *os.File) error) (*os.File, error) {
	return m.do(ctx, job{run: setup})
}

// Inside runs f on a thread that is inside ns. f must not wait for other goroutines' work in ns.
func (m *Maker) Inside(ctx context.Context, ns *os.File, f func() error) error {
	_, err := m.do(ctx, job{ns: ns, run: func(*os.File) error { return f() }})
	return err
}

func (m *Maker) do(ctx context.Context, j job) (*os.File, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	j.done = make(chan result, 1)
	select {
	case m.jobs <- j:
	case <-m.closed:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	r := <-j.done // a job takes a millisecond, and must not be left half-done
	return r.ns, r.err
}

// thread works on the jobs. It never unlocks: a thread that could not come home must end with its goroutine.
func (m *Maker) thread() {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread's namespace is what others see as the process's. While this goroutine holds it, the next one
		// starts on another thread.
		started := make(chan struct{})
		go func() { close(started); m.thread() }()
		<-started
		runtime.UnlockOSThread()
		return
	}
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		m.refuse(fmt.Errorf("open the host's network namespace: %w", err))
		return
	}
	defer home.Close()
	for {
		select {
		case <-m.closed:
			close(m.done)
			return
		case j := <-m.jobs:
			r := work(j)
			err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
			j.done <- r
			if err != nil {
				go m.thread()
				return
			}
		}
	}
}

// refuse answers all jobs with an error.
func (m *Maker) refuse(err error) {
	defer close(m.done)
	for {
		select {
		case <-m.closed:
			return
		case j := <-m.jobs:
			j.done <- result{err: err}
		}
	}
}

func work(j job) result {
	if j.ns != nil {
		if err := unix.Setns(int(j.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return result{err: fmt.Errorf("enter a network namespace: %w", err)}
		}
		return result{err: j.run(j.ns)}
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return result{err: fmt.Errorf("make a network namespace: %w", err)}
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return result{err: fmt.Errorf("open the new network namespace: %w", err)}
	}
	if err := j.run(ns); err != nil {
		ns.Close()
		return result{err: err}
	}
	return result{ns: ns}
}

// LoopbackUp sets lo up in the calling thread's network namespace.
func LoopbackUp() error {
	c, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	var b rtnl.Batch
	b.Up(Loopback)
	return c.Do(&b)
}

// Loopback is the interface index of lo in every network namespace.
const Loopback = 1

// SetSysctls writes net.* kernel parameters of the calling thread's network namespace. Names are written with dots or
// slashes, as sysctl(8) takes them.
func SetSysctls(values map[string]string) error {
	for name, value := range values {
		if err := SetSysctl(name, value); err != nil {
			return err
		}
	}
	return nil
}

// SetSysctl writes one parameter; see SetSysctls.
func SetSysctl(name, value string) error {
	p, err := sysctlPath(name)
	if err != nil {
		return err
	}
	fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("set sysctl %s to %q: %w", name, value, err)
	}
	return nil
}

// sysctlPath is the file of a parameter. If the first separator is a slash, dots are part of names (net/ipv4/conf/eth0.5).
func sysctlPath(name string) (string, error) {
	rel := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		rel = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	if !strings.HasPrefix(rel, "net/") {
		return "", fmt.Errorf("sysctl %q is not of a network namespace", name)
	}
	for part := range strings.SplitSeq(rel, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsRune(part, 0) {
			return "", fmt.Errorf("sysctl %q: bad name", name)
		}
	}
	return "/proc/sys/" + rel, nil
}

// CheckSysctl says whether a name can be a parameter of a network namespace.
func CheckSysctl(name string) error {
	_, err := sysctlPath(name)
	return err
}
