package network

import (
	"net/netip"
	"os"
	"testing"
)

// setBridgeFilter switches br_netfilter for the test's host.
func setBridgeFilter(t *testing.T, on string) {
	t.Helper()
	const path = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	old, err := os.ReadFile(path)
	if err != nil {
		t.Skip("no br_netfilter")
	}
	if err := os.WriteFile(path, []byte(on), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(path, old, 0) })
}

func TestICC(t *testing.T) {
	for _, filter := range []string{"0", "1"} {
		for _, noICC := range []bool{false, true} {
			t.Run("filter="+filter, func(t *testing.T) {
				setBridgeFilter(t, filter)
				m := newManager(t, func(c *Config) { c.NoICC = noICC })
				a, epA := container(t, m, Request{ContainerID: "aaaa", Ports: portMapOf(t, "|8080|80/tcp")})
				b, _ := container(t, m, Request{ContainerID: "bbbb"})
				a.echo(80)
				a.echo(81)
				direct := netip.AddrPortFrom(epA.Address.Addr(), 81).String()
				if seen, err := b.dial("tcp", direct); (err == nil) == noICC {
					t.Errorf("NoICC %v: %q %v", noICC, seen, err)
				}
				for name, x := range map[string]machine{"neighbour": b, "itself": a, "host": {t: t}} {
					if seen, err := x.dial("tcp", epA.Gateway.String()+":8080"); err != nil {
						t.Errorf("published port, %s: %q %v", name, seen, err)
					}
				}
				if _, err := (machine{t: t}).dial("tcp", direct); err != nil {
					t.Errorf("the host: %v", err)
				}
			})
		}
	}
}

func TestNoMasquerade(t *testing.T) {
	m := newManager(t, func(c *Config) { c.NoMasquerade = true })
	out := newOutside(t).machine(t)
	out.echo(7)
	a, ep := container(t, m, Request{ContainerID: "aaaa"})
	if seen, err := a.dial("tcp", outsideAddr.String()+":7"); err != nil || seen != ep.Address.Addr().String() {
		t.Errorf("%q %v", seen, err)
	}
}
