// Command skiff-tls connects its standard streams with a daemon behind TLS. The client starts it for tcp hosts with TLS, so
// that the client itself need not link crypto/tls, whose start costs more than the rest of a short command. Its settings
// come in the environment: SKIFF_TLS_CA, SKIFF_TLS_CERT and SKIFF_TLS_KEY (PEM files), SKIFF_TLS_VERIFY (1: check the
// daemon's certificate) and SKIFF_TLS_NAME (the name in it, if it is not the host's).
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

const dialTimeout = 30 * time.Second

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: skiff-tls HOST:PORT (it is started by skiff)")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr string, getenv func(string) string) error {
	cfg, err := config(addr, getenv)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake with %s: %w", addr, err)
	}
	return bridge(conn)
}

// config reads the settings.
func config(addr string, getenv func(string) string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: getenv("SKIFF_TLS_VERIFY") != "1"}
	if n := getenv("SKIFF_TLS_NAME"); n != "" {
		cfg.ServerName = n
	}
	if ca := getenv("SKIFF_TLS_CA"); ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("read CA certificates: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no certificate", ca)
		}
	}
	cert, key := getenv("SKIFF_TLS_CERT"), getenv("SKIFF_TLS_KEY")
	if cert == "" && key == "" {
		return cfg, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("load TLS certificate %s and key %s: %w", cert, key, err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// bridge copies both ways until the daemon's side ended. The end of our input is passed on, for half-closed streams.
func bridge(conn *tls.Conn) error {
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.CloseWrite()
	}()
	_, err := io.Copy(os.Stdout, conn)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
