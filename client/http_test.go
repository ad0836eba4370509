package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve runs a handler at a unix socket.
func serve(t *testing.T, h http.Handler) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	c, err := New(Options{Host: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestStepsDownToTheDaemonsVersion(t *testing.T) {
	var paths []string
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		w.Header().Set("Api-Version", "1.41")
		if strings.HasPrefix(r.URL.Path, "/v1.56/") {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"message":"client version 1.56 is too new. Maximum supported API version is 1.41"}`)
			return
		}
		fmt.Fprint(w, `[]`)
	}))
	for range 2 {
		if _, err := c.List(t.Context(), ListOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(paths, " "); got != "/v1.56/containers/json /v1.41/containers/json /v1.41/containers/json" {
		t.Errorf("asked for %s", got)
	}
}

func TestPingsBeforeABodyThatCantBeRepeated(t *testing.T) {
	var paths []string
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path)
		w.Header().Set("Api-Version", "1.45")
		b, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, len(b))
	}))
	body := strings.Repeat("0123456789", 30_000)
	r, err := c.Load(t.Context(), strings.NewReader(body), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(r)
	if string(got) != "300000" || strings.Join(paths, " ") != "/_ping /v1.45/images/load" {
		t.Errorf("got %s after %v", got, paths)
	}
}

func TestKeepsConnections(t *testing.T) {
	var conns atomic.Int64
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				conns.Add(1)
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/stop"):
				w.WriteHeader(204)
			case strings.HasSuffix(r.URL.Path, "/kill"):
				w.WriteHeader(404)
				fmt.Fprint(w, `{"message":"No such container: x"}`)
			default: // chunked, as it is flushed
				fmt.Fprint(w, `[`)
				w.(http.Flusher).Flush()
				fmt.Fprint(w, `]`)
			}
		}),
	}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	c, _ := New(Options{Host: "unix://" + path})
	for range 3 {
		if _, err := c.List(t.Context(), ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(t.Context(), "x", "", nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Kill(t.Context(), "x", ""); !IsNotFound(err) || err.Error() != "Error response from daemon: No such container: x" {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for 9 calls one after the other", n)
	}
}

func TestAContextEndsACall(t *testing.T) {
	release := make(chan struct{})
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }))
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := c.List(ctx, ListOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNoDaemon(t *testing.T) {
	c, _ := New(Options{Host: "unix:///nonexistent/s"})
	_, err := c.List(t.Context(), ListOptions{})
	var ce *ConnectError
	if !errors.As(err, &ce) || !strings.HasPrefix(err.Error(), "Cannot connect to the Docker daemon at unix:///nonexistent/s. Is the docker daemon running?") {
		t.Errorf("got %v", err)
	}
	asked := 0
	c.OnUnreachable(func(context.Context, error) error { asked++; return nil })
	for range 2 {
		if _, err = c.List(t.Context(), ListOptions{}); err == nil {
			t.Error("no error")
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times for a daemon", asked)
	}
}

func TestHijack(t *testing.T) {
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nc, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer nc.Close()
		fmt.Fprint(nc, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: 1.56\r\n\r\n")
		in, _ := io.ReadAll(rw)
		fmt.Fprintf(nc, "\x01\x00\x00\x00\x00\x00\x00%c%s\x02\x00\x00\x00\x00\x00\x00\x01!", len(in), in)
	}))
	h, err := c.Attach(t.Context(), "x", AttachOptions{Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	fmt.Fprint(h, "hello")
	if err := h.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if err := h.Copy(&out, &errs); err != nil || out.String() != "hello" || errs.String() != "!" {
		t.Errorf("%v %q %q", err, out.String(), errs.String())
	}
}

func TestDamagedAnswers(t *testing.T) {
	for _, answer := range []string{
		"", "garbage\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[]", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[]\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A", 100_000),
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{]",
	} {
		c := answering(t, answer)
		if _, err := c.List(t.Context(), ListOptions{}); err == nil {
			t.Errorf("%q is taken for an answer", clip(answer))
		}
	}
}

// answering is a daemon that sends the same bytes to whoever asks.
func answering(t *testing.T, answer string) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(nc).ReadString('\n')
			_, _ = io.WriteString(nc, answer)
			_ = nc.Close()
		}
	}()
	c, _ := New(Options{Host: "unix://" + path})
	return c
}

func TestDemux(t *testing.T) {
	var out, errs bytes.Buffer
	frames := "\x01\x00\x00\x00\x00\x00\x00\x02ab\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\x00\x00" + strings.Repeat("x", 1<<16)
	if err := Demux(&out, &errs, iotestOneByte{strings.NewReader(frames)}); err != nil || out.Len() != 2+1<<16 || errs.Len() != 0 {
		t.Errorf("%v: %d and %d bytes", err, out.Len(), errs.Len())
	}
	for _, bad := range []string{"\x01\x00", "\x01\x00\x00\x00\x00\x00\x00\x05ab", "\x09\x00\x00\x00\x00\x00\x00\x01a"} {
		if err := Demux(&out, &errs, strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken for frames", bad)
		}
	}
	if err := Demux(&out, &errs, strings.NewReader("\x03\x00\x00\x00\x00\x00\x00\x04oops")); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("got %v", err)
	}
}

// TestExitFrame: only a stream that was asked for it may end with an exit code.
func TestExitFrame(t *testing.T) {
	const text = "\x01\x00\x00\x00\x00\x00\x00\x02ab\x04\x00\x00\x00\x00\x00\x00\x0242"
	var out bytes.Buffer
	if err := Demux(&out, &out, strings.NewReader(text)); err == nil {
		t.Error("a log with an exit code is taken")
	}
	h := &Hijacked{c: &conn{br: bufio.NewReader(strings.NewReader(text))}, Framed: true}
	out.Reset()
	if err := h.Copy(&out, &out); err != nil || h.Exit == nil || *h.Exit != 42 || out.String() != "ab" {
		t.Errorf("%v: exit %v, output %q", err, h.Exit, &out)
	}
	h = &Hijacked{c: &conn{br: bufio.NewReader(strings.NewReader("\x04\x00\x00\x00\x00\x00\x00\x02no"))}, Framed: true}
	if err := h.Copy(&out, &out); err == nil || h.Exit != nil {
		t.Errorf("exit code %q: %v", "no", h.Exit)
	}
}

type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

func FuzzDemux(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x02ab"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		_ = Demux(&out, &out, bytes.NewReader(b))
		if out.Len() > len(b) {
			t.Error("more came out than went in")
		}
	})
}

func FuzzChunks(f *testing.F) {
	f.Add([]byte("2\r\nab\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, _ := io.ReadAll(&chunks{br: bufio.NewReader(bytes.NewReader(b))})
		if len(out) > len(b) {
			t.Error("more came out than went in")
		}
	})
}
