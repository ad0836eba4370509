package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"skiff/test/kit"
)

// certificates makes a CA and, signed by it, one pair for the server and one for the client.
func certificates(t *testing.T, dir string) {
	t.Helper()
	sign := func(name string, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{
			SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: ca == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		if ca == nil {
			ca, caKey = tmpl, key
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, &key.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for file, b := range map[string]*pem.Block{
			name + ".pem":     {Type: "CERTIFICATE", Bytes: der},
			name + "-key.pem": {Type: "EC PRIVATE KEY", Bytes: keyDER},
		} {
			if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	ca, caKey := sign("ca", nil, nil)
	sign("server", ca, caKey)
	sign("client", ca, caKey)
}

// TestTLS speaks to a daemon over TCP with certificates on both sides, as from another machine.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certificates(t, dir)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	at := func(name string) string { return filepath.Join(dir, name) }
	d := newDaemon(t, "-H", "tcp://"+addr, "--tlsverify", "--tlscacert", at("ca.pem"), "--tlscert", at("server.pem"), "--tlskey", at("server-key.pem"))
	bin, err := kit.Bin("skiff")
	if err != nil {
		t.Fatal(err)
	}
	local := clients(t, d)
	remote := []client{{"skiff", []string{bin}, nil}}
	if len(local) > 1 {
		remote = append(remote, client{local[1].name, local[1].argv[:1], local[1].env})
	}
	for _, c := range remote {
		t.Run(c.name, func(t *testing.T) {
			certs := []string{"--tlscacert", at("ca.pem"), "--tlscert", at("client.pem"), "--tlskey", at("client-key.pem")}
			with := c
			with.argv = append(append(append([]string{}, c.argv...), "-H", "tcp://"+addr, "--tlsverify"), certs...)
			r := with.run(t, "through TLS\n", "run", "--rm", "-i", "busybox", "cat")
			if r.code != 0 || r.stdout != "through TLS\n" {
				t.Errorf("run over TLS: %+v", r)
			}
			x := with.terminal(t, 24, 80, "run", "-it", "--rm", "busybox", "sh")
			x.expect("# ")
			x.typ("echo over-$((40+2)); exit 6\n")
			x.expect("over-42")
			if code := x.wait(); code != 6 {
				t.Errorf("exit code over TLS: %d", code)
			}
			without := c
			without.argv = append(append([]string{}, c.argv...), "-H", "tcp://"+addr, "--tls")
			if r := without.run(t, "", "ps"); r.code == 0 {
				t.Error("a client without a certificate got an answer")
			}
			plain := c
			plain.argv = append(append([]string{}, c.argv...), "-H", "tcp://"+addr)
			if r := plain.run(t, "", "ps"); r.code == 0 {
				t.Error("a client without TLS got an answer")
			}
		})
	}
}
