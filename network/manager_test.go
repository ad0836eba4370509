package network

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"

	"skiff/internal/errs"
	"skiff/network/netns"
	"skiff/network/rtnl"
)

func TestBrokenBridge(t *testing.T) {
	host, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	maker := netns.NewMaker()
	defer maker.Close()
	ns, err := maker.New(t.Context(), func(ns *os.File) error {
		var b rtnl.Batch
		b.NewVeth(rtnl.Veth{Host: "skiff0", MTU: 1500, Peer: "x", MAC: randomMAC(), PeerNS: int(ns.Fd())})
		return host.Do(&b)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	m, err := New(t.Context(), Config{StateDir: t.TempDir(), Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Destroy(context.Background())
	if err := m.Adopt(t.Context(), nil); err != nil {
		t.Errorf("Adopt: %v", err)
	}
	_, err = m.Connect(t.Context(), Request{ContainerID: "aaaa"})
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "interface skiff0 is there already and is no bridge") {
		t.Errorf("Connect: %v", err)
	}
	lo, err := m.Isolated(t.Context(), "bbbb", nil)
	if err != nil {
		t.Fatal(err)
	}
	lo.Close()
	if _, err := m.List(t.Context()); err != nil {
		t.Error(err)
	}
	index, err := host.Index("skiff0")
	if err != nil {
		t.Fatal(err)
	}
	var b rtnl.Batch
	b.DelLink(index)
	if err := host.Do(&b); err != nil {
		t.Fatal(err)
	}
	time.Sleep(retryBridge)
	ep, err := m.Connect(t.Context(), Request{ContainerID: "aaaa"})
	if err != nil {
		t.Fatalf("when the reason is gone: %v", err)
	}
	ep.NetNS.Close()
}

func TestListAndInspect(t *testing.T) {
	m := newManager(t, func(c *Config) { c.Instance = "00ff00"; c.HostIP = netip.MustParseAddr("127.0.0.1") })
	all, err := m.List(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("%v %v", all, err)
	}
	var got []string
	for _, n := range all {
		got = append(got, n.Name+" "+n.Driver+" "+n.Scope)
	}
	if strings.Join(got, ",") != "bridge bridge local,host host local,none null local" {
		t.Errorf("%v", got)
	}
	_, ep := container(t, m, Request{ContainerID: "aaaa", Name: "web", Ports: portMapOf(t, "|8080|80/tcp")})
	in, err := m.Inspect(t.Context(), "bridge")
	if err != nil {
		t.Fatal(err)
	}
	if in.IPAM.Config[0].Subnet.String() != "172.17.0.0/16" || in.IPAM.Config[0].Gateway.String() != "172.17.0.1" ||
		in.Options["com.docker.network.bridge.name"] != "sk00ff00-br" || in.Options["com.docker.network.driver.mtu"] != "1500" {
		t.Errorf("%+v", in)
	}
	if c := in.Containers["aaaa"]; c.Name != "web" || c.IPv4Address != ep.Address || c.MacAddress.String() != ep.MAC {
		t.Errorf("%+v", c)
	}
	if !strings.HasPrefix(ep.HostVeth, "sk00ff00-") || len(ep.HostVeth) != maxIfName {
		t.Errorf("veth %s", ep.HostVeth)
	}
	if _, err := m.Inspect(t.Context(), "nix"); !errs.Is(err, errs.NotFound) || err.Error() != "network nix not found" {
		t.Errorf("%v", err)
	}
	if _, err := m.Inspect(t.Context(), ""); !errs.Is(err, errs.NotFound) {
		t.Errorf("%v", err)
	}
	if b := ep.Ports[network.MustParsePort("80/tcp")]; len(b) != 1 || b[0].HostIP.String() != "127.0.0.1" {
		t.Errorf("default host address: %v", ep.Ports)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []Config{
		{Instance: "xyz"},
		{Bridge: "a-very-long-name"},
		{MTU: 60},
		{BIP: netip.MustParsePrefix("172.17.0.0/16")},
		{BIP: netip.MustParsePrefix("fd00::1/64")},
		{FixedCIDR: netip.MustParsePrefix("fd00::/64")},
	} {
		c.StateDir = t.TempDir()
		if _, err := New(t.Context(), c); !errs.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestFiles(t *testing.T) {
	conf := t.TempDir() + "/resolv.conf"
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\nsearch example.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, func(c *Config) { c.ResolvConf = conf; c.DNSOptions = []string{"ndots:3"} })
	ep := &Endpoint{Address: netip.MustParsePrefix("172.17.0.9/16")}
	h, err := m.Hosts(DNSConfig{Hostname: "web", Domainname: "example.org", ExtraHosts: []string{"up:host-gateway", "db=1.2.3.4"}}, ep)
	if err != nil || !strings.HasSuffix(string(h), "\n172.17.0.1\tup\n1.2.3.4\tdb\n172.17.0.9\tweb.example.org web\n") {
		t.Errorf("%s %v", h, err)
	}
	if h, err := m.Hosts(DNSConfig{Hostname: "a.b"}, ep); err != nil || !strings.HasSuffix(string(h), "\n172.17.0.9\ta.b a\n") {
		t.Errorf("%s %v", h, err)
	}
	if h, err := m.Hosts(DNSConfig{Hostname: "a"}, nil); err != nil || !strings.HasSuffix(string(h), "allrouters\n") {
		t.Errorf("%s %v", h, err)
	}
	if h, err := m.Hosts(DNSConfig{HostNetwork: true, Hostname: "a"}, nil); err != nil || strings.Contains(string(h), "mcastprefix\nff02::1") && len(h) == 0 {
		t.Errorf("%s %v", h, err)
	}
	if _, err := m.Hosts(DNSConfig{ExtraHosts: []string{"x"}}, nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("%v", err)
	}
	for _, c := range []struct {
		cfg  DNSConfig
		want string
	}{
		{DNSConfig{}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch example.org\noptions ndots:3\n"},
		{DNSConfig{Servers: []netip.Addr{netip.MustParseAddr("9.9.9.9")}, Search: []string{"."}, Options: []string{"x"}}, "nameserver 9.9.9.9\noptions x\n"},
		{DNSConfig{HostNetwork: true}, "nameserver 127.0.0.1\nsearch example.org\noptions ndots:3\n"},
	} {
		r, err := m.ResolvConf(c.cfg, ep)
		if err != nil || !strings.Contains(string(r), "\n\n"+c.want+"\n#") {
			t.Errorf("%+v:\n%s%v", c.cfg, r, err)
		}
	}
}

// A UDP flow that goes on follows the port to its next container.
func TestUDPFlowsAreForgotten(t *testing.T) {
	m := newManager(t, nil)
	out := newOutside(t).machine(t)
	var f *os.File
	ask := func() string {
		buf := make([]byte, 100)
		for range 3 {
			if _, err := f.Write([]byte("?")); err != nil {
				continue
			}
			_ = f.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			if n, err := f.Read(buf); err == nil {
				return string(buf[:n])
			}
		}
		return ""
	}
	err := out.inside(func() error {
		fd, err := connect("udp", netip.AddrPortFrom(hostAddr, 8080))
		if err != nil {
			return err
		}
		f, err = nonblocking(fd)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, id := range []string{"aaaa", "bbbb"} {
		c, ep := container(t, m, Request{ContainerID: id, Ports: portMapOf(t, "|8080|80/udp")})
		c.echo(80)
		if got := ask(); !strings.HasPrefix(got, outsideAddr.String()) {
			t.Errorf("%s: %q", id, got)
		}
		if err := m.Release(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		_ = ep
	}
}

// Starts, releases and the end of the engine, all at once.
func TestConcurrentClose(t *testing.T) {
	m := newManager(t, nil)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				id := string(rune('a'+w)) + string(rune('a'+i))
				r := Request{ContainerID: id}
				if i%4 == 0 {
					r.Ports = portMapOf(t, "||80/tcp", "||80/udp")
				}
				ep, err := m.Connect(t.Context(), r)
				if err != nil {
					if !errs.Is(err, errs.Unavailable) {
						t.Errorf("%v", err)
					}
					return
				}
				ep.NetNS.Close()
				if i%2 == 0 {
					if err := m.Release(t.Context(), id); err != nil && !errs.Is(err, errs.Unavailable) {
						t.Errorf("%v", err)
					}
				}
			}
		})
	}
	time.Sleep(30 * time.Millisecond)
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := m.Connect(t.Context(), Request{ContainerID: "x"}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("after Close: %v", err)
	}
}

func TestIdempotence(t *testing.T) {
	m := newManager(t, nil)
	if err := m.Release(t.Context(), "nobody"); err != nil {
		t.Error(err)
	}
	first, ep1 := container(t, m, Request{ContainerID: "aaaa", Ports: portMapOf(t, "|8080|80/tcp")})
	_, ep2 := container(t, m, Request{ContainerID: "aaaa", Ports: portMapOf(t, "|8080|80/tcp")})
	if ep1.Address == ep2.Address || first.ns == nil {
		t.Error("the second connection is the first one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Connect(ctx, Request{ContainerID: "bbbb", MAC: "02:00:00:00:00:01"}); err == nil {
		t.Error("a cancelled Connect succeeded")
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
