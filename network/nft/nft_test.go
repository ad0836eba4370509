package nft

import (
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ownNamespace puts the test's thread, which ends with it, into an empty network namespace.
func ownNamespace(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// nft runs the program in the thread's namespace.
func nft(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("no nft program")
	}
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

func testTable(t testing.TB) *Table {
	t.Helper()
	tab, err := Open("skiff-test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tab.Close(); err != nil {
			t.Error(err)
		}
	})
	return tab
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var (
	testBridge = Bridge{Name: "br0", Subnet: netip.MustParsePrefix("172.17.0.0/16"), Masquerade: true, ICC: true}
	testPorts  = []Port{
		{unix.IPPROTO_TCP, ap("0.0.0.0:8080"), ap("172.17.0.2:80")},
		{unix.IPPROTO_UDP, ap("127.0.0.1:53"), ap("172.17.0.3:5353")},
	}
)

// The ruleset as nft(8) prints it. If this changes, read docs/network.md again.
const golden = `table inet skiff-test {
	set bridges {
		type ifname
		elements = { "br0" }
	}

	set subnets {
		type ipv4_addr
		flags interval
		elements = { 172.17.0.0/16 }
	}

	set icc {
		type ifname . ifname
		elements = { "br0" . "br0" }
	}

	map ports {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 8080 : 172.17.0.2 . 80 }
	}

	map hostports {
		type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
		elements = { udp . 127.0.0.1 . 53 : 172.17.0.3 . 5353 }
	}

	chain publish {
		dnat ip to meta l4proto . ip daddr . th dport map @hostports
		meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports
	}

	chain inbound {
		ct state established,related accept
		ct status dnat accept
		iifname . oifname @icc accept
		drop
	}

	chain raw {
		type filter hook prerouting priority raw; policy accept;
		iifname @bridges ip daddr 127.0.0.0/8 drop
		iifname @bridges ip saddr 127.0.0.0/8 drop
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 127.0.0.0/8 return
		meta nfproto ipv4 fib daddr type local jump publish
	}

	chain output {
		type nat hook output priority -100; policy accept;
		meta nfproto ipv4 fib daddr type local jump publish
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname @bridges ip saddr 127.0.0.0/8 masquerade
		oifname @bridges ip saddr @subnets ct status dnat masquerade
		oifname != @bridges ip saddr @subnets masquerade
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		oifname @bridges jump inbound
	}
}
`

func TestRuleset(t *testing.T) {
	ownNamespace(t)
	tab := testTable(t)
	if err := tab.Sync([]Bridge{testBridge}, testPorts[:1]); err != nil {
		t.Fatal(err)
	}
	if err := tab.Publish(testPorts[1:]); err != nil {
		t.Fatal(err)
	}
	if got := nft(t, "list", "table", "inet", "skiff-test"); got != golden {
		t.Errorf("got\n%s", got)
	}
	if err := tab.Withdraw(testPorts); err != nil {
		t.Fatal(err)
	}
	if err := tab.Withdraw(testPorts); err != nil {
		t.Errorf("twice: %v", err)
	}
	if got := nft(t, "list", "table", "inet", "skiff-test"); strings.Contains(got, "172.17.0.2") || strings.Contains(got, "5353") {
		t.Errorf("left:\n%s", got)
	}
	if err := Destroy(t.Context(), "skiff-test"); err != nil {
		t.Error(err)
	}
	if err := Destroy(t.Context(), "skiff-test"); err != nil {
		t.Errorf("twice: %v", err)
	}
	if got := nft(t, "list", "ruleset"); got != "" {
		t.Errorf("left:\n%s", got)
	}
}

func TestForeignTablesStay(t *testing.T) {
	ownNamespace(t)
	nft(t, "add", "table", "inet", "other")
	nft(t, "add", "chain", "inet", "other", "c", "{ type filter hook forward priority 5; policy drop; }")
	before := nft(t, "list", "table", "inet", "other")
	tab := testTable(t)
	for range 2 {
		if err := tab.Sync([]Bridge{testBridge}, testPorts); err != nil {
			t.Fatal(err)
		}
	}
	names, err := tab.ForwardDrops()
	if err != nil || strings.Join(names, ",") != "inet other c" {
		t.Errorf("ForwardDrops: %v %v", names, err)
	}
	if err := Destroy(t.Context(), "skiff-test"); err != nil {
		t.Error(err)
	}
	if got := nft(t, "list", "ruleset"); got != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, got)
	}
}

func TestManyPorts(t *testing.T) {
	ownNamespace(t)
	tab := testTable(t)
	var ports []Port
	for i := range 3000 {
		ports = append(ports, Port{unix.IPPROTO_TCP, netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(1000+i)), ap("172.17.0.2:80")})
	}
	if err := tab.Sync([]Bridge{testBridge}, ports); err != nil {
		t.Fatal(err)
	}
	if err := tab.Withdraw(ports); err != nil {
		t.Fatal(err)
	}
	if err := tab.Publish(ports); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(nft(t, "list", "map", "inet", "skiff-test", "ports"), "172.17.0.2"); n != 3000 {
		t.Errorf("%d elements", n)
	}
	nft(t, "flush", "ruleset")
	if err := tab.Withdraw(ports[:10]); err != nil {
		t.Errorf("after a flush: %v", err)
	}
	if n := strings.Count(nft(t, "list", "map", "inet", "skiff-test", "ports"), "172.17.0.2"); n != 2990 {
		t.Errorf("%d elements", n)
	}
}

func TestOwnChangesAreNotForeign(t *testing.T) {
	ownNamespace(t)
	tab := testTable(t)
	if err := tab.Sync([]Bridge{testBridge}, nil); err != nil {
		t.Fatal(err)
	}
	if err := tab.Watch(); err != nil {
		t.Fatal(err)
	}
	if err := tab.Publish(testPorts); err != nil {
		t.Fatal(err)
	}
	handle := func() string {
		_, after, _ := strings.Cut(nft(t, "-a", "list", "table", "inet", "skiff-test"), "# handle ")
		h, _, _ := strings.Cut(after, "\n")
		return h
	}
	before := handle()
	time.Sleep(3 * settle)
	if handle() != before {
		t.Error("the table was written anew after a change of our own")
	}
	nft(t, "add", "rule", "inet", "skiff-test", "forward", "drop")
	time.Sleep(6 * settle)
	if after := handle(); after == before || nft(t, "list", "table", "inet", "skiff-test") != golden {
		t.Error("a foreign rule stayed")
	}
}

func BenchmarkPublish(b *testing.B) {
	ownNamespace(b)
	tab := testTable(b)
	if err := tab.Sync([]Bridge{testBridge}, nil); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := tab.Publish(testPorts); err != nil {
			b.Fatal(err)
		}
		if err := tab.Withdraw(testPorts); err != nil {
			b.Fatal(err)
		}
	}
}
