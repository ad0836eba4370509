package proxy

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func tcpProxy(t *testing.T, to netip.AddrPort) (*Proxy, string) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	p, err := TCP(f, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, l.Addr().String()
}

func addrOf(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

func TestTCPHalfClose(t *testing.T) {
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	go func() { // reads all, then answers with all: needs the half-close to arrive
		c, err := back.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		p, _ := io.ReadAll(c)
		_, _ = c.Write(p)
	}()
	_, addr := tcpProxy(t, addrOf(back.Addr()))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestTCPRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, addr := tcpProxy(t, addrOf(l.Addr()))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("data from nobody")
	}
}

func TestCloseEndsConnections(t *testing.T) {
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	p, addr := tcpProxy(t, addrOf(back.Addr()))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := back.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("still open")
	}
}

func TestUDP(t *testing.T) {
	back, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := back.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = back.WriteTo(buf[:n], from)
		}
	}()
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := front.File()
	if err != nil {
		t.Fatal(err)
	}
	addr := front.LocalAddr().String()
	front.Close()
	p, err := UDP(f, addrOf(back.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, size := range []int{1, 1400, 60000} {
		c, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		for range 3 {
			sent := bytes.Repeat([]byte{byte(size)}, size)
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 1<<16)
			n, err := c.Read(got)
			if err != nil || !bytes.Equal(got[:n], sent) {
				t.Errorf("%d bytes: %d, %v", size, n, err)
			}
		}
		c.Close()
	}
}
