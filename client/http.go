package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// This file is the part of HTTP/1.1 (RFC 9112) that an Engine API client needs: requests with a body of known or unknown
// length, keep-alive, chunked answers, and connections that are taken over ("hijacked") for raw streams.

const (
	maxHeaderLine  = 64 << 10 // bytes; longer header lines are refused
	maxHeaderLines = 256
	bufferSize     = 32 << 10
)

// stream is both directions to a daemon. Close ends the reads and writes that are under way.
type stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// conn is a connection that requests are sent on, one at a time.
type conn struct {
	stream
	br    *bufio.Reader
	since time.Time // when it became idle
}

func newConn(c stream) *conn {
	return &conn{stream: c, br: bufio.NewReaderSize(c, bufferSize)}
}

// alive reports whether an idle connection can be used again: nothing to read, not closed.
func (c *conn) alive() bool {
	if c.br.Buffered() > 0 {
		return false
	}
	if time.Since(c.since) < 500*time.Millisecond {
		return true // servers keep idle connections far longer
	}
	switch s := c.stream.(type) {
	case interface{ quiet() bool }:
		return s.quiet()
	case interface{ SetReadDeadline(time.Time) error }:
		if s.SetReadDeadline(time.Now().Add(50*time.Microsecond)) != nil {
			return false
		}
		_, err := c.br.Peek(1)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			return false
		}
		return s.SetReadDeadline(time.Time{}) == nil
	}
	return false
}

// request is one call of the API.
type request struct {
	method string
	path   string // without the version, escaped, with the query
	header []string
	body   []byte    // sent with a Content-Length, or
	stream io.Reader // sent in chunks
	kind   string    // the body's Content-Type; "" for JSON
	hijack bool      // ask for the connection
	raw    bool      // the path is sent without a version (as /_ping)
}

// write sends the request.
func (r *request) write(c *conn, version string) error {
	var b bytes.Buffer
	b.Grow(512 + len(r.body))
	b.WriteString(r.method)
	b.WriteByte(' ')
	if !r.raw {
		b.WriteString("/v")
		b.WriteString(version)
	}
	b.WriteString(r.path)
	b.WriteString(" HTTP/1.1\r\nHost: api.skiff.localhost\r\nUser-Agent: Docker-Client/skiff (linux)\r\n")
	for _, h := range r.header {
		b.WriteString(h)
		b.WriteString("\r\n")
	}
	if r.hijack {
		b.WriteString("Connection: Upgrade\r\nUpgrade: tcp\r\n")
	}
	kind := r.kind
	if kind == "" {
		kind = "application/json"
	}
	switch {
	case r.stream != nil:
		b.WriteString("Content-Type: " + kind + "\r\nTransfer-Encoding: chunked\r\n\r\n")
	case r.body != nil:
		b.WriteString("Content-Type: " + kind + "\r\nContent-Length: " + strconv.Itoa(len(r.body)) + "\r\n\r\n")
		b.Write(r.body)
	case r.method == "POST":
		b.WriteString("Content-Length: 0\r\n\r\n")
	default:
		b.WriteString("\r\n")
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		return err
	}
	if r.stream != nil {
		return writeChunks(c, r.stream)
	}
	return nil
}

// writeChunks sends r in HTTP chunks.
func writeChunks(w io.Writer, r io.Reader) error {
	buf := make([]byte, 64<<10)
	const room = 10 // for the size line
	for {
		n, err := r.Read(buf[room : len(buf)-2])
		if n > 0 {
			head := strconv.AppendInt(buf[:0:room], int64(n), 16)
			head = append(head, '\r', '\n')
			start := room - len(head)
			copy(buf[start:], head)
			copy(buf[room+n:], "\r\n")
			if _, werr := w.Write(buf[start : room+n+2]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			_, err = io.WriteString(w, "0\r\n\r\n")
			return err
		}
		if err != nil {
			return err
		}
	}
}

// response is the answer to a request. Its body must be closed.
type response struct {
	status int
	header map[string]string // lower-case names
	body   io.ReadCloser
	conn   *conn
}

// readHead reads the status line and the header.
func readHead(c *conn) (*response, error) {
	for {
		line, err := readLine(c.br)
		if err != nil {
			return nil, err
		}
		proto, rest, _ := strings.Cut(line, " ")
		code, _, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if err != nil || !strings.HasPrefix(proto, "HTTP/1.") {
			return nil, fmt.Errorf("the answer is not HTTP: %q", clip(line))
		}
		res := &response{status: status, header: make(map[string]string, 12), conn: c}
		for n := 0; ; n++ {
			line, err := readLine(c.br)
			if err != nil {
				return nil, err
			}
			if line == "" {
				break
			}
			name, value, ok := strings.Cut(line, ":")
			if !ok || n > maxHeaderLines {
				return nil, fmt.Errorf("the answer has a bad header: %q", clip(line))
			}
			res.header[strings.ToLower(name)] = strings.TrimSpace(value)
		}
		if status >= 200 || status == 101 {
			return res, nil
		}
	}
}

func readLine(br *bufio.Reader) (string, error) {
	var long []byte
	for {
		part, err := br.ReadSlice('\n')
		if err == nil && long == nil {
			return strings.TrimRight(string(part), "\r\n"), nil
		}
		long = append(long, part...)
		if err == nil {
			return strings.TrimRight(string(long), "\r\n"), nil
		}
		if err == io.EOF && len(long) > 0 {
			return "", io.ErrUnexpectedEOF
		}
		if err != bufio.ErrBufferFull {
			return "", err
		}
		if len(long) > maxHeaderLine {
			return "", errors.New("the answer has a header line that is too long")
		}
	}
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// openBody puts the right reader over the answer's body. done is called once when the body was read or closed; reusable says
// whether the connection can carry another request.
func (r *response) openBody(method string, done func(reusable bool)) error {
	keep := !strings.EqualFold(r.header["connection"], "close")
	b := &body{done: done, keep: keep}
	switch {
	case method == "HEAD" || r.status == 204 || r.status == 304:
		b.r, b.exact = strings.NewReader(""), true
	case strings.EqualFold(r.header["transfer-encoding"], "chunked"):
		b.r, b.exact = &chunks{br: r.conn.br}, true
	case r.header["content-length"] != "":
		n, err := strconv.ParseInt(r.header["content-length"], 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("the answer has a bad Content-Length: %q", clip(r.header["content-length"]))
		}
		b.r, b.exact = &exactly{r: r.conn.br, left: n}, true
	default:
		b.r = r.conn.br // until the connection ends
	}
	r.body = b
	return nil
}

// body hands its connection back when it was read to the end.
type body struct {
	r     io.Reader
	done  func(reusable bool)
	keep  bool
	exact bool // the end is known without the connection's end
	ended bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	n, err := b.r.Read(p)
	if err != nil {
		b.finish(err == io.EOF && b.keep && b.exact)
	}
	return n, err
}

// Close ends the answer. What was not read yet is not waited for.
func (b *body) Close() error {
	b.finish(false)
	return nil
}

func (b *body) finish(reusable bool) {
	if !b.ended {
		b.ended = true
		b.done(reusable)
	}
}

// exactly reads left bytes and takes an earlier end for an error.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	switch {
	case err == io.EOF && e.left > 0:
		err = io.ErrUnexpectedEOF
	case err == nil && e.left == 0:
		err = io.EOF
	}
	return n, err
}

// chunks decodes the chunked transfer coding.
type chunks struct {
	br   *bufio.Reader
	left int64 // of the current chunk
	open bool  // inside a chunk, whose line end is still to come
	err  error
}

func (c *chunks) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.left == 0 {
		if c.err = c.next(); c.err != nil {
			return 0, c.err
		}
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.br.Read(p)
	c.left -= int64(n)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		c.err = err
		return n, err
	}
	if c.left == 0 && c.br.Buffered() >= 5 {
		// The end is often in the same packet: see it now, so that the connection is free again at once.
		if tail, _ := c.br.Peek(5); string(tail) == "\r\n0\r\n" {
			if c.err = c.next(); c.err != nil {
				return n, c.err
			}
		}
	}
	return n, nil
}

// next reads the line before a chunk, and after the last one the trailer.
func (c *chunks) next() error {
	if c.open {
		if line, err := readLine(c.br); err != nil || line != "" {
			return noEOF(err, "a chunk is longer than it says")
		}
	}
	line, err := readLine(c.br)
	if err != nil {
		return noEOF(err, "")
	}
	size, _, _ := strings.Cut(line, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 63)
	if err != nil || n < 0 {
		return fmt.Errorf("the answer has a bad chunk size: %q", clip(line))
	}
	c.left, c.open = n, true
	if n > 0 {
		return nil
	}
	for {
		line, err := readLine(c.br)
		if err != nil {
			return noEOF(err, "")
		}
		if line == "" {
			return io.EOF
		}
	}
}

func noEOF(err error, text string) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	if err == nil {
		return errors.New("the answer is damaged: " + text)
	}
	return err
}

// whenDone closes c when ctx ends, until the returned function is called; that reports whether c is still open.
func whenDone(ctx context.Context, c io.Closer) func() bool {
	return context.AfterFunc(ctx, func() { _ = c.Close() })
}
