package config

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// file writes a configuration file and gives the flag that names it.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--config-file=" + path
}

func TestGolden(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		args []string
	}{
		"default": {"", nil},
		"flags": {"", []string{
			"-H", "unix:///a/s", "-H", "tcp://127.0.0.1", "--data-root", "/d/", "--exec-root", "/e", "-D", "--label", "a=b,c", "--label", "d=e",
			"--registry-mirror", "http://m:5000", "--insecure-registry", "10.0.0.0/8", "--bip", "10.1.0.1/16", "--mtu", "1400",
			"--dns", "1.1.1.1", "--dns", "8.8.8.8", "--dns-opt", "ndots:1", "--dns-search", "x.y", "--ip", "127.0.0.1",
			"--default-address-pool", "base=10.2.0.0/16,size=24", "--log-driver", "local", "--log-opt", "max-size=1m", "--log-opt", "max-file=2",
			"--default-ulimit", "nofile=10:20", "--default-shm-size", "1g", "--live-restore", "--shutdown-timeout", "3", "--init",
			"--icc=false", "--ip-masq=false", "--cgroup-parent", "/x", "--max-concurrent-downloads", "7", "--ip6tables=false", "--userland-proxy=false",
			"--http-proxy", "http://p", "-G", "wheel", "--iptables",
		}},
		"file": {`{
			"hosts": ["fd://"], "data-root": "/d", "debug": true, "labels": ["a=b"], "registry-mirrors": ["https://m/"],
			"bip": "10.1.0.1/16", "dns": ["1.1.1.1"], "default-address-pools": [{"base": "10.2.0.0/16", "size": 24}],
			"log-opts": {"max-size": "1m"}, "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 20, "Soft": 10}},
			"default-shm-size": "64M", "host-gateway-ips": ["10.0.0.1"], "ip": "127.0.0.1", "iptables": true, "ipv6": false,
			"proxies": {"http-proxy": "http://p", "no-proxy": "a,b"}, "features": {}, "exec-opts": ["native.cgroupdriver=cgroupfs"], "mtu": 1400,
			"tls": true, "tlscert": "/c", "tlskey": "/k", "storage-driver": "overlay2", "seccomp-profile": "unconfined"
		}`, nil},
	} {
		c2, _, _, err := Load(append([]string{file(t, c.file)}, c.args...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c2.File = ""
		got, _ := json.MarshalIndent(c2, "", "\t")
		golden := filepath.Join("testdata", name+".json")
		if *update {
			_ = os.MkdirAll("testdata", 0o755)
			if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || string(want) != string(got)+"\n" {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ file, args, want string }{
		{`{"foo": 1, "bar": 2}`, "", "unable to configure skiffd with file FILE: the following directives don't match any configuration option: bar, foo"},
		{`{"debug": true}`, "-D=false", "unable to configure skiffd with file FILE: the following directives are specified both as a flag and in the configuration file: debug: (from flag: false, from file: true)"},
		{`{"hosts": ["fd://"]}`, "-H unix:///x", "both as a flag and in the configuration file: hosts: (from flag: unix:///x, from file: [fd://])"},
		{`{"labels": ["a=b"], "bip": "10.0.0.1/8"}`, "--bip 10.0.0.1/8 --label c=d", "bip: (from flag: 10.0.0.1/8, from file: 10.0.0.1/8), labels: (from flag: c=d, from file: [a=b])"},
		{`{"iptables": false}`, "--iptables=true", "iptables: (from flag"},
		{`{"userns-remap": "default"}`, "", "the following directives are not there yet: userns-remap"},
		{`{"runtimes": {"runc": {"path": "runc"}}}`, "", "not there yet: runtimes"},
		{`{"debug": "yes"}`, "", "debug: json: cannot unmarshal string"},
		{`{"debug": true,}`, "", "line 1: invalid character"},
		{"{\n\"debug\": true\n\n} {}", "", "line 4: unexpected content"},
		{`{"debug": true, "debug": `, "", "unexpected EOF"},
		{`[]`, "", "cannot unmarshal array"},
		{`{"proxies": {"ftp-proxy": "x"}}`, "", `proxies: json: unknown field "ftp-proxy"`},
		{`{"default-address-pools": [{"base": "10.0.0.0/33"}]}`, "", "default-address-pools: "},
		{`{"default-ulimits": {"nofile": {"Name": "core"}}}`, "", "has another name inside"},
		{``, "--ipv6", "not there yet: ipv6"},
		{``, "--add-runtime runc=/bin/runc", "not there yet: runtimes"},
		{``, "--iptables=false", "not there yet: iptables (skiff keeps its nftables table"},
		{``, "--containerd /run/x", "not there yet: containerd (skiff needs no containerd)"},
		{``, "--default-runtime runc", "default-runtime runc: other runtimes than skiff are not there yet"},
		{``, "--nonsense", "unknown flag: --nonsense"},
		{``, "extra", `"skiffd" accepts no arguments: extra`},
		{``, "-l loud", "invalid logging level: loud"},
		{``, "--label a", "bad attribute format: a"},
		{``, "--label a=1 --label a=2", "conflict labels for a=2 and a=1"},
		{``, "--registry-mirror ftp://x", "invalid mirror"},
		{``, "-H ftp://x", `invalid bind address "ftp://x": the protocol must be unix, tcp or fd`},
		{``, "-H tcp://0.0.0.0:2375", "refusing to listen on tcp://0.0.0.0:2375 without --tlsverify"},
		{``, "-H tcp://0.0.0.0:2376 --tls --tlscert /c --tlskey /k", "refusing to listen on tcp://0.0.0.0:2376 without --tlsverify"},
		{``, "-H tcp://[::]:2375", "refusing to listen on"},
		{``, "-H tcp://1.2.3.4:x --allow-unauthenticated-tcp", "invalid port x"},
		{``, "--tlsverify", "TLS needs --tls"},
		{``, "--bip 10.0.0.1/16 --bridge br0", "you specified --bridge & --bip"},
		{``, "--data-root rel", "invalid data-root: rel must be an absolute path"},
		{``, "--default-ulimit x=1", "invalid ulimit type: x"},
		{``, "--storage-driver zfs", "invalid storage-driver: zfs"},
		{``, "--max-concurrent-downloads 0", "invalid max concurrent downloads: 0"},
		{``, "--dns 1.2.3", "invalid argument"},
	} {
		name := file(t, c.file)
		_, _, _, err := Load(append([]string{name}, strings.Fields(c.args)...))
		if err == nil {
			t.Errorf("%s %s: accepted", c.file, c.args)
			continue
		}
		got := strings.ReplaceAll(err.Error(), strings.TrimPrefix(name, "--config-file="), "FILE")
		if !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %s\nwant %s", c.file, c.args, got, c.want)
		}
	}
	if _, _, _, err := Load([]string{"--config-file=/nowhere/x.json"}); err == nil {
		t.Error("a named file that is not there was accepted")
	}
}

func TestHosts(t *testing.T) {
	for in, want := range map[string]string{
		"unix:///x":            "unix:///x",
		"/x":                   "unix:///x",
		"unix://":              "unix:///run/skiff/skiff.sock",
		"tcp://127.0.0.1:1":    "tcp://127.0.0.1:1",
		"tcp://:2375":          "tcp://127.0.0.1:2375",
		"tcp://localhost":      "tcp://localhost:2375",
		"tcp://[::1]":          "tcp://[::1]:2375",
		"127.0.0.1:7":          "tcp://127.0.0.1:7",
		"fd://":                "fd://",
		"fd://skiff.socket":    "fd://skiff.socket",
		"tcp://0.0.0.0:1 open": "tcp://0.0.0.0:1",
	} {
		addr, open, _ := strings.Cut(in, " ")
		args := []string{"-H", addr, "--config-file", "/dev/null"}
		if open != "" {
			args = append(args, "--allow-unauthenticated-tcp")
		}
		c, _, _, err := Load(args)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		hosts, err := c.Listen()
		if err != nil || len(hosts) != 1 || hosts[0].String() != want {
			t.Errorf("%s: %v %v", in, hosts, err)
		}
	}
}

func TestReload(t *testing.T) {
	name := file(t, `{"labels": ["a=b"], "bip": "10.0.0.1/16"}`)
	path := strings.TrimPrefix(name, "--config-file=")
	c, l, _, err := Load([]string{name, "--shutdown-timeout=9"})
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"labels": ["c=d"], "debug": true, "bip": "10.9.0.1/16", "registry-mirrors": ["http://m"]}`)
	n, changed, kept, err := l.Reload(c)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(changed, " ") != "debug log-level labels registry-mirrors" || strings.Join(kept, " ") != "bip" {
		t.Errorf("changed %v, kept %v", changed, kept)
	}
	if !n.Debug || n.LogLevel != "debug" || n.Labels[0] != "c=d" || n.BIP.String() != "10.0.0.1/16" || n.ShutdownTimeout != 9 {
		t.Errorf("%+v", n)
	}
	write(`{"labels": ["c=d"]}`)
	n, _, _, err = l.Reload(n)
	if err != nil || n.Debug || n.LogLevel != "info" || n.Mirrors != nil {
		t.Errorf("%+v %v", n, err)
	}
	for _, bad := range []string{`{"labels": ["c"]}`, `{"x": 1}`, `{`} {
		write(bad)
		if _, _, _, err := l.Reload(n); err == nil {
			t.Errorf("reloaded %s", bad)
		}
	}
}

func TestEveryOptionIsFoundOnce(t *testing.T) {
	flags, keys := map[string]bool{}, map[string]bool{}
	add := func(m map[string]bool, s string) {
		if s != "" && m[s] {
			t.Errorf("%s is there twice", s)
		}
		m[s] = true
	}
	for _, o := range options {
		add(flags, o.flag)
		add(keys, o.key)
	}
	for _, a := range missing {
		add(flags, a.flag)
		add(keys, a.key)
	}
}

func FuzzFile(f *testing.F) {
	f.Add(`{"debug": true}`)
	f.Add(`{"default-address-pools": [{"base": "10.2.0.0/16", "size": 24}], "log-opts": {"a": "b"}}`)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(dir, "f.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, _, _, err := Load([]string{"--config-file", path})
		if err == nil && c.check() != nil {
			t.Error("accepted what the check refuses")
		}
	})
}
