package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Hijacked is a connection that carries a process's streams.
type Hijacked struct {
	c *conn
	// Framed says that the output comes in Docker's frames (see Demux); a terminal's is raw.
	Framed bool
	// Exit is the exit code that came after the output (RunExec), nil if there was none.
	Exit *int
}

// Read reads output.
func (h *Hijacked) Read(p []byte) (int, error) { return h.c.br.Read(p) }

// Write sends input.
func (h *Hijacked) Write(p []byte) (int, error) { return h.c.Write(p) }

// Close ends the connection.
func (h *Hijacked) Close() error { return h.c.Close() }

// CloseWrite ends the input; output goes on.
func (h *Hijacked) CloseWrite() error { return h.c.CloseWrite() }

const (
	mediaRaw   = "application/vnd.docker.raw-stream"
	mediaMulti = "application/vnd.docker.multiplexed-stream"
)

// hijack sends a request and takes its connection over. framed is what to expect of a daemon too old to say (before 1.42).
func (c *Client) hijack(ctx context.Context, r *request, framed bool) (*Hijacked, error) {
	r.hijack = true
	res, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return c.takeOver(res, framed)
}

func (c *Client) takeOver(res *response, framed bool) (*Hijacked, error) {
	if res.status != 101 && res.status != 200 {
		_ = res.body.Close()
		return nil, fmt.Errorf("unable to upgrade to tcp, received %d", res.status)
	}
	switch res.header["content-type"] {
	case mediaMulti:
		framed = true
	case mediaRaw:
		if c.AtLeast("1.42") {
			framed = false
		}
	}
	return &Hijacked{c: res.conn, Framed: framed}, nil
}

// Demux takes Docker's stream frames apart until r ends: an 8-byte header (stream number 1 for stdout, 2 for stderr, 3 for an
// error of the daemon; three zeros; length, big-endian), then the bytes.
func Demux(stdout, stderr io.Writer, r io.Reader) error {
	return demux(stdout, stderr, r, nil)
}

// demux is Demux, which gives the text of frame 4, where that is allowed, to exit.
func demux(stdout, stderr io.Writer, r io.Reader, exit func(text string) error) error {
	br, ok := r.(*bufio.Reader)
	if !ok {
		br = bufio.NewReaderSize(r, bufferSize)
	}
	for {
		head, err := br.Peek(8)
		if err != nil {
			if err == io.EOF && len(head) == 0 {
				return nil
			}
			if err == io.EOF {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		kind, n := head[0], int64(binary.BigEndian.Uint32(head[4:]))
		_, _ = br.Discard(8)
		var w io.Writer
		switch {
		case kind <= 1:
			w = stdout
		case kind == 2:
			w = stderr
		case kind == 3, kind == 4 && exit != nil:
			text, err := io.ReadAll(io.LimitReader(br, min(n, 64<<10)))
			if err != nil {
				return err
			}
			if kind == 3 {
				return fmt.Errorf("error from daemon in stream: %s", text)
			}
			if err := exit(string(text)); err != nil {
				return err
			}
			continue
		default:
			return fmt.Errorf("the stream is damaged: frame of kind %d", kind)
		}
		if err := copyFrame(w, br, n); err != nil {
			return err
		}
	}
}

// copyFrame hands on n bytes as they arrive.
func copyFrame(w io.Writer, br *bufio.Reader, n int64) error {
	for n > 0 {
		if br.Buffered() == 0 {
			if _, err := br.Peek(1); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
		}
		p, _ := br.Peek(int(min(n, int64(br.Buffered()))))
		if w != nil {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
		n -= int64(len(p))
		_, _ = br.Discard(len(p))
	}
	return nil
}

// Copy hands the output on to stdout and stderr until it ends.
func (h *Hijacked) Copy(stdout, stderr io.Writer) error {
	if h.Framed {
		return demux(stdout, stderr, h.c.br, h.exitText)
	}
	if stdout == nil {
		stdout = io.Discard
	}
	_, err := io.Copy(stdout, h.c.br)
	return err
}

func (h *Hijacked) exitText(text string) error {
	code, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("the stream is damaged: exit code %q", clip(text))
	}
	h.Exit = &code
	return nil
}

// Progress is one message of a pull's, push's, load's or import's stream.
type Progress struct {
	Stream string `json:"stream"`
	Status string `json:"status"`
	ID     string `json:"id"`
	Detail *struct {
		Current    int64  `json:"current"`
		Total      int64  `json:"total"`
		Start      int64  `json:"start"`
		HideCounts bool   `json:"hidecounts"`
		Units      string `json:"units"`
	} `json:"progressDetail"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errorDetail"`
	OldError string          `json:"error"`
	Aux      json.RawMessage `json:"aux"`
}

// Err is the error that a message carries, or nil.
func (p *Progress) Err() error {
	switch {
	case p.Error != nil && p.Error.Message != "":
		return errors.New(p.Error.Message)
	case p.OldError != "":
		return errors.New(p.OldError)
	}
	return nil
}

// Decode calls f for every JSON value of a stream, until it ends or f returns an error.
func Decode[T any](r io.Reader, f func(*T) error) error {
	dec := json.NewDecoder(r)
	for {
		v := new(T)
		if err := dec.Decode(v); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := f(v); err != nil {
			return err
		}
	}
}
