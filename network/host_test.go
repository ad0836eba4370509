package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skiff/network/netns"
	"skiff/network/rtnl"
)

// The tests play the host in a network namespace of their own: whatever they do to rules, routes and sysctls touches
// nobody, and is gone afterwards.
const insideEnv = "SKIFF_NETWORK_TEST_HOST"

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) == "" && os.Geteuid() == 0 {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), insideEnv+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(victimEnv); dir != "" {
		victim(dir)
	}
	if c, err := rtnl.Open(); err == nil {
		var b rtnl.Batch
		b.Up(netns.Loopback)
		_ = c.Do(&b)
		c.Close()
	}
	goleak.VerifyTestMain(m)
}

// newManager starts a manager on an empty host. It checks at the end that nothing is left.
func newManager(t testing.TB, change func(*Config)) *Manager {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cfg := Config{StateDir: t.TempDir(), Log: testLog(t)}
	if change != nil {
		change(&cfg)
	}
	m, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if m.broken != nil {
		t.Fatal(m.broken)
	}
	t.Cleanup(func() {
		if err := m.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, m)
	})
	return m
}

func testLog(t testing.TB) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return slog.New(slog.DiscardHandler)
}

func checkNothingLeft(t testing.TB, m *Manager) {
	t.Helper()
	var left []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left = nil
		for _, l := range links(t) {
			if m.isOurs(l) || l.Name == m.ids.bridge {
				left = append(left, l.Name)
			}
		}
		if len(left) == 0 {
			break
		}
	}
	if len(left) > 0 {
		t.Errorf("interfaces are left: %v", left)
	}
	if out, err := exec.Command("nft", "list", "tables").CombinedOutput(); err == nil && strings.Contains(string(out), m.ids.table+"\n") {
		t.Errorf("the nftables table is left: %s", out)
	}
}

func links(t testing.TB) []rtnl.Link {
	t.Helper()
	c, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Links()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// outside is another machine on the host's network: 198.51.100.2, the host has 198.51.100.1.
type outside struct {
	maker *netns.Maker
	ns    *os.File
}

var (
	hostAddr    = netip.MustParseAddr("198.51.100.1")
	outsideAddr = netip.MustParseAddr("198.51.100.2")
)

func newOutside(t testing.TB) *outside {
	t.Helper()
	o := &outside{maker: netns.NewMaker()}
	host, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	var b rtnl.Batch
	o.ns, err = o.maker.New(t.Context(), func(ns *os.File) error {
		in, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer in.Close()
		b.NewVeth(rtnl.Veth{Host: "up0", MTU: 1500, Peer: "wan0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, PeerNS: int(ns.Fd())})
		if err := host.Do(&b); err != nil {
			return err
		}
		index, err := in.Index("wan0")
		if err != nil {
			return err
		}
		b.Up(netns.Loopback)
		b.Up(index)
		b.AddAddr(index, netip.PrefixFrom(outsideAddr, 24))
		b.AddDefaultRoute(index, hostAddr)
		return in.Do(&b)
	})
	if err != nil {
		t.Fatal(err)
	}
	up, err := host.Index("up0")
	if err != nil {
		t.Fatal(err)
	}
	b.AddAddr(up, netip.PrefixFrom(hostAddr, 24))
	if err := host.Do(&b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.DelLink(up)
		if err := host.Do(&b); err != nil {
			t.Error(err)
		}
		o.ns.Close()
		o.maker.Close()
		host.Close()
	})
	return o
}

// machine is a place to listen and to dial from.
type machine struct {
	t     testing.TB
	maker *netns.Maker
	ns    *os.File // nil: the host
}

func (o *outside) machine(t testing.TB) machine { return machine{t, o.maker, o.ns} }

// container connects a container and returns it as a machine.
func container(t testing.TB, m *Manager, r Request) (machine, Endpoint) {
	t.Helper()
	ep, err := m.Connect(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ep.NetNS.Close()
		if err := m.Release(context.Background(), r.ContainerID); err != nil {
			t.Error(err)
		}
	})
	return machine{t, m.inner, ep.NetNS}, ep
}

func (x machine) inside(f func() error) error {
	if x.ns == nil {
		return f()
	}
	return x.maker.Inside(context.Background(), x.ns, f)
}

// echo serves TCP and UDP: it answers with the client's address as it sees it.
func (x machine) echo(port int) {
	x.t.Helper()
	var l net.Listener
	var u net.PacketConn
	err := x.inside(func() (err error) {
		if l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		u, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		x.t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				done <- struct{}{}
				return
			}
			fmt.Fprint(c, c.RemoteAddr())
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				done <- struct{}{}
				return
			}
			_, _ = u.WriteTo([]byte(from.String()), from)
		}
	}()
	x.t.Cleanup(func() { l.Close(); u.Close(); <-done; <-done })
}

// dial asks an echo server; it returns the address that the server saw.
func (x machine) dial(network, addr string) (string, error) {
	var c net.Conn
	err := x.inside(func() error {
		fd, err := connect(network, netip.MustParseAddrPort(addr))
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), addr)
		defer f.Close()
		c, err = net.FileConn(f)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(700 * time.Millisecond))
	if strings.HasPrefix(network, "udp") {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(string(buf[:n]))
	return host, err
}

// connect opens a connection on the calling thread (net.Dial may use others). A connect with a time limit is not
// restarted by the kernel when a signal comes (socket(7), SO_SNDTIMEO), and Go's scheduler sends many: it is begun anew.
func connect(network string, to netip.AddrPort) (int, error) {
	for {
		if fd, err := connectOnce(network, to); !errors.Is(err, syscall.EINTR) {
			return fd, err
		}
	}
}

func connectOnce(network string, to netip.AddrPort) (int, error) {
	family, typ := syscall.AF_INET, syscall.SOCK_STREAM
	var sa syscall.Sockaddr = &syscall.SockaddrInet4{Port: int(to.Port())}
	if to.Addr().Is6() {
		family, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	} else {
		sa.(*syscall.SockaddrInet4).Addr = to.Addr().As4()
	}
	if strings.HasPrefix(network, "udp") {
		typ = syscall.SOCK_DGRAM
	}
	fd, err := syscall.Socket(family, typ|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	tv := syscall.NsecToTimeval(int64(700 * time.Millisecond))
	_ = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &tv)
	if err := syscall.Connect(fd, sa); err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", to, err)
	}
	return fd, nil
}

func nonblocking(fd int) (*os.File, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}
