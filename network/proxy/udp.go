package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// sessionIdle is how long a client's UDP flow is remembered without a packet, as in the kernel's connection tracking.
const sessionIdle = 90 * time.Second

// maxDatagram is the largest UDP payload.
const maxDatagram = 65507

// UDP serves a bound socket, which it takes over. Each client gets a socket of its own towards the container.
func UDP(socket *os.File, to netip.AddrPort) (*Proxy, error) {
	defer socket.Close()
	pc, err := net.FilePacketConn(socket)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", socket.Name(), err)
	}
	front, ok := pc.(*net.UDPConn)
	if !ok {
		pc.Close()
		return nil, fmt.Errorf("serve %s: not a UDP socket", socket.Name())
	}
	p, ctx := start(front)
	p.group.Go(func() { p.receive(ctx, front, to) })
	return p, nil
}

func (p *Proxy) receive(ctx context.Context, front *net.UDPConn, to netip.AddrPort) {
	sessions := map[netip.AddrPort]*net.UDPConn{}
	gone := make(chan netip.AddrPort, 64)
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := front.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !isTemporary(err) {
				return
			}
			continue
		}
		for more := true; more; {
			select {
			case a := <-gone:
				delete(sessions, a)
			default:
				more = false
			}
		}
		back := sessions[from]
		if back == nil {
			back, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
			if err != nil || !p.hold(back) {
				continue
			}
			sessions[from] = back
			p.group.Go(func() {
				p.answer(front, back, from)
				p.release(back)
				select {
				case gone <- from:
				case <-ctx.Done():
				}
			})
		}
		_ = back.SetReadDeadline(time.Now().Add(sessionIdle))
		_, _ = back.Write(buf[:n])
	}
}

// answer sends back what the container answers, until the flow was idle for a while.
func (p *Proxy) answer(front, back *net.UDPConn, client netip.AddrPort) {
	buf := make([]byte, maxDatagram)
	for {
		n, err := back.Read(buf)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // nobody listens in the container: the next packet may find somebody
		}
		if err != nil {
			return
		}
		_ = back.SetReadDeadline(time.Now().Add(sessionIdle))
		if _, err := front.WriteToUDPAddrPort(buf[:n], client); err != nil && !isTemporary(err) {
			return
		}
	}
}

// isTemporary says that an error concerns one packet or connection, not the socket.
func isTemporary(err error) bool {
	for _, e := range []error{
		syscall.ECONNREFUSED, syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS,
		syscall.ENOMEM, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EPERM, syscall.EAGAIN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
