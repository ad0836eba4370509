package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"skiff/container"
	"skiff/internal/errs"
)

// lingering is how long a connection is read after its output has ended, so that input still on its way does not turn
// the client's end of file into a connection reset.
const lingering = time.Second

// takenOver is a connection that left HTTP: raw bytes in both directions.
type takenOver struct {
	conn   net.Conn
	in     io.Reader
	cancel context.CancelFunc
}

// takeOver answers the request with 101 UPGRADED (or, without an Upgrade header, with 200 as before API 1.21), takes
// the connection out of HTTP, and gives a context that ends when the client has gone.
func (c *call) takeOver(contentType, header string) (context.Context, *takenOver, error) {
	conn, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "taking over the connection of %s %s: %w", c.Method, c.URL.Path, err)
	}
	c.wrote = true
	_ = conn.SetDeadline(time.Time{})
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + mediaRaw + "\r\n"
	if _, ok := c.Request.Header["Upgrade"]; ok {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + contentType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
	}
	head += fmt.Sprintf("Api-Version: %s\r\nOstype: %s\r\nServer: %s\r\n%s\r\n",
		c.Header().Get("Api-Version"), c.Header().Get("Ostype"), c.Header().Get("Server"), header)
	ctx, cancel := context.WithCancel(c.Context())
	t := &takenOver{conn: conn, cancel: cancel}
	t.in = &clientInput{Reader: unread(conn, rw.Reader), atEnd: sync.OnceFunc(func() { go t.watchGone() })}
	if _, err := io.WriteString(conn, head); err != nil {
		cancel() // the session ends by its context at once
	}
	return ctx, t, nil
}

// unread puts the bytes that HTTP has read ahead in front of the connection.
func unread(conn net.Conn, r *bufio.Reader) io.Reader {
	n := r.Buffered()
	if n == 0 {
		return conn
	}
	ahead := make([]byte, n)
	_, _ = io.ReadFull(r, ahead)
	return io.MultiReader(&sliceReader{ahead}, conn)
}

type sliceReader struct{ b []byte }

func (s *sliceReader) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b)
	s.b = s.b[n:]
	return n, nil
}

// clientInput tells when the client sends no more.
type clientInput struct {
	io.Reader
	atEnd func()
}

// Unread is called in place of Read by a session that wants no input: it ends when the client has gone.
func (i *clientInput) Unread() { i.atEnd() }

func (i *clientInput) Read(p []byte) (int, error) {
	n, err := i.Reader.Read(p)
	if err != nil {
		i.atEnd()
	}
	return n, err
}

// watchGone waits, after the end of the client's input, until the client is gone for good. An end of file alone does not
// say so: docker closes its side when its standard input ends, and goes on reading. The kernel tells by a hang-up event (unix
// socket: as soon as the other end is closed; TCP: when a probe is answered with a reset).
func (t *takenOver) watchGone() {
	defer t.cancel()
	sc, ok := t.conn.(syscall.Conn)
	if !ok { // TLS: the inner connection is what hangs up
		inner, isTLS := t.conn.(interface{ NetConn() net.Conn })
		if !isTLS {
			return
		}
		if sc, ok = inner.NetConn().(syscall.Conn); !ok {
			return
		}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		return err != nil && !errors.Is(err, unix.EINTR) || p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
}

// close ends the output, reads what input is still coming for a moment, and closes the connection.
func (t *takenOver) close() {
	defer t.cancel()
	defer t.conn.Close()
	half, ok := t.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = t.conn.SetReadDeadline(time.Now().Add(lingering))
	_, _ = io.Copy(io.Discard, t.conn)
}

// stream is what a session's stream has besides the session. The zero value is Docker's.
type stream struct {
	header string          // further header lines, each with its line end
	end    func(io.Writer) // writes what follows the output; may be nil
}

// run takes the connection over and runs a session on it. what names the session in the text that the client sees if
// running it fails.
func (c *call) run(sess container.Session, what string, x stream) error {
	ctx, t, err := c.takeOver(streamType(c.version, sess.TTY()), x.header)
	if err != nil {
		_ = sess.Close()
		return err
	}
	defer t.close()
	if err := sess.Run(ctx, t.in, t.conn); err != nil && ctx.Err() == nil && !errors.Is(err, container.ErrDetached) {
		c.log.Info(what+" ended with an error", "path", c.URL.Path, "error", err)
		var out io.Writer = t.conn
		if !sess.TTY() {
			out = frame{t.conn, 2}
		}
		_, _ = io.WriteString(out, err.Error()+"\r\n")
	}
	if x.end != nil {
		x.end(t.conn)
	}
	return nil
}

// frame writes each text as one frame of a multiplexed stream.
type frame struct {
	w      io.Writer
	number byte
}

func (f frame) Write(b []byte) (int, error) {
	n := len(b)
	frame := append([]byte{f.number, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, b...)
	if _, err := f.w.Write(frame); err != nil {
		return 0, err
	}
	return n, nil
}
