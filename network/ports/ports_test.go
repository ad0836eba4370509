package ports

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTakeAndRelease(t *testing.T) {
	a := New(Range{40100, 40103})
	any4, any6, lo := netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.MustParseAddr("127.0.0.1")
	take := func(host []netip.Addr, first, last uint16) ([]*Lease, error) {
		return a.Take(Request{Proto: TCP, Host: host, Ports: Range{first, last}})
	}
	l, err := take([]netip.Addr{any4, any6}, 40200, 40200)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []netip.Addr{any4, any6, lo} {
		if _, err := take([]netip.Addr{h}, 40200, 40200); !errors.Is(err, ErrAllocated) {
			t.Errorf("%s: %v", h, err)
		}
	}
	r, err := take([]netip.Addr{lo}, 40200, 40202)
	if err != nil || r[0].Host.Port() != 40201 {
		t.Errorf("range: %v %v", r, err)
	}
	if _, err := take([]netip.Addr{any4}, 40200, 40201); err == nil || !strings.Contains(err.Error(), "all ports are allocated") {
		t.Errorf("full range: %v", err)
	}
	seen := map[uint16]bool{}
	var all []*Lease
	for range 4 {
		d, err := take([]netip.Addr{any4}, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		seen[d[0].Host.Port()] = true
		all = append(all, d...)
	}
	if _, err := take([]netip.Addr{any4}, 0, 0); err == nil || len(seen) != 4 {
		t.Errorf("dynamic: %v %v", seen, err)
	}
	for _, x := range append(append(all, l...), r...) {
		x.Release()
		x.Release()
	}
	if len(a.taken) != 0 {
		t.Errorf("left: %v", a.taken)
	}
}

func TestReservation(t *testing.T) {
	a := New(Range{40100, 40103})
	host := netip.MustParseAddrPort("127.0.0.1:40300")
	for _, proto := range []uint8{TCP, UDP} {
		l, err := a.Take(Request{Proto: proto, Host: []netip.Addr{host.Addr()}, Ports: Range{host.Port(), host.Port()}})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := listen(proto, host); err == nil {
			c()
			t.Errorf("%s: the port could be taken", Name(proto))
		}
		l[0].Release()
		c, err := listen(proto, host)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Take(Request{Proto: proto, Host: []netip.Addr{netip.IPv4Unspecified()}, Ports: Range{host.Port(), host.Port()}, Container: netip.MustParseAddrPort("172.17.0.2:80")})
		want := fmt.Sprintf("failed to bind host port for 0.0.0.0:40300:172.17.0.2:80/%s: address already in use (held by ports.test, pid %d)", Name(proto), os.Getpid())
		if !errors.Is(err, unix.EADDRINUSE) || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		c()
	}
	if l, err := a.Take(Request{Proto: SCTP, Host: []netip.Addr{host.Addr()}, Ports: Range{host.Port(), host.Port()}}); err != nil {
		t.Errorf("sctp: %v", err)
	} else {
		l[0].Release()
	}
}

func listen(proto uint8, host netip.AddrPort) (func(), error) {
	if proto == UDP {
		c, err := net.ListenPacket("udp", host.String())
		if err != nil {
			return nil, err
		}
		return func() { c.Close() }, nil
	}
	l, err := net.Listen("tcp", host.String())
	if err != nil {
		return nil, err
	}
	return func() { l.Close() }, nil
}

func TestParseSockets(t *testing.T) {
	const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F91 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0000000000000000 100 0 0 10 0
   2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1
`
	got := parseSockets(strings.NewReader(tcp))
	want := []socket{
		{netip.MustParseAddrPort("127.0.0.1:8080"), true, "12345"},
		{netip.MustParseAddrPort("127.0.0.1:8081"), false, "12346"},
		{netip.MustParseAddrPort("[::1]:80"), true, "7"},
	}
	if !littleEndian {
		t.Skip("the sample is of a little-endian machine")
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v", got)
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1")
	f.Fuzz(func(t *testing.T, s string) {
		for _, x := range parseSockets(strings.NewReader(s)) {
			if !x.local.IsValid() {
				t.Errorf("%q: %v", s, x)
			}
		}
	})
}
