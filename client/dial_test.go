package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseHost(t *testing.T) {
	for _, c := range []struct {
		in   string
		tls  bool
		want string // "" : refused
	}{
		{"unix:///run/x.sock", false, "unix:///run/x.sock"},
		{"/run/x.sock", false, "unix:///run/x.sock"},
		{"tcp://h:1", false, "tcp://h:1"},
		{"tcp://h", false, "tcp://h:2375"},
		{"tcp://h", true, "tcp://h:2376"},
		{"tcp://:5000", false, "tcp://127.0.0.1:5000"},
		{"h:77", false, "tcp://h:77"},
		{"tcp://[::1]:1", false, "tcp://[::1]:1"},
		{"tcp://[::1]", false, "tcp://[::1]:2375"},
		{"https://h:1/", true, "tcp://h:1"},
		{"ssh://me@h:2222", false, "ssh://me@h:2222"},
		{"", false, ""},
		{"unix://", false, ""},
		{"ssh://", false, ""},
		{"fd://", false, ""},
		{"npipe:////./pipe/x", false, ""},
	} {
		got, err := ParseHost(c.in, c.tls)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: got %q, %v", c.in, got, err)
		}
	}
}

func TestSSHCommand(t *testing.T) {
	args, err := sshCommand("ssh://me@host:2222/run/x'y.sock")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(args, " ")
	want := `ssh -l me -p 2222 -o ConnectTimeout=30 -T -- host if command -v skiff >/dev/null 2>&1; then ` +
		`exec skiff --host unix://'/run/x'\''y.sock' system dial-stdio; else exec docker --host unix://'/run/x'\''y.sock' system dial-stdio; fi`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, bad := range []string{"ssh://-oProxyCommand=x", "ssh://u:p@h", "ssh://h?x=y", "ssh://-l@h"} {
		if _, err := sshCommand(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestCommandConn speaks through a program: here one that connects its streams with each other.
func TestCommandConn(t *testing.T) {
	c, err := dialCommand(t.Context(), []string{"cat"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := c.Read(b); err != nil || b[0] != 'x' {
		t.Fatal(err, b)
	}
	_ = c.Close()
	<-c.exited

	c, err = dialCommand(t.Context(), []string{"sh", "-c", "echo sorry >&2; exit 1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(b); err == nil {
		t.Error("no end")
	}
	if r := c.Reason(); r != "sorry" {
		t.Errorf("reason %q", r)
	}
}

func TestContexts(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		p := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("config.json", `{"currentContext":"a","detachKeys":"ctrl-x"}`)
	write("contexts/meta/aaa/meta.json", `{"Name":"a","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///a.sock","SkipTLSVerify":false}}}`)
	write("contexts/meta/bbb/meta.json", `{"Name":"b","Endpoints":{"docker":{"Host":"tcp://b:2376"}}}`)
	write("contexts/tls/bbb/docker/ca.pem", `x`)
	write("contexts/meta/ccc/meta.json", `garbage`)
	write("contexts/meta/ddd/meta.json", `{"Name":"d"}`)
	if c := LoadConfig(dir); c.CurrentContext != "a" || c.DetachKeys != "ctrl-x" {
		t.Errorf("config %+v", c)
	}
	a, err := LoadContext(dir, "a")
	if err != nil || a.Host != "unix:///a.sock" || a.TLS != nil && a.TLS.CA != "" {
		t.Errorf("%+v %v", a, err)
	}
	b, err := LoadContext(dir, "b")
	if err != nil || b.Host != "tcp://b:2376" || b.TLS == nil || !b.TLS.Verify || b.TLS.CA == "" {
		t.Errorf("%+v %v", b, err)
	}
	for _, n := range []string{"c", "d", "nope"} {
		if _, err := LoadContext(dir, n); err == nil {
			t.Errorf("context %s", n)
		}
	}
	if got := strings.Join(ContextNames(dir), " "); got != "default a b d" {
		t.Errorf("names %s", got)
	}
}
