package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// dialTimeout bounds the wait for the container's answer.
const dialTimeout = 10 * time.Second

// Proxy is a running proxy. Close ends it and all its connections.
type Proxy struct {
	cancel context.CancelFunc
	group  sync.WaitGroup
	front  io.Closer

	mu    sync.Mutex
	conns map[io.Closer]struct{} // nil once closed
}

// TCP serves a listening socket, which it takes over.
func TCP(listener *os.File, to netip.AddrPort) (*Proxy, error) {
	defer listener.Close()
	l, err := net.FileListener(listener)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", listener.Name(), err)
	}
	p, ctx := start(l)
	p.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if ctx.Err() != nil || !retry(ctx, err) {
					return
				}
				continue
			}
			p.group.Go(func() { p.carry(ctx, c.(*net.TCPConn), to) })
		}
	})
	return p, nil
}

// retry waits a moment after a passing error (no descriptors left).
func retry(ctx context.Context, err error) bool {
	if ne, ok := err.(net.Error); !ok || !ne.Timeout() && !isTemporary(err) {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}

func start(front io.Closer) (*Proxy, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	return &Proxy{cancel: cancel, front: front, conns: map[io.Closer]struct{}{}}, ctx
}

// Close ends the proxy and waits for its goroutines.
func (p *Proxy) Close() {
	p.cancel()
	p.front.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.group.Wait()
}

// hold registers a connection, to be closed with the proxy.
func (p *Proxy) hold(c io.Closer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) release(c io.Closer) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	c.Close()
}

// carry copies in both directions; the end of one is passed on as such.
func (p *Proxy) carry(ctx context.Context, front *net.TCPConn, to netip.AddrPort) {
	if !p.hold(front) {
		return
	}
	defer p.release(front)
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		_ = front.SetLinger(0) // refused or unreachable: the client gets a reset
		return
	}
	back := c.(*net.TCPConn)
	if !p.hold(back) {
		return
	}
	defer p.release(back)
	var g sync.WaitGroup
	g.Go(func() { pipe(back, front) })
	pipe(front, back)
	g.Wait()
}

func pipe(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil {
		dst.SetLinger(0)
		dst.Close()
		src.Close()
		return
	}
	dst.CloseWrite()
}
