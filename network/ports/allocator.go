package ports

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Protocol numbers that can be published.
const (
	TCP  uint8 = unix.IPPROTO_TCP
	UDP  uint8 = unix.IPPROTO_UDP
	SCTP uint8 = unix.IPPROTO_SCTP
)

// ErrAllocated is the cause when another container has the port.
var ErrAllocated = errors.New("port is already allocated")

// Range is the host ports that will do, both ends included. First 0 stands for any port of the dynamic range.
type Range struct{ First, Last uint16 }

// Request is one port of a container to be published on a set of host addresses, with the same port number on each.
type Request struct {
	Proto     uint8
	Host      []netip.Addr
	Ports     Range
	Container netip.AddrPort // for error texts
	Owner     string         // whose port it is, for the error texts of others; may be empty
}

// Lease is a taken port. Release gives it back.
type Lease struct {
	Proto uint8
	Host  netip.AddrPort
	Owner string // whose it is, as in Request.Owner

	fd   int // the reservation, or -1
	from *Allocator
}

type slot struct {
	proto uint8
	port  uint16
}

// Allocator knows which ports are published. It is safe for use by several goroutines.
type Allocator struct {
	dynamic Range

	mu    sync.Mutex
	taken map[slot][]*Lease
	next  uint16 // where the search for a dynamic port goes on
}

// New makes an Allocator; dynamic is the range for ports that the user did not choose.
func New(dynamic Range) *Allocator {
	return &Allocator{dynamic: dynamic, taken: map[slot][]*Lease{}, next: dynamic.First}
}

// Take takes one port number of r on all its host addresses, or none.
func (a *Allocator) Take(r Request) ([]*Lease, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Ports.First == 0 {
		return a.takeDynamic(r)
	}
	var first error
	for p := uint32(r.Ports.First); p <= uint32(r.Ports.Last); p++ {
		l, err := a.take(r, uint16(p))
		if err == nil {
			return l, nil
		}
		if first == nil {
			first = err
		}
	}
	if r.Ports.Last > r.Ports.First {
		return nil, fmt.Errorf("all ports are allocated in the range %d-%d: %w", r.Ports.First, r.Ports.Last, first)
	}
	return nil, first
}

func (a *Allocator) takeDynamic(r Request) ([]*Lease, error) {
	n := int(a.dynamic.Last) - int(a.dynamic.First) + 1
	for range n {
		p := a.next
		if a.next++; a.next > a.dynamic.Last || a.next < a.dynamic.First {
			a.next = a.dynamic.First
		}
		l, err := a.take(r, p)
		switch {
		case err == nil:
			return l, nil
		case errors.Is(err, ErrAllocated), errors.Is(err, unix.EADDRINUSE):
		default:
			return nil, err
		}
	}
	return nil, fmt.Errorf("all ports of the dynamic range %d-%d are in use", a.dynamic.First, a.dynamic.Last)
}

func (a *Allocator) take(r Request, port uint16) ([]*Lease, error) {
	var got []*Lease
	for _, host := range r.Host {
		l, err := a.takeOne(r, netip.AddrPortFrom(host, port))
		if err != nil {
			for _, l := range got {
				a.drop(l)
			}
			return nil, err
		}
		got = append(got, l)
	}
	return got, nil
}

func (a *Allocator) takeOne(r Request, host netip.AddrPort) (*Lease, error) {
	s := slot{r.Proto, host.Port()}
	for _, l := range a.taken[s] {
		if overlap(l.Host.Addr(), host.Addr()) {
			//lint:ignore ST1005 the text is Docker's, scripts look for it
			return nil, fmt.Errorf("Bind for %s failed: %w%s", host, ErrAllocated, l.heldBy())
		}
	}
	fd, err := reserve(r.Proto, host)
	if err != nil {
		return nil, refusal(r, host, err)
	}
	l := &Lease{Proto: r.Proto, Host: host, Owner: r.Owner, fd: fd, from: a}
	a.taken[s] = append(a.taken[s], l)
	return l, nil
}

// Retake takes a port that a running container holds already. If its reservation fails, it is taken without one and the
// error says why; a conflict with another container's is the caller's bug and ignored.
func (a *Allocator) Retake(proto uint8, host netip.AddrPort, owner string) (*Lease, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fd, err := reserve(proto, host)
	if err != nil {
		fd = -1
		err = fmt.Errorf("reserve host port %s/%s again: %w", host, Name(proto), err)
	}
	l := &Lease{Proto: proto, Host: host, Owner: owner, fd: fd, from: a}
	s := slot{proto, host.Port()}
	a.taken[s] = append(a.taken[s], l)
	return l, err
}

// heldBy says in an error's text whose port it is.
func (l *Lease) heldBy() string {
	if l.Owner == "" {
		return ""
	}
	return " (held by " + l.Owner + ")"
}

// Release gives the port back. Releasing twice is no error.
func (l *Lease) Release() {
	l.from.mu.Lock()
	defer l.from.mu.Unlock()
	l.from.drop(l)
}

// File hands out the socket of an IPv6 reservation, which listens or is ready to receive; the port stays taken. It is
// nil if there is none (any more). The caller closes it.
func (l *Lease) File() *os.File {
	l.from.mu.Lock()
	defer l.from.mu.Unlock()
	if l.fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(l.fd), l.Host.String())
	l.fd = -1
	return f
}

func (l *Lease) closeFD() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

func (a *Allocator) drop(l *Lease) {
	l.closeFD()
	s := slot{l.Proto, l.Host.Port()}
	rest := a.taken[s]
	for i, o := range rest {
		if o == l {
			rest = append(rest[:i:i], rest[i+1:]...)
			break
		}
	}
	if len(rest) == 0 {
		delete(a.taken, s)
		return
	}
	a.taken[s] = rest
}

// overlap says whether two bindings of the same port exclude each other. An IPv6 one never takes IPv4 packets.
func overlap(x, y netip.Addr) bool {
	return x.Is4() == y.Is4() && (x == y || x.IsUnspecified() || y.IsUnspecified())
}

// Name is a protocol's name.
func Name(proto uint8) string {
	switch proto {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(proto))
}

// refusal words the kernel's refusal to bind, and says who is in the way.
func refusal(r Request, host netip.AddrPort, err error) error {
	where := host.String()
	if r.Container.IsValid() {
		where += ":" + r.Container.String()
	}
	where += "/" + Name(r.Proto)
	if errors.Is(err, unix.EADDRINUSE) {
		if h, ok := holder(r.Proto, host); ok {
			return fmt.Errorf("failed to bind host port for %s: %w (held by %s)", where, err, h)
		}
	}
	return fmt.Errorf("failed to bind host port for %s: %w", where, err)
}
