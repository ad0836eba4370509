package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// replyTimeout bounds the wait for the kernel's answer. The answer is made during sendmsg(2), so it is only ever reached
// when the socket's buffer overran.
const replyTimeout = 10 * time.Second

// Conn is a rtnetlink socket. It is safe for use by several goroutines.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// Open makes a socket in the network namespace of the calling thread.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a rtnetlink socket: %w", err)
	}
	tv := unix.NsecToTimeval(replyTimeout.Nanoseconds())
	if err := errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
	); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up a rtnetlink socket: %w", err)
	}
	// Answers need not repeat the request.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Conn{fd: fd, buf: make([]byte, 1024)}, nil
}

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// Error is the kernel's refusal of one message of a batch.
type Error struct {
	What string // what the message was to do
	Err  error  // a unix.Errno
}

func (e *Error) Error() string { return e.What + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Do sends a batch and waits until the kernel answered each message. Messages after a refused one are still carried out;
// the first refusal is returned as *Error. The batch is empty afterwards and may be used again.
func (c *Conn) Do(b *Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer b.reset()
	if c.fd < 0 {
		return fmt.Errorf("rtnetlink: %w", unix.EBADF)
	}
	if len(b.what) == 0 {
		return nil
	}
	first := c.seq + 1
	c.seq += uint32(len(b.what))
	b.number(first)
	if err := c.send(b.buf); err != nil {
		return fmt.Errorf("%s: %w", b.what[0], err)
	}
	var refused error
	for open := len(b.what); open > 0; {
		err := c.receive(c.buf, func(h header, body []byte) {
			i := h.seq - first
			if h.typ != unix.NLMSG_ERROR || i >= uint32(len(b.what)) || len(body) < 4 {
				return
			}
			open--
			if e := int32(binary.NativeEndian.Uint32(body)); e != 0 && refused == nil && !b.optional[int(i)] {
				refused = &Error{What: b.what[i], Err: unix.Errno(-e)}
			}
		})
		if err != nil {
			return fmt.Errorf("%s: read the answer: %w", b.what[0], err)
		}
	}
	return refused
}

// dump sends one message and gives all objects of the answer to each.
func (c *Conn) dump(b *Batch, each func(body []byte)) error {
	// The kernel fills at most 32 KB of a datagram.
	return c.query(b, make([]byte, 32<<10), true, each)
}

// ask sends one message that is answered with one object.
func (c *Conn) ask(b *Batch, each func(body []byte)) error {
	return c.query(b, make([]byte, 4<<10), false, each)
}

func (c *Conn) query(b *Batch, buf []byte, many bool, each func(body []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return fmt.Errorf("rtnetlink: %w", unix.EBADF)
	}
	c.seq++
	seq := c.seq
	b.number(seq)
	if err := c.send(b.buf); err != nil {
		return fmt.Errorf("%s: %w", b.what[0], err)
	}
	var refused error
	for done := false; !done; {
		err := c.receive(buf, func(h header, body []byte) {
			switch {
			case h.seq != seq:
			case h.typ == unix.NLMSG_DONE:
				done = true
			case h.typ == unix.NLMSG_ERROR:
				done = true
				if len(body) >= 4 {
					if e := int32(binary.NativeEndian.Uint32(body)); e != 0 {
						refused = &Error{What: b.what[0], Err: unix.Errno(-e)}
					}
				}
			default:
				done = !many
				each(body)
			}
		})
		if err != nil {
			return fmt.Errorf("%s: read the answer: %w", b.what[0], err)
		}
	}
	return refused
}

func (c *Conn) send(p []byte) error {
	for {
		err := unix.Sendto(c.fd, p, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return err
		}
	}
}

type header struct {
	typ uint16
	seq uint32
}

// receive reads one datagram into buf and gives its messages to each.
func (c *Conn) receive(buf []byte, each func(h header, body []byte)) error {
	n, err := recv(c.fd, buf, 0)
	if err != nil {
		return err
	}
	for p := buf[:n]; len(p) >= unix.SizeofNlMsghdr; {
		l := int(binary.NativeEndian.Uint32(p))
		if l < unix.SizeofNlMsghdr || l > len(p) {
			return errors.New("malformed netlink message")
		}
		each(header{binary.NativeEndian.Uint16(p[4:]), binary.NativeEndian.Uint32(p[8:])}, p[unix.SizeofNlMsghdr:l])
		p = p[min((l+3)&^3, len(p)):]
	}
	return nil
}

func recv(fd int, p []byte, flags int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, p, flags)
		if err != unix.EINTR {
			return n, err
		}
	}
}
