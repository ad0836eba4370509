package rtnl

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ownNamespace puts the test's thread, which ends with it, into an empty network namespace.
func ownNamespace(t *testing.T) *Conn {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestBridgeVethRoute(t *testing.T) {
	host := ownNamespace(t)
	mac := net.HardwareAddr{2, 0x42, 1, 2, 3, 4}
	var b Batch
	b.NewBridge("br0", mac, 1400)
	if err := host.Do(&b); err != nil {
		t.Fatal(err)
	}
	br, err := host.Index("br0")
	if err != nil {
		t.Fatal(err)
	}
	b.AddAddr(br, netip.MustParsePrefix("10.1.2.1/24"))
	if err := host.Do(&b); err != nil {
		t.Fatal(err)
	}
	// From here on the thread is in another namespace; the socket stays where it was opened.
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	b.NewVeth(Veth{Host: "v0", Master: br, MTU: 1400, Peer: "eth0", MAC: mac, PeerNS: int(ns.Fd())})
	if err := host.Do(&b); err != nil {
		t.Fatal(err)
	}
	in, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	eth, err := in.Index("eth0")
	if err != nil {
		t.Fatal(err)
	}
	b.Up(1)
	b.Up(eth)
	b.AddAddr(eth, netip.MustParsePrefix("10.1.2.3/24"))
	b.AddDefaultRoute(eth, netip.MustParseAddr("10.1.2.1"))
	if err := in.Do(&b); err != nil {
		t.Fatal(err)
	}
	links, err := host.Links()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]Link{}
	for _, l := range links {
		seen[l.Name] = l
	}
	if l := seen["br0"]; l.Kind != "bridge" || l.MTU != 1400 || l.MAC.String() != mac.String() || !l.Up {
		t.Errorf("br0: %+v", l)
	}
	if l := seen["v0"]; l.Kind != "veth" || l.Master != br || !l.Up || l.MTU != 1400 {
		t.Errorf("v0: %+v", l)
	}
	addrs, err := in.Addrs()
	if err != nil || len(addrs) != 2 || addrs[1].Prefix.String() != "10.1.2.3/24" {
		t.Errorf("addresses: %v %v", addrs, err)
	}
	routes, err := in.Routes()
	if err != nil || len(routes) != 2 {
		t.Errorf("routes: %v %v", routes, err)
	}
	b.Isolate(seen["v0"].Index)
	b.Hairpin(seen["v0"].Index)
	b.DelLink(seen["v0"].Index)
	b.DelLink(br)
	if err := host.Do(&b); err != nil {
		t.Error(err)
	}
	if _, err := in.Index("eth0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the other end is still there: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	c := ownNamespace(t)
	var b Batch
	if err := c.Do(&b); err != nil {
		t.Errorf("an empty batch: %v", err)
	}
	b.Up(4711)
	b.Up(1)
	b.SetMAC(4712, net.HardwareAddr{2, 0, 0, 0, 0, 1})
	err := c.Do(&b)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, unix.ENODEV) || !strings.HasPrefix(err.Error(), "set interface up: ") {
		t.Errorf("%v", err)
	}
	links, err := c.Links()
	if err != nil || !links[0].Up {
		t.Errorf("the message behind the refused one was not carried out: %v %v", links, err)
	}
	c.Close()
	b.Up(1)
	if err := c.Do(&b); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed: %v", err)
	}
	if _, err := c.Links(); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed: %v", err)
	}
}
