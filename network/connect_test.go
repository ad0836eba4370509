package network

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"

	"skiff/network/rtnl"
)

func portMapOf(t testing.TB, specs ...string) network.PortMap {
	t.Helper()
	pm := network.PortMap{}
	for _, s := range specs { // host ip|host port|container port/proto
		f := strings.Split(s, "|")
		b := network.PortBinding{HostPort: f[1]}
		if f[0] != "" {
			b.HostIP = netip.MustParseAddr(f[0])
		}
		p := network.MustParsePort(f[2])
		pm[p] = append(pm[p], b)
	}
	return pm
}

func TestConnect(t *testing.T) {
	m := newManager(t, nil)
	a, epA := container(t, m, Request{ContainerID: "aaaa", Sysctls: map[string]string{"net.ipv4.ip_unprivileged_port_start": "7"}})
	b, epB := container(t, m, Request{ContainerID: "bbbb", MAC: "02:00:00:aa:bb:cc"})
	if epA.Address.String() != "172.17.0.2/16" || epA.Gateway.String() != "172.17.0.1" || epA.MAC != "02:42:ac:11:00:02" {
		t.Errorf("endpoint: %+v", epA)
	}
	if epB.MAC != "02:00:00:aa:bb:cc" || epB.Address == epA.Address || len(epB.ID) != 64 || len(epB.NetworkID) != 64 {
		t.Errorf("endpoint: %+v", epB)
	}
	a.echo(80)
	b.echo(80)
	host := machine{t: t}
	for _, c := range []struct {
		from machine
		to   Endpoint
		seen string
	}{{a, epB, epA.Address.Addr().String()}, {b, epA, epB.Address.Addr().String()}, {host, epA, "172.17.0.1"}, {a, epA, "172.17.0.2"}} {
		for _, n := range []string{"tcp", "udp"} {
			seen, err := c.from.dial(n, netip.AddrPortFrom(c.to.Address.Addr(), 80).String())
			if err != nil || seen != c.seen {
				t.Errorf("%s to %s: %q, %v, want %q", n, c.to.Address, seen, err, c.seen)
			}
		}
	}
	err := a.inside(func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		all, err := c.Links()
		for _, l := range all {
			t.Logf("%+v", l)
			if l.Name == "eth0" && (l.MAC.String() != epA.MAC || !l.Up) {
				t.Errorf("eth0: %+v", l)
			}
		}
		v, err2 := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
		if strings.TrimSpace(string(v)) != "7" {
			t.Errorf("sysctl: %q %v", v, err2)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestIsolated(t *testing.T) {
	m := newManager(t, nil)
	ns, err := m.Isolated(t.Context(), "cccc", map[string]string{"net.core.somaxconn": "99"})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	x := machine{t, m.inner, ns}
	x.echo(80)
	if seen, err := x.dial("tcp", "127.0.0.1:80"); err != nil || seen != "127.0.0.1" {
		t.Errorf("loopback: %q %v", seen, err)
	}
	if _, err := x.dial("tcp", "172.17.0.1:80"); err == nil {
		t.Error("it has a way out")
	}
}

func TestPublish(t *testing.T) {
	m := newManager(t, nil)
	out := newOutside(t).machine(t)
	host := machine{t: t}
	a, epA := container(t, m, Request{ContainerID: "aaaa", Ports: portMapOf(t, "|8080|80/tcp", "|8080|80/udp", "127.0.0.1|8081|80/tcp", "198.51.100.1|8082|80/tcp", "|9000-9005|80/tcp", "||80/tcp")})
	b, epB := container(t, m, Request{ContainerID: "bbbb"})
	a.echo(80)
	b.echo(81)
	t.Logf("%v", epA.Ports)
	gw, ob := epA.Gateway.String(), epB.Address.Addr().String()
	for _, c := range []struct {
		name, net, to string
		from          machine
		seen          string // "": refused
	}{
		{"loopback", "tcp", "127.0.0.1:8080", host, gw},
		{"loopback udp", "udp", "127.0.0.1:8080", host, gw},
		{"other loopback", "tcp", "127.0.0.2:8080", host, gw},
		{"own address", "tcp", "198.51.100.1:8080", host, "198.51.100.1"},
		{"own address udp", "udp", "198.51.100.1:8080", host, "198.51.100.1"},
		{"loopback6", "tcp", "[::1]:8080", host, gw},
		{"loopback6 udp", "udp", "[::1]:8080", host, gw},
		{"outside", "tcp", "198.51.100.1:8080", out, outsideAddr.String()},
		{"outside udp", "udp", "198.51.100.1:8080", out, outsideAddr.String()},
		{"itself", "tcp", "198.51.100.1:8080", a, gw},
		{"neighbour", "tcp", "198.51.100.1:8080", b, gw},
		{"neighbour by gateway", "tcp", gw + ":8080", b, gw},
		{"bound to loopback", "tcp", "127.0.0.1:8081", host, gw},
		{"bound to loopback, from outside", "tcp", "198.51.100.1:8081", out, ""},
		{"bound to address", "tcp", "198.51.100.1:8082", out, outsideAddr.String()},
		{"bound to address, by loopback", "tcp", "127.0.0.1:8082", host, ""},
		{"range", "tcp", "127.0.0.1:9000", host, gw},
		{"container's address from outside", "tcp", epA.Address.Addr().String() + ":80", out, ""},
		{"random", "tcp", "127.0.0.1:32768", host, gw},
		{"not published", "tcp", "198.51.100.1:81", out, ""},
		{"b", "tcp", ob + ":81", host, gw},
	} {
		seen, err := c.from.dial(c.net, c.to)
		if seen != c.seen || (c.seen == "") != (err != nil) {
			t.Errorf("%s: %q, %v; want %q", c.name, seen, err, c.seen)
		}
	}
	out.echo(7)
	if seen, err := a.dial("tcp", "198.51.100.2:7"); err != nil || seen != hostAddr.String() {
		t.Errorf("masquerade: %q %v", seen, err)
	}
}

// A neighbour on the wire, or a container, that sends packets for 127.0.0.1 must not reach what is there.
func TestLoopbackIsTheHostsAlone(t *testing.T) {
	m := newManager(t, nil)
	out := newOutside(t).machine(t)
	host := machine{t: t}
	host.echo(7)
	a, epA := container(t, m, Request{ContainerID: "aaaa", Ports: portMapOf(t, "127.0.0.1|8081|80/tcp")})
	a.echo(80)
	for _, x := range []struct {
		from machine
		dev  string
		via  netip.Addr
	}{{out, "wan0", hostAddr}, {a, "eth0", epA.Gateway}} {
		err := x.from.inside(func() error {
			c, err := rtnl.Open()
			if err != nil {
				return err
			}
			defer c.Close()
			dev, err := c.Index(x.dev)
			if err != nil {
				return err
			}
			// 127.0.0.1 is not here any more, but at the host.
			for _, args := range []string{
				"addr flush dev lo", "route flush table local 127.0.0.0/8", "route add 127.0.0.1 dev " + x.dev + " via " + x.via.String(),
			} {
				if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil && !strings.Contains(args, "flush") {
					return fmt.Errorf("ip %s: %w: %s (interface %d)", args, err, out, dev)
				}
			}
			return os.WriteFile("/proc/sys/net/ipv4/conf/"+x.dev+"/route_localnet", []byte("1"), 0)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"127.0.0.1:8081", "127.0.0.1:7"} {
			if seen, err := x.from.dial("tcp", to); err == nil {
				t.Errorf("%s reached %s: %q", x.dev, to, seen)
			} else if !strings.Contains(err.Error(), "in progress") {
				t.Errorf("%s: the packets were not sent: %v", x.dev, err)
			}
		}
	}
	if _, err := host.dial("tcp", "127.0.0.1:8081"); err != nil {
		t.Error(err)
	}
}

func TestFlushedRulesComeBack(t *testing.T) {
	m := newManager(t, nil)
	a, _ := container(t, m, Request{ContainerID: "aaaa", Ports: portMapOf(t, "|8080|80/tcp")})
	a.echo(80)
	host := machine{t: t}
	for _, cmd := range []string{"flush ruleset", "delete table inet skiff", "flush map inet skiff ports", "flush chain inet skiff publish"} {
		if out, err := exec.Command("nft", strings.Fields(cmd)...).CombinedOutput(); err != nil {
			t.Fatalf("nft %s: %v %s", cmd, err, out)
		}
		time.Sleep(time.Second)
		if seen, err := host.dial("tcp", "127.0.0.1:8080"); err != nil {
			t.Errorf("after %s: %q %v", cmd, seen, err)
		}
	}
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatal(err, out)
	}
	b, _ := container(t, m, Request{ContainerID: "bbbb", Ports: portMapOf(t, "|8081|80/tcp")})
	b.echo(80)
	if seen, err := host.dial("tcp", "127.0.0.1:8081"); err != nil {
		t.Errorf("connected right after a flush: %q %v", seen, err)
	}
}

func TestThroughput(t *testing.T) {
	m := newManager(t, nil)
	const n, parallel = 200, 16
	start := time.Now()
	var wg sync.WaitGroup
	jobs := make(chan int)
	var mu sync.Mutex
	seen := map[netip.Prefix]bool{}
	var worst time.Duration
	for range parallel {
		wg.Go(func() {
			for i := range jobs {
				id := fmt.Sprintf("c%d", i)
				t0 := time.Now()
				ep, err := m.Connect(t.Context(), Request{ContainerID: id})
				d := time.Since(t0)
				if err != nil {
					t.Error(err)
					continue
				}
				mu.Lock()
				if seen[ep.Address] {
					t.Errorf("%s was given twice", ep.Address)
				}
				seen[ep.Address] = true
				worst = max(worst, d)
				mu.Unlock()
				ep.NetNS.Close()
				if err := m.Release(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		jobs <- i
	}
	close(jobs)
	wg.Wait()
	d := time.Since(start)
	t.Logf("%d in %v: %.0f/s, slowest %v", n, d, n/d.Seconds(), worst)
	if n/d.Seconds() < 100 {
		t.Errorf("slower than 100/s")
	}
}
