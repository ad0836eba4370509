package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"skiff/daemon/config"
	"skiff/internal/errs"
)

// stash is what listeners need of the keeper: files that survive the engine.
type stash interface {
	Stash(ctx context.Context, name string, files []*os.File) error
	Stashed(ctx context.Context) (map[string][]*os.File, error)
	Unstash(ctx context.Context, name string) error
}

// Names in the stash: our own listeners by their address, and what systemd passed to the keeper.
const (
	stashListener = "listen "
	stashSystemd  = "systemd "
)

// listener is one open socket of the API.
type listener struct {
	net.Listener
	host config.Host
	path string // of a unix socket that is ours to remove
}

// openListeners gives a listener for each host of the configuration: the stashed one if there is one, else a new one that
// is stashed at once. Stashed ones that the configuration no longer has are closed. first says that nothing was stashed:
// no engine came this far before us.
func openListeners(ctx context.Context, cfg *config.Config, keep stash, log *slog.Logger) (all []listener, first bool, err error) {
	hosts, err := cfg.Listen()
	if err != nil {
		return nil, false, err
	}
	stashed, err := keep.Stashed(ctx)
	if err != nil {
		return nil, false, err
	}
	first = true
	for name := range stashed {
		first = first && !strings.HasPrefix(name, stashListener)
	}
	defer func() {
		closeFiles(stashed)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	for _, h := range hosts {
		ls, err := openHost(ctx, cfg, h, keep, stashed, log)
		if err != nil {
			return all, first, err
		}
		all = append(all, ls...)
	}
	for name := range stashed { // of a former configuration
		if strings.HasPrefix(name, stashListener) {
			log.Info("no longer listening", "address", strings.TrimPrefix(name, stashListener))
			if path, ok := strings.CutPrefix(name, stashListener+"unix://"); ok {
				_ = os.Remove(path)
			}
			if err := keep.Unstash(ctx, name); err != nil {
				return all, first, err
			}
		}
	}
	return all, first, nil
}

func closeFiles(files map[string][]*os.File) {
	for _, fs := range files {
		for _, f := range fs {
			f.Close()
		}
	}
}

// openHost opens one address and takes what it uses out of stashed.
func openHost(ctx context.Context, cfg *config.Config, h config.Host, keep stash, stashed map[string][]*os.File, log *slog.Logger) ([]listener, error) {
	if h.Proto == "fd" {
		return fromSystemd(h, stashed)
	}
	name := stashListener + h.String()
	path := ""
	if h.Proto == "unix" {
		path = h.Addr
	}
	if files := stashed[name]; len(files) == 1 && stillThere(path) {
		l, err := net.FileListener(files[0])
		files[0].Close()
		delete(stashed, name)
		if err == nil {
			l, err = secure(cfg, h, l)
		}
		return []listener{{l, h, path}}, err
	}
	var l net.Listener
	var err error
	switch h.Proto {
	case "unix":
		l, err = listenUnix(ctx, cfg, h.Addr)
	default:
		l, err = listenTCP(ctx, cfg, h, log)
	}
	if err != nil {
		return nil, err
	}
	if err := stashOne(ctx, keep, name, l); err != nil {
		l.Close()
		return nil, err
	}
	if files := stashed[name]; files != nil { // replaced in the keeper by the new one
		closeFiles(map[string][]*os.File{name: files})
		delete(stashed, name)
	}
	l, err = secure(cfg, h, l)
	return []listener{{l, h, path}}, err
}

// stillThere says whether a stashed unix socket can still be reached by its name; "" is no unix socket.
func stillThere(path string) bool {
	if path == "" {
		return true
	}
	st, err := os.Stat(path)
	return err == nil && st.Mode().Type() == fs.ModeSocket
}

func stashOne(ctx context.Context, keep stash, name string, l net.Listener) error {
	fl, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return fmt.Errorf("stash listener %s: it has no file", name)
	}
	f, err := fl.File()
	if err != nil {
		return fmt.Errorf("stash listener %s: %w", name, err)
	}
	defer f.Close()
	return keep.Stash(ctx, name, []*os.File{f})
}

// fromSystemd takes the sockets that systemd passed: all, or those of the name that is given.
func fromSystemd(h config.Host, stashed map[string][]*os.File) ([]listener, error) {
	var out []listener
	for name, files := range stashed {
		socket, ok := strings.CutPrefix(name, stashSystemd)
		if !ok || h.Addr != "" && h.Addr != "*" && socket != h.Addr {
			continue
		}
		for _, f := range files {
			l, err := net.FileListener(f)
			if err != nil {
				return nil, fmt.Errorf("listen on the socket %s of systemd: %w", socket, err)
			}
			f.Close()
			out = append(out, listener{l, h, ""})
		}
		delete(stashed, name)
	}
	if len(out) == 0 {
		return nil, errs.New(errs.Invalid, "no sockets found via socket activation for %s: make sure the service was started by systemd", h)
	}
	return out, nil
}

// listenUnix makes a unix socket that root and the group may use. One that nobody listens on any more is replaced.
func listenUnix(ctx context.Context, cfg *config.Config, path string) (net.Listener, error) {
	gid, err := socketGroup(cfg.Group)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode().Type() != fs.ModeSocket {
			return nil, errs.New(errs.Conflict, "listen on %s: there is a file of another kind", path)
		}
		d := net.Dialer{Timeout: time.Second}
		if c, err := d.DialContext(ctx, "unix", path); err == nil {
			c.Close()
			return nil, errs.New(errs.Conflict, "listen on %s: another process serves this socket already", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
	}
	old := unix.Umask(0o777) // nobody may connect before group and mode are right
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// socketGroup finds the group of the socket: the one that is asked for, or skiff, or docker, or root.
func socketGroup(name string) (int, error) {
	if name != "" {
		if gid, err := strconv.Atoi(name); err == nil {
			return gid, nil
		}
		g, err := user.LookupGroup(name)
		if err != nil {
			return 0, errs.New(errs.Invalid, "group %s for the socket: %w", name, err)
		}
		return strconv.Atoi(g.Gid)
	}
	for _, name := range []string{"skiff", "docker"} {
		if g, err := user.LookupGroup(name); err == nil {
			return strconv.Atoi(g.Gid)
		}
	}
	return 0, nil
}

func listenTCP(ctx context.Context, cfg *config.Config, h config.Host, log *slog.Logger) (net.Listener, error) {
	if !cfg.TLSVerify {
		log.Warn("binding to an IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network", "host", h.String())
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", h.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", h, err)
	}
	return l, nil
}

// secure puts TLS on a TCP listener if the configuration has it.
func secure(cfg *config.Config, h config.Host, l net.Listener) (net.Listener, error) {
	if h.Proto != "tcp" || !cfg.TLS {
		return l, nil
	}
	t, err := tlsConfig(cfg)
	if err != nil {
		l.Close()
		return nil, err
	}
	return tls.NewListener(l, t), nil
}

func tlsConfig(cfg *config.Config) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
	if err != nil {
		return nil, errs.New(errs.Invalid, "TLS certificate %s with key %s: %w", cfg.TLSCert, cfg.TLSKey, err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if !cfg.TLSVerify {
		return t, nil
	}
	pem, err := os.ReadFile(cfg.TLSCACert)
	if err != nil {
		return nil, errs.New(errs.Invalid, "TLS authority: %w", err)
	}
	t.ClientCAs, t.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !t.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errs.New(errs.Invalid, "TLS authority: %s holds no certificate", cfg.TLSCACert)
	}
	return t, nil
}
