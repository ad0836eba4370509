package api

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"skiff/container"
)

// echo copies in to out, then says bye.
func echo(_ context.Context, in io.Reader, out io.Writer) error {
	_, err := io.Copy(out, in)
	_, _ = io.WriteString(out, "bye")
	return err
}

// untilGone ends when the client has gone, whatever it sends or does not send.
func untilGone(ctx context.Context, in io.Reader, _ io.Writer) error {
	_, _ = io.Copy(io.Discard, in)
	<-ctx.Done()
	return ctx.Err()
}

func session(tty bool, run func(context.Context, io.Reader, io.Writer) error) *fakeSession {
	return &fakeSession{tty: tty, run: run, ended: make(chan error, 1)}
}

// dial opens a connection, sends a request and reads the answer's head.
func dial(t *testing.T, network, addr, request string) (net.Conn, *bufio.Reader, string) {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("reading the head: %v after %q", err, head.String())
		}
		if line == "\r\n" {
			return conn, r, head.String()
		}
		head.WriteString(line)
	}
}

func TestHijack(t *testing.T) {
	for name, c := range map[string]struct {
		path, body, header, status, contentType string
		tty                                     bool
	}{
		"attach upgraded": {
			"/v1.50/containers/x/attach?stream=1&stdin=1&stdout=1", "", "Connection: Upgrade\r\nUpgrade: tcp\r\n",
			"HTTP/1.1 101 UPGRADED", mediaMultiplexed, false,
		},
		"attach upgraded, terminal":   {"/v1.50/containers/x/attach?stream=1", "", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "HTTP/1.1 101 UPGRADED", mediaRaw, true},
		"attach upgraded, old client": {"/v1.41/containers/x/attach?stream=1", "", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "HTTP/1.1 101 UPGRADED", mediaRaw, false},
		"attach plain":                {"/v1.50/containers/x/attach?stream=1", "", "", "HTTP/1.1 200 OK", mediaRaw, false},
		"exec upgraded":               {"/v1.50/exec/x/start", `{"Tty":false}`, "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n", "HTTP/1.1 101 UPGRADED", mediaMultiplexed, false},
		"exec plain":                  {"/v1.50/exec/x/start", `{"Tty":true}`, "Content-Type: application/json\r\n", "HTTP/1.1 200 OK", mediaRaw, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{session: session(c.tty, echo)}
			request := "POST " + c.path + " HTTP/1.1\r\nHost: x\r\n" + c.header + "Content-Length: " + itoa(len(c.body)) + "\r\n\r\n" + c.body
			conn, r, head := dial(t, "unix", listen(t, f), request)
			if !strings.HasPrefix(head, c.status+"\r\n") || !strings.Contains(head, "Content-Type: "+c.contentType+"\r\n") {
				t.Errorf("head:\n%s", head)
			}
			_, _ = io.WriteString(conn, "hello ")
			_ = conn.(*net.UnixConn).CloseWrite() // half-closed: output still comes
			if b, err := io.ReadAll(r); string(b) != "hello bye" || err != nil {
				t.Errorf("got %q, %v", b, err)
			}
			if err := <-f.session.ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestExecAtOnce asks for create and start in one request: the answer names the exec, and its stream ends with the exit code unless
// a terminal leaves no room for that. A client that does not ask for both gets what Docker answers.
func TestExecAtOnce(t *testing.T) {
	const asks = "Skiff-Exec: start\r\n"
	for name, c := range map[string]struct {
		header string
		tty    bool
		status string
		want   string
	}{
		"frames":     {asks + "Connection: Upgrade\r\nUpgrade: tcp\r\n", false, "HTTP/1.1 101 UPGRADED", "hello bye\x04\x00\x00\x00\x00\x00\x00\x0242"},
		"terminal":   {asks + "Connection: Upgrade\r\nUpgrade: tcp\r\n", true, "HTTP/1.1 101 UPGRADED", "hello bye"},
		"no upgrade": {asks + "Connection: close\r\n", false, "HTTP/1.1 201 Created", `{"Id":"e1"}` + "\n"},
		"not asked":  {"Connection: close\r\n", false, "HTTP/1.1 201 Created", `{"Id":"e1"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			code := 42
			f := &fake{session: session(c.tty, echo), exitCode: &code}
			body := `{"Cmd":["true"],"AttachStdout":true,"Tty":` + strconv.FormatBool(c.tty) + `,"ConsoleSize":[3,4]}`
			conn, r, head := dial(t, "unix", listen(t, f), "POST /v1.50/containers/x/exec HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+
				c.header+"Content-Length: "+itoa(len(body))+"\r\n\r\n"+body)
			if !strings.HasPrefix(head, c.status+"\r\n") {
				t.Fatalf("head:\n%s", head)
			}
			upgraded := strings.Contains(c.status, "101")
			if upgraded != strings.Contains(head, "Skiff-Exec-Id: e1\r\n") {
				t.Errorf("head:\n%s", head)
			}
			if upgraded {
				_, _ = io.WriteString(conn, "hello ")
				_ = conn.(*net.UnixConn).CloseWrite()
				if size := f.execOpt.ConsoleSize; (size != nil) != c.tty || !f.execOpt.Stdin || f.execOpt.Tty != c.tty {
					t.Errorf("started with %+v", f.execOpt)
				}
			}
			if b, err := io.ReadAll(r); string(b) != c.want || err != nil {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}

func itoa(n int) string { return string(appendInt(nil, n)) }

func appendInt(b []byte, n int) []byte {
	if n >= 10 {
		b = appendInt(b, n/10)
	}
	return append(b, byte('0'+n%10))
}

// TestHijackReadsAhead sends input in the same packet as the request.
func TestHijackReadsAhead(t *testing.T) {
	f := &fake{session: session(true, echo)}
	conn, r, _ := dial(t, "unix", listen(t, f), "POST /containers/x/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ")
	_, _ = io.WriteString(conn, "late ")
	_ = conn.(*net.UnixConn).CloseWrite()
	if b, _ := io.ReadAll(r); string(b) != "early late bye" {
		t.Errorf("%q", b)
	}
}

func TestVanishedClientEndsTheSession(t *testing.T) {
	const request = "POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	for name, leave := range map[string]func(net.Conn){
		"at once":          func(c net.Conn) { c.Close() },
		"without input":    func(c net.Conn) { c.Close() },
		"after half-close": func(c net.Conn) { _ = c.(*net.UnixConn).CloseWrite(); time.Sleep(20 * time.Millisecond); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{session: session(false, untilGone)}
			if name == "without input" {
				f.session = session(false, func(ctx context.Context, in io.Reader, _ io.Writer) error {
					in.(interface{ Unread() }).Unread()
					<-ctx.Done()
					return ctx.Err()
				})
			}
			conn, _, _ := dial(t, "unix", listen(t, f), request)
			if name == "after half-close" {
				_ = conn.(*net.UnixConn).CloseWrite()
				select {
				case <-f.session.ended:
					t.Fatal("the session ended with the client's input")
				case <-time.After(100 * time.Millisecond):
				}
			}
			leave(conn)
			select {
			case <-f.session.ended:
			case <-time.After(5 * time.Second):
				t.Error("the session goes on without its client")
			}
		})
	}
}

func TestSessionErrors(t *testing.T) {
	const request = "POST /v1.50/exec/x/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	for _, c := range []struct {
		tty  bool
		err  error
		want string
	}{
		{true, errors.New("no such file"), "no such file\r\n"},
		{false, errors.New("no such file"), "\x02\x00\x00\x00\x00\x00\x00\x0eno such file\r\n"},
		{true, container.ErrDetached, ""},
	} {
		f := &fake{session: session(c.tty, func(context.Context, io.Reader, io.Writer) error { return c.err })}
		_, r, _ := dial(t, "unix", listen(t, f), request)
		if b, _ := io.ReadAll(r); string(b) != c.want {
			t.Errorf("%v: %q", c.err, b)
		}
	}
	w := ask(t, &fake{err: errGone}, "POST", "/containers/x/attach", "")
	if w.Code != 404 || w.Body.String() != `{"message":"No such container: x"}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(t, &fake{}, "POST", "/exec/x/start", `{"Detach":true}`); w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("detached exec: %d %s", w.Code, w.Body)
	}
}

// TestHijackOverTLS checks half-close and vanishing where the connection is not a socket itself.
func TestHijackOverTLS(t *testing.T) {
	f := &fake{session: session(false, echo)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: newServer(f), ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MinVersion: tls.VersionTLS12}))
	}()
	defer func() { _ = srv.Close(); <-done }()
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST /containers/x/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhi ")
	_ = conn.CloseWrite()
	b, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(b), "\r\n\r\nhi bye") {
		t.Errorf("%q %v", b, err)
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestWebsocket(t *testing.T) {
	f := &fake{session: session(true, func(_ context.Context, in io.Reader, out io.Writer) error {
		b := make([]byte, 5)
		_, err := io.ReadFull(in, b)
		_, _ = out.Write([]byte("got " + string(b)))
		return err
	})}
	socket := listen(t, f)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := websocket.NewConfig("ws://x/v1.41/containers/a/attach/ws?stream=1", "http://x")
	if err != nil {
		t.Fatal(err)
	}
	ws, err := websocket.NewClient(cfg, conn)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	_, _ = ws.Write([]byte("hello"))
	b, err := io.ReadAll(ws)
	if string(b) != "got hello" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	<-f.session.ended
	if o := f.attached; !o.Stdin || !o.Stdout || !o.Stderr {
		t.Errorf("an old client is attached to %+v", o)
	}
	if w := ask(t, f, "GET", "/containers/a/attach/ws", ""); w.Code != 400 {
		t.Errorf("without upgrade: %d", w.Code)
	}
}

func TestWebsocketRefusal(t *testing.T) {
	w := ask(t, &fake{err: errGone}, "GET", "/containers/a/attach/ws", "", "Upgrade", "websocket")
	if w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// A handshake that fails gives the session up.
	f := &fake{session: session(true, echo)}
	_, _, head := dial(t, "unix", listen(t, f), "GET /containers/a/attach/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 400") {
		t.Error(head)
	}
}
