package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// TLS says how a daemon behind TLS is spoken to.
type TLS struct {
	CA, Cert, Key string // PEM files; "" : none
	Verify        bool   // check the daemon's certificate
	ServerName    string // "" : the host's name
}

const dialTimeout = 30 * time.Second

// ParseHost checks a daemon's address and completes it: a bare "host:port" is tcp, a bare path is unix.
func ParseHost(host string, tls bool) (string, error) {
	h := strings.TrimSpace(host)
	proto, addr, ok := strings.Cut(h, "://")
	switch {
	case h == "":
		return "", errors.New("unable to parse docker host: it is empty")
	case !ok && strings.HasPrefix(h, "/"):
		return "unix://" + h, nil
	case !ok:
		proto, addr = "tcp", h
	}
	switch proto {
	case "unix":
		if addr == "" {
			return "", fmt.Errorf("unable to parse docker host `%s`: no path", host)
		}
		return "unix://" + addr, nil
	case "tcp", "http", "https":
		addr = strings.TrimSuffix(addr, "/")
		if strings.HasPrefix(addr, ":") {
			addr = "127.0.0.1" + addr
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			port := "2375"
			if tls {
				port = "2376"
			}
			addr = net.JoinHostPort(strings.Trim(addr, "[]"), port)
		}
		return "tcp://" + addr, nil
	case "ssh":
		if addr == "" {
			return "", fmt.Errorf("unable to parse docker host `%s`: no host name", host)
		}
		return h, nil
	}
	return "", fmt.Errorf("unable to parse docker host `%s`: protocol %q is none of unix, tcp, ssh", host, proto)
}

// dialer opens a connection.
type dialer func(context.Context) (stream, error)

func dialerFor(opt Options) (dialer, error) {
	proto, addr, _ := strings.Cut(opt.Host, "://")
	switch {
	case proto == "unix":
		return func(ctx context.Context) (stream, error) { return orNil(dialUnix(ctx, addr)) }, nil
	case proto == "tcp" && opt.TLS != nil:
		helper, err := findHelper(opt.Helper)
		if err != nil {
			return nil, err
		}
		args := []string{helper, addr}
		env := opt.TLS.environ()
		return func(ctx context.Context) (stream, error) { return orNil(dialCommand(ctx, args, env)) }, nil
	case proto == "tcp":
		return func(ctx context.Context) (stream, error) {
			d := net.Dialer{Timeout: dialTimeout}
			c, err := d.DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), nil
		}, nil
	case proto == "ssh":
		args, err := sshCommand(opt.Host)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) (stream, error) { return orNil(dialCommand(ctx, args, nil)) }, nil
	}
	return nil, fmt.Errorf("unable to parse docker host `%s`", opt.Host)
}

// orNil keeps a nil pointer from becoming a stream that isn't nil.
func orNil[S stream](s S, err error) (stream, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// sshCommand gives the program and arguments that reach the daemon on another machine: the other machine's skiff, or its
// docker, connects its standard streams with the daemon's socket.
func sshCommand(host string) ([]string, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("unable to parse docker host `%s`: %w", host, err)
	}
	if u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") || strings.HasPrefix(u.User.Username(), "-") {
		return nil, fmt.Errorf("unable to parse docker host `%s`: bad host name", host)
	}
	if _, has := u.User.Password(); has {
		return nil, fmt.Errorf("unable to parse docker host `%s`: a plain-text password is not supported", u.Redacted())
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("unable to parse docker host `%s`: extra text after the path", host)
	}
	args := []string{"ssh"}
	if name := u.User.Username(); name != "" {
		args = append(args, "-l", name)
	}
	if port := u.Port(); port != "" {
		args = append(args, "-p", port)
	}
	flag := ""
	if u.Path != "" && u.Path != "/" {
		flag = "--host unix://" + shellQuote(u.Path) + " "
	}
	remote := "if command -v skiff >/dev/null 2>&1; then exec skiff " + flag + "system dial-stdio; " +
		"else exec docker " + flag + "system dial-stdio; fi"
	return append(args, "-o", "ConnectTimeout=30", "-T", "--", u.Hostname(), remote), nil
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (t *TLS) environ() []string {
	verify := "0"
	if t.Verify {
		verify = "1"
	}
	return []string{
		"SKIFF_TLS_CA=" + t.CA, "SKIFF_TLS_CERT=" + t.Cert, "SKIFF_TLS_KEY=" + t.Key,
		"SKIFF_TLS_VERIFY=" + verify, "SKIFF_TLS_NAME=" + t.ServerName,
	}
}

// findHelper finds the program that speaks TLS: beside our own, else in the PATH.
func findHelper(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	const name = "skiff-tls"
	if self, err := os.Executable(); err == nil {
		if p := filepath.Join(filepath.Dir(self), name); isExecutable(p) {
			return p, nil
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("a TLS connection needs the program %s beside skiff or in the PATH: %w", name, err)
	}
	return p, nil
}

func isExecutable(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// commandConn is a connection through a program's standard input and output, which are one socket.
type commandConn struct {
	*net.UnixConn
	cmd    *exec.Cmd
	errs   *tail
	once   sync.Once
	exited chan struct{}
}

// dialCommand starts a program and returns the connection that it makes.
func dialCommand(ctx context.Context, args, env []string) (*commandConn, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair for %s: %w", args[0], err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
	defer theirs.Close()
	defer ours.Close() // net.FileConn has a copy
	nc, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("socketpair for %s: %w", args[0], err)
	}
	cmd := exec.Command(args[0], args[1:]...) // outlives ctx: the connection may be hijacked
	c := &commandConn{UnixConn: nc.(*net.UnixConn), cmd: cmd, errs: &tail{}, exited: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, c.errs
	cmd.Env = append(os.Environ(), env...)
	// Its own session: a Ctrl-C at the terminal is for the container, not for the connection.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := ctx.Err(); err != nil {
		_ = nc.Close()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	go func() {
		_ = cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

// Reason is what the program said on its standard error, if it ended.
func (c *commandConn) Reason() string {
	select {
	case <-c.exited:
		return c.errs.String()
	case <-time.After(2 * time.Second):
		return ""
	}
}

// Close ends the connection, and the program if that does not end by itself.
func (c *commandConn) Close() error {
	var err error
	c.once.Do(func() {
		err = c.UnixConn.Close()
		go func() {
			select {
			case <-c.exited:
			case <-time.After(3 * time.Second):
				_ = c.cmd.Process.Kill()
			}
		}()
	})
	return err
}

// tail keeps the beginning of what a program complains about.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 4096 - len(t.b); room > 0 {
		t.b = append(t.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
