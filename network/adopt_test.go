package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"skiff/internal/errs"
	"skiff/network/ipam"
	"skiff/network/rtnl"
)

// restart closes a manager as if it was killed, and starts the next one on the same state.
func restart(t *testing.T, old *Manager) *Manager {
	t.Helper()
	if err := old.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := New(t.Context(), old.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(context.Background()) })
	return m
}

func TestAdopt(t *testing.T) {
	dir := t.TempDir()
	old := newManager(t, func(c *Config) { c.StateDir = dir })
	a, epA := container(t, old, Request{ContainerID: "aaaa", Ports: portMapOf(t, "|8080|80/tcp", "|8080|80/udp")})
	a.echo(80)
	_, epB := container(t, old, Request{ContainerID: "bbbb", Ports: portMapOf(t, "|8081|80/tcp")})
	id := old.NetworkID("bridge")

	m := restart(t, old)
	a.maker = m.inner
	if m.NetworkID("bridge") != id {
		t.Error("the network's id changed")
	}
	host := machine{t: t}
	if _, err := host.dial("tcp", "127.0.0.1:8080"); err != nil {
		t.Errorf("before Adopt: %v", err)
	}
	if err := m.Adopt(t.Context(), []Held{{ContainerID: "aaaa", Name: "web", PID: os.Getpid(), Endpoint: epA}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"tcp 127.0.0.1:8080", "tcp [::1]:8080", "udp 127.0.0.1:8080", "udp [::1]:8080"} {
		n, addr, _ := strings.Cut(c, " ")
		if _, err := host.dial(n, addr); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
	if _, err := host.dial("tcp", "127.0.0.1:8081"); err == nil {
		t.Error("the port of a container that is gone is still published")
	}
	if _, err := m.Connect(t.Context(), Request{ContainerID: "cccc", Ports: portMapOf(t, "|8080|80/tcp")}); err == nil || !strings.Contains(err.Error(), "held by container web") {
		t.Errorf("an adopted container's port: %v", err)
	}
	in, err := m.Inspect(t.Context(), id[:8])
	if err != nil || len(in.Containers) != 1 || in.Containers["aaaa"].Name != "web" || in.Containers["aaaa"].EndpointID != epA.ID {
		t.Errorf("inspect: %+v %v", in, err)
	}
	c, epC := container(t, m, Request{ContainerID: "cccc", Ports: portMapOf(t, "|8081|80/tcp")})
	c.echo(80)
	if epC.Address == epA.Address {
		t.Error("an address was given twice")
	}
	if _, err := m.Connect(t.Context(), Request{ContainerID: "dddd", Ports: portMapOf(t, "|8080|80/tcp")}); err == nil {
		t.Error("a port was given twice")
	}
	for end := time.Now().Add(6 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := m.host.Index(epB.HostVeth); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the interface of a container that is gone was not removed")
		}
	}
	if _, err := m.host.Index(epA.HostVeth); err != nil {
		t.Errorf("the adopted container's interface: %v", err)
	}
	if err := m.Release(t.Context(), "aaaa"); err != nil {
		t.Error(err)
	}
}

func TestPortConflicts(t *testing.T) {
	m := newManager(t, nil)
	container(t, m, Request{ContainerID: "aaaa", Name: "web", Ports: portMapOf(t, "|8080|80/tcp", "127.0.0.1|8083|80/tcp")})
	l, err := net.Listen("tcp4", "127.0.0.1:8082")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		port string
		want []string
	}{
		{"|8080|80/tcp", []string{"driver failed programming external connectivity on endpoint db (", "): Bind for 0.0.0.0:8080 failed: port is already allocated (held by container web)"}},
		{"127.0.0.1|8080|80/tcp", []string{"Bind for 127.0.0.1:8080 failed: port is already allocated"}},
		{"|8083|80/tcp", []string{"Bind for 0.0.0.0:8083 failed: port is already allocated"}},
		{"::|8080|80/tcp", []string{"Bind for [::]:8080 failed: port is already allocated"}},
		{"|8082|80/tcp", []string{"failed to bind host port for 0.0.0.0:8082:172.17.0.", ":80/tcp: address already in use (held by exe, pid "}},
		{"|8080-8080|80/tcp", []string{"port is already allocated"}},
		{"203.0.113.7|8090|80/tcp", []string{"failed to bind host port for 203.0.113.7:8090:172.17.", "cannot assign requested address"}},
		{"|80x|80/tcp", []string{"invalid host port"}},
	} {
		_, err := m.Connect(t.Context(), Request{ContainerID: "bbbb", Name: "db", Ports: portMapOf(t, "|9999|1/tcp", c.port)})
		if err == nil {
			t.Errorf("%s: no error", c.port)
			continue
		}
		t.Log(err)
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v\nhas no %q", c.port, err, w)
			}
		}
	}
	// A refused start leaves nothing: the other port is free, and no element is left.
	container(t, m, Request{ContainerID: "cccc", Ports: portMapOf(t, "|9999|1/tcp", "|8082-8085|80/udp", "127.0.0.1|8080-8084|80/udp")})
	out, err := exec.Command("nft", "list", "map", "inet", "skiff", "ports").CombinedOutput()
	if err != nil || strings.Count(string(out), " : 172.17.") != 3 {
		t.Errorf("%s %v", out, err)
	}
	// And a program of the host can't take a published port.
	if l, err := net.Listen("tcp", "0.0.0.0:8080"); err == nil {
		l.Close()
		t.Error("the host could listen on a published port")
	}
	if err := m.Release(t.Context(), "aaaa"); err != nil {
		t.Fatal(err)
	}
	l2, err := net.Listen("tcp", ":8080")
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	l2.Close()
}

func TestMAC(t *testing.T) {
	m := newManager(t, nil)
	for _, s := range []string{"x", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:00:00:01"} {
		if _, err := m.Connect(t.Context(), Request{ContainerID: "a", MAC: s}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, err := m.Connect(t.Context(), Request{ContainerID: "a", Sysctls: map[string]string{"net/../kernel/x": "1"}}); !errs.Is(err, errs.Invalid) {
		t.Errorf("sysctl: %v", err)
	}
}

func TestAddressesOfASmallSubnet(t *testing.T) {
	m := newManager(t, func(c *Config) { c.BIP = netip.MustParsePrefix("10.77.0.1/29"); c.PoolMax = 2 })
	for round := range 3 {
		for i := range 5 { // .2 to .6
			id := string(rune('a' + i))
			ep, err := m.Connect(t.Context(), Request{ContainerID: id})
			if err != nil {
				t.Fatalf("round %d, container %d: %v", round, i, err)
			}
			ep.NetNS.Close()
		}
		_, err := m.Connect(t.Context(), Request{ContainerID: "more"})
		if err == nil || !strings.Contains(err.Error(), ipam.ErrNoAddress.Error()) {
			t.Errorf("a sixth: %v", err)
		}
		for i := range 5 {
			if err := m.Release(t.Context(), string(rune('a'+i))); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestSubnetChoice(t *testing.T) {
	newOutside(t)
	dir := t.TempDir()
	host, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	up, err := host.Index("up0")
	if err != nil {
		t.Fatal(err)
	}
	var b rtnl.Batch
	taken := netip.MustParsePrefix("172.17.9.1/24")
	b.AddAddr(up, taken)
	if err := host.Do(&b); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, func(c *Config) { c.StateDir = dir })
	if g := m.bridge.gateway.String(); g != "172.18.0.1/16" {
		t.Errorf("subnet %s", g)
	}
	b.DelAddr(up, taken)
	if err := host.Do(&b); err != nil {
		t.Fatal(err)
	}
	if m = restart(t, m); m.bridge.gateway.String() != "172.18.0.1/16" {
		t.Errorf("the subnet changed: %s", m.bridge.gateway)
	}
}

func TestBridgeIsRemoved(t *testing.T) {
	m := newManager(t, func(c *Config) { c.Instance = "0a1b2c" })
	a, epA := container(t, m, Request{ContainerID: "aaaa"})
	a.echo(80)
	var b rtnl.Batch
	b.DelLink(m.bridge.currentIndex())
	if err := m.host.Do(&b); err != nil {
		t.Fatal(err)
	}
	m.bridge.pool.Flush()
	_, _ = container(t, m, Request{ContainerID: "bbbb"})
	// The pool finds out when it makes the next one.
	for end := time.Now().Add(5 * time.Second); ; {
		seen, err := machine{t: t}.dial("tcp", netip.AddrPortFrom(epA.Address.Addr(), 80).String())
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%q %v", seen, err)
		}
	}
}
