package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// MaxFiles is how many files one message may carry (the kernel's bound is 253).
const MaxFiles = 250

const (
	magic      = 0x736b310a // "sk1\n"
	preludeLen = 16
	maxHeader  = 16 << 20
	maxPayload = 64 << 20
)

// Conn is one end of the connection. Send may be called from several goroutines, Recv from one at a time.
type Conn struct {
	f   *os.File
	raw syscall.RawConn
	wmu sync.Mutex
	oob []byte // of Recv
}

// Pair makes two connected ends, closed on exec.
func Pair() (a, b int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make the keeper's socket pair: %w", err)
	}
	return p[0], p[1], nil
}

// NewConn takes over the descriptor of a connected stream socket.
func NewConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("make keeper connection %d non-blocking: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "keeper connection")
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("keeper connection %d: %w", fd, err)
	}
	return &Conn{f: f, raw: raw}, nil
}

// Close ends the connection; a Recv under way fails.
func (c *Conn) Close() error { return c.f.Close() }

// FD gives the descriptor to f while it is surely open.
func (c *Conn) FD(f func(fd int)) error {
	return c.raw.Control(func(fd uintptr) { f(int(fd)) })
}

// Send writes one message. The files stay the caller's.
func (c *Conn) Send(m *Message, payload []byte, files Files) error {
	head, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message %s: %w", m, err)
	}
	if len(files) > MaxFiles || len(head) > maxHeader || len(payload) > maxPayload {
		return fmt.Errorf("message %s is too large: %d bytes header, %d bytes payload, %d files", m, len(head), len(payload), len(files))
	}
	buf := make([]byte, preludeLen, preludeLen+len(head)+len(payload))
	binary.BigEndian.PutUint32(buf[0:], magic)
	binary.BigEndian.PutUint32(buf[4:], uint32(len(head)))
	binary.BigEndian.PutUint32(buf[8:], uint32(len(payload)))
	binary.BigEndian.PutUint32(buf[12:], uint32(len(files)))
	buf = append(append(buf, head...), payload...)
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.write(buf, oob); err != nil {
		return fmt.Errorf("send message %s: %w", m, err)
	}
	return nil
}

func (c *Conn) write(buf, oob []byte) error {
	var werr error
	err := c.raw.Write(func(fd uintptr) bool {
		for len(buf) > 0 {
			n, err := unix.SendmsgN(int(fd), buf, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			switch err {
			case nil:
				buf, oob = buf[n:], nil
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				werr = err
				return true
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return werr
}

// Wait returns when a message has begun to come, or the connection ended.
func (c *Conn) Wait() error {
	return c.raw.Read(func(fd uintptr) bool {
		pf := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(pf, 0)
		return err == nil && n > 0
	})
}

// Recv reads the next message. The caller owns the files (see Files.Take and CloseAll). io.EOF: the other side is gone.
// If this process has no room for the message's files, the message comes without them and with Err set.
func (c *Conn) Recv() (*Message, []byte, Files, error) {
	var pre [preludeLen]byte
	files, err := c.read(pre[:], true)
	if err != nil {
		CloseAll(files)
		return nil, nil, nil, err
	}
	head := binary.BigEndian.Uint32(pre[4:])
	payload := binary.BigEndian.Uint32(pre[8:])
	if binary.BigEndian.Uint32(pre[0:]) != magic || head > maxHeader || payload > maxPayload {
		CloseAll(files)
		return nil, nil, nil, fmt.Errorf("keeper connection: prelude %x is not one of ours", pre)
	}
	buf := make([]byte, head+payload)
	if _, err := c.read(buf, false); err != nil {
		CloseAll(files)
		return nil, nil, nil, err
	}
	m := new(Message)
	if err := json.Unmarshal(buf[:head], m); err != nil {
		CloseAll(files)
		return nil, nil, nil, fmt.Errorf("keeper connection: header %q: %w", buf[:min(head, 200)], err)
	}
	if want := int(binary.BigEndian.Uint32(pre[12:])); want != len(files) {
		CloseAll(files)
		m.Err = &Error{Class: errs.Exhausted, Text: fmt.Sprintf("receive %d files with message %s: the kernel gave %d (too many open files?)", want, m, len(files))}
		return m, nil, nil, nil
	}
	return m, buf[head:], files, nil
}

// read fills buf. The files of a message come with its first byte.
func (c *Conn) read(buf []byte, first bool) (files Files, err error) {
	var rerr error
	done := 0
	err = c.raw.Read(func(fd uintptr) bool {
		for done < len(buf) {
			var oob []byte
			if first && done == 0 {
				if c.oob == nil {
					c.oob = make([]byte, unix.CmsgSpace(4*(MaxFiles+3)))
				}
				oob = c.oob
			}
			n, oobn, _, _, err := unix.Recvmsg(int(fd), buf[done:], oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				return false
			case err != nil:
				rerr = err
				return true
			}
			if oobn > 0 {
				files = append(files, parseFiles(oob[:oobn])...)
			}
			if n == 0 {
				rerr = io.EOF
				if !first || done > 0 {
					rerr = io.ErrUnexpectedEOF
				}
				return true
			}
			done += n
		}
		return true
	})
	if err == nil {
		err = rerr
	}
	if err == unix.ECONNRESET {
		err = io.EOF
	}
	return files, err
}

func parseFiles(oob []byte) Files {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var files Files
	for i := range msgs {
		if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			files = append(files, fds...)
		}
	}
	return files
}

// CloseAll closes what was not taken.
func CloseAll(files Files) {
	for i, fd := range files {
		if fd >= 0 {
			_ = unix.Close(fd)
			files[i] = -1
		}
	}
}

// Ping says whether the other side still has its end.
func (c *Conn) Ping() (err error) {
	cerr := c.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, perr := unix.Poll(p, 0); perr == nil && n > 0 {
			err = io.EOF
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}
