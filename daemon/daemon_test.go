package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	apisystem "github.com/moby/moby/api/types/system"
)

// programs builds skiffd and skiff-keeper into a folder.
func programs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir+"/", "skiff/cmd/skiffd", "skiff/cmd/skiff-keeper")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// running is a daemon of a test.
type running struct {
	t      *testing.T
	bin    string
	dir    string
	log    *os.File
	cmd    *exec.Cmd
	client *http.Client
}

func startDaemon(t *testing.T, bin string, args ...string) *running {
	t.Helper()
	dir, err := os.MkdirTemp("", "skd") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	r := newRunning(t, bin, dir)
	r.cmd = exec.Command(filepath.Join(bin, "skiffd"), append(r.flags(), args...)...)
	r.start()
	return r
}

func newRunning(t *testing.T, bin, dir string) *running {
	t.Helper()
	r := &running{t: t, bin: bin, dir: dir}
	var err error
	if r.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	r.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.socket())
		},
	}}
	r.write("{}")
	return r
}

// start runs cmd and waits until the API answers.
func (r *running) start() {
	r.t.Helper()
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		r.kill()
		if r.t.Failed() {
			b, _ := os.ReadFile(r.log.Name())
			r.t.Logf("log:\n%s", b)
		}
		r.log.Close()
		os.RemoveAll(r.dir)
	})
	r.waitFor("the daemon's answer", func() bool { _, err := r.get("/_ping"); return err == nil })
}

// kill ends whatever runs the test's programs. A keeper that dies alone would be replaced by its engine, and the other way
// round.
func (r *running) kill() {
	for range 100 {
		found := false
		exes, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, exe := range exes {
			if path, err := os.Readlink(exe); err == nil && strings.HasPrefix(path, r.bin+"/") {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(exe)))
				_ = syscall.Kill(pid, syscall.SIGKILL)
				found = true
			}
		}
		if !found {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = r.cmd.Wait() // whether the test did it already does not matter
}

func (r *running) socket() string { return filepath.Join(r.dir, "s") }
func (r *running) flags() []string {
	return []string{"--data-root", r.dir + "/data", "--exec-root", r.dir + "/exec", "-H", "unix://" + r.socket(), "--config-file", r.dir + "/daemon.json"}
}

func (r *running) write(config string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "daemon.json"), []byte(config), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) get(path string) ([]byte, error) {
	resp, err := r.client.Get("http://x" + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func (r *running) info() (info apisystem.Info) {
	r.t.Helper()
	b, err := r.get("/info")
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	if err != nil {
		r.t.Fatalf("info: %v: %s", err, b)
	}
	return info
}

func (r *running) waitFor(what string, f func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(r.log.Name())
			r.t.Fatalf("waited in vain for %s; log:\n%s", what, b)
		}
	}
}

func (r *running) logged(text string) bool {
	b, _ := os.ReadFile(r.log.Name())
	return bytes.Contains(b, []byte(text))
}

// engine is the pid of the keeper's child, waited for if there is none.
func (r *running) engine() (pid int) {
	r.t.Helper()
	r.waitFor("an engine", func() bool {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", r.cmd.Process.Pid))
		for _, list := range lists {
			b, _ := os.ReadFile(list)
			for _, f := range strings.Fields(string(b)) {
				if exe, _ := os.Readlink("/proc/" + f + "/exe"); strings.HasSuffix(exe, "/skiffd") {
					pid, _ = strconv.Atoi(f)
				}
			}
		}
		return pid > 1
	})
	return pid
}

// TestLife walks a daemon through its life: start, a second one, reload, sudden death, end.
func TestLife(t *testing.T) {
	bin := programs(t)
	r := startDaemon(t, bin, "--shutdown-timeout", "3")
	pid, err := os.ReadFile(filepath.Join(r.dir, "exec", "skiffd.pid"))
	if err != nil || string(pid) != strconv.Itoa(r.cmd.Process.Pid) {
		t.Errorf("pid file %q (%v), the keeper is %d", pid, err, r.cmd.Process.Pid)
	}
	id := r.info().ID

	t.Run("second daemon", func(t *testing.T) {
		for want, change := range map[string][]string{
			"another skiffd works in " + r.dir + "/exec":                            nil,
			"works in the data root " + r.dir + "/data already":                     {"--exec-root", r.dir + "/exec2", "-H", "unix://" + r.dir + "/s2"},
			"is still running, as " + r.dir + "/exec/skiffd.pid says":               {"--exec-root", r.dir + "/exec3", "--data-root", r.dir + "/d3", "-p", r.dir + "/exec/skiffd.pid"},
			"listen on " + r.dir + "/s: another process serves this socket already": {"--exec-root", r.dir + "/exec4", "--data-root", r.dir + "/d4"},
		} {
			flags := r.flags()
			if len(change) > 3 && change[2] == "-H" {
				flags = append(flags[:4], flags[6:]...)
			}
			out, err := exec.Command(filepath.Join(bin, "skiffd"), append(flags, change...)...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 78 || !strings.Contains(string(out), want) {
				t.Errorf("%v, want %q:\n%s", err, want, out)
			}
		}
	})

	t.Run("reload", func(t *testing.T) {
		r.write(`{"labels": ["a=b"], "registry-mirrors": ["http://m:1"], "mtu": 1300}`)
		_ = r.cmd.Process.Signal(syscall.SIGHUP)
		r.waitFor("the reload", func() bool { return len(r.info().Labels) == 1 })
		if m := r.info().RegistryConfig.Mirrors; len(m) != 1 || m[0] != "http://m:1" {
			t.Errorf("mirrors %v", m)
		}
		if !r.logged("only-after-restart=mtu") {
			t.Error("the log does not name the key that waits for a restart")
		}
		r.write(`{"labels": ["c=d"], "nonsense": 1}`)
		_ = r.cmd.Process.Signal(syscall.SIGHUP)
		r.waitFor("the refusal", func() bool {
			return r.logged("the following directives don't match any configuration option: nonsense")
		})
		if l := r.info().Labels; len(l) != 1 || l[0] != "a=b" {
			t.Errorf("labels %v after an invalid file", l)
		}
		r.write(`{"labels": ["a=b"]}`)
	})

	t.Run("sudden death", func(t *testing.T) {
		for range 3 {
			engine := r.engine()
			if err := syscall.Kill(engine, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if got := r.info().ID; got != id { // the request waits for the next engine
				t.Errorf("id %s, before %s", got, id)
			}
			if r.engine() == engine {
				t.Error("the dead engine answers")
			}
		}
	})

	t.Run("end", func(t *testing.T) {
		_ = r.cmd.Process.Signal(syscall.SIGTERM)
		if err := r.cmd.Wait(); err != nil {
			t.Errorf("%v", err)
		}
		for _, gone := range []string{"s", "exec/skiffd.pid"} {
			if _, err := os.Stat(filepath.Join(r.dir, gone)); err == nil {
				t.Errorf("%s is still there", gone)
			}
		}
		r.waitFor("the end of all interfaces", func() bool { // the kernel removes them after their namespaces
			return !slices.ContainsFunc(links(), func(l string) bool { return strings.HasPrefix(l, "sk"+instance(r.dir+"/exec")) })
		})
	})
}

func links() (names []string) {
	entries, _ := os.ReadDir("/sys/class/net")
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestCommandLine(t *testing.T) {
	bin := programs(t)
	good := filepath.Join(t.TempDir(), "good.json")
	_ = os.WriteFile(good, []byte(`{"debug": true}`), 0o600)
	bad := filepath.Join(t.TempDir(), "bad.json")
	_ = os.WriteFile(bad, []byte(`{"debugg": true}`), 0o600)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--validate --config-file " + good, 0, "configuration OK\n"},
		{"--validate --config-file " + bad, 1, "skiffd: unable to configure skiffd with file " + bad + ": the following directives don't match any configuration option: debugg\n"},
		{"--validate -D --config-file " + good, 1, "specified both as a flag and in the configuration file: debug"},
		{"--validate --config-file /nowhere", 1, "no such file"},
		{"--version", 0, "skiffd version "},
		{"--help", 0, "--registry-mirror"},
		{"--nonsense", 125, "skiffd: unknown flag: --nonsense\nSee 'skiffd --help'.\n"},
		{"-H tcp://0.0.0.0:1 --config-file " + good, 1, "refusing to listen on tcp://0.0.0.0:1"},
	} {
		out, err := exec.Command(filepath.Join(bin, "skiffd"), strings.Fields(c.args)...).CombinedOutput()
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != c.code || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: exit code %d\n%s", c.args, code, out)
		}
	}
}

func TestNotRoot(t *testing.T) {
	bin := programs(t)
	cmd := exec.Command(filepath.Join(bin, "skiffd"), "--config-file", "/dev/null")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := os.Chmod(filepath.Dir(bin), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) {
		t.Skip("the test's folder is closed to others")
	}
	if err == nil || string(out) != "skiffd: skiffd must be started as root: it makes namespaces, mounts and network interfaces\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
