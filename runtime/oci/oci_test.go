package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime"
	"skiff/runtime/launch"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bundle makes a bundle with busybox that executes args.
func bundle(t testing.TB, change func(*specs.Spec), args ...string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/rootfs/bin", 0o755))
	data, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		t.Skip("needs a static busybox: ", err)
	}
	must(t, os.WriteFile(dir+"/rootfs/bin/busybox", data, 0o755))
	for _, name := range []string{"sh", "sleep", "echo", "true", "id", "tty", "cat", "ps"} {
		must(t, os.Symlink("busybox", dir+"/rootfs/bin/"+name))
	}
	spec := Example()
	spec.Process.Terminal, spec.Process.Args = false, args
	spec.Root.Readonly = false
	if change != nil {
		change(spec)
	}
	b, err := json.Marshal(spec)
	must(t, err)
	must(t, os.WriteFile(dir+"/config.json", b, 0o644))
	return dir
}

// newRuntime is a runtime whose containers are removed after the test.
func newRuntime(t testing.TB) *Runtime {
	t.Helper()
	r := &Runtime{Root: filepath.Join(t.TempDir(), "root")}
	t.Cleanup(func() {
		all, err := r.List()
		must(t, err)
		for _, c := range all {
			must(t, r.Delete(c.ID, true))
		}
	})
	return r
}

func id(t testing.TB) string {
	return fmt.Sprintf("skiff-oci-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
}

// create makes a container whose output can be read.
func create(t testing.TB, r *Runtime, dir string, opt CreateOptions) (*launch.Process, *os.File) {
	t.Helper()
	out, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _ = out.Close() })
	opt.Bundle = dir
	if opt.Stdio.Out == nil {
		opt.Stdio.Out, opt.Stdio.Err = w, w
	}
	_, p, err := r.Create(id(t), opt)
	_ = w.Close()
	must(t, err)
	t.Cleanup(func() { _ = p.PIDFD.Close() })
	return p, out
}

func status(t testing.TB, r *Runtime) specs.ContainerState {
	t.Helper()
	c, err := r.Load(id(t))
	must(t, err)
	return c.Status()
}

func TestLifecycle(t *testing.T) {
	r := newRuntime(t)
	dir := bundle(t, func(s *specs.Spec) { s.Annotations = map[string]string{"a": "b"} }, "sh", "-c", "echo started; read x; exit 5")
	in, w, err := os.Pipe()
	must(t, err)
	defer func() { _ = w.Close() }()
	pidFile := filepath.Join(t.TempDir(), "pid")
	p, out := create(t, r, dir, CreateOptions{Stdio: runtime.Stdio{In: in}, PIDFile: pidFile})
	_ = in.Close()

	if s := status(t, r); s != specs.StateCreated {
		t.Errorf("after create: %s", s)
	}
	if b, _ := os.ReadFile(pidFile); string(b) != fmt.Sprint(p.PID) {
		t.Errorf("pid file: %q, want %d", b, p.PID)
	}
	if _, _, err := r.Create(id(t), CreateOptions{Bundle: dir}); !errs.Is(err, errs.Conflict) {
		t.Errorf("created twice: %v", err)
	}
	must(t, os.WriteFile(dir+"/config.json", []byte("changed"), 0o644)) // has no effect any more
	must(t, r.Start(id(t)))
	if err := r.Start(id(t)); !errs.Is(err, errs.Conflict) {
		t.Errorf("started twice: %v", err)
	}
	if s := status(t, r); s != specs.StateRunning {
		t.Errorf("after start: %s", s)
	}
	if err := r.Delete(id(t), false); !errs.Is(err, errs.Conflict) {
		t.Errorf("deleted while it runs: %v", err)
	}
	c, err := r.Load(id(t))
	must(t, err)
	want := &specs.State{Version: specs.Version, ID: id(t), Status: specs.StateRunning, Pid: p.PID, Bundle: dir, Annotations: map[string]string{"a": "b"}}
	if diff := cmp.Diff(want, c.State()); diff != "" {
		t.Error(diff)
	}
	_ = w.Close()
	text, _ := io.ReadAll(out)
	if code, err := p.Wait(); string(text) != "started\n" || code != 5 || err != nil {
		t.Errorf("got %q, code %d, error %v", text, code, err)
	}
	if s := status(t, r); s != specs.StateStopped {
		t.Errorf("after the end: %s", s)
	}
	if err := r.Kill(id(t), unix.SIGTERM, false); !errs.Is(err, errs.Conflict) {
		t.Errorf("killed a stopped container: %v", err)
	}
	must(t, r.Delete(id(t), false))
	if _, err := r.Load(id(t)); !errs.Is(err, errs.NotFound) {
		t.Errorf("after delete: %v", err)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + id(t)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStartErrors(t *testing.T) {
	r := newRuntime(t)
	p, _ := create(t, r, bundle(t, nil, "nope"), CreateOptions{})
	err := r.Start(id(t))
	var step *launch.StepError
	if !errors.As(err, &step) || err.Error() != `exec: "nope": executable file not found in $PATH` {
		t.Errorf("error %v", err)
	}
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
	if s := status(t, r); s != specs.StateStopped {
		t.Errorf("afterwards: %s", s)
	}
}

// TestCreateLeavesNothing lets create fail.
func TestCreateLeavesNothing(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"mount": func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nofs"}) },
		"source": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "none"})
		},
		"root":    func(s *specs.Spec) { s.Root.Path = "none" },
		"version": func(s *specs.Spec) { s.Version = "2.0.0" },
		"limit":   func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"hook": func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
		},
		"hook is missing": func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/nope"}}}
		},
		"hook takes long": func(s *specs.Spec) {
			sec := 1
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &sec}}}
		},
		"terminal": func(s *specs.Spec) { s.Process.Terminal = true },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRuntime(t)
			if _, _, err := r.Create(id(t), CreateOptions{Bundle: bundle(t, change, "true")}); err == nil {
				t.Fatal("no error")
			}
			if all, err := r.List(); len(all) > 0 || err != nil {
				t.Errorf("left: %v, error %v", all, err)
			}
			if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + id(t)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestHooks lets every kind of hook write down its name, its state and what it sees of the container.
func TestHooks(t *testing.T) {
	r := newRuntime(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	hook := func(name, more string) []specs.Hook {
		script := fmt.Sprintf(`s=$(cat); s=${s#*'"status":"'}; echo "%s ${s%%%%'"'*} $(%s)" >>%s`, name, more, log)
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}}
	}
	b := bundle(t, func(s *specs.Spec) {
		s.Hostname = "inner"
		s.Hooks = &specs.Hooks{
			//lint:ignore SA1019 deprecated, still to be run
			Prestart:        hook("prestart", "hostname | grep -c inner"),
			CreateRuntime:   hook("createRuntime", "hostname | grep -c inner"),
			CreateContainer: hook("createContainer", "hostname"),
			Poststart:       hook("poststart", "hostname | grep -c inner"),
			Poststop:        hook("poststop", "hostname | grep -c inner"),
		}
		// In the container's own root: its shell, its folders.
		s.Hooks.StartContainer = []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo startContainer >/hook"}}}
	}, "sh", "-c", "cat /hook")
	p, out := create(t, r, b, CreateOptions{})
	must(t, r.Start(id(t)))
	text, _ := io.ReadAll(out)
	if _, err := p.Wait(); string(text) != "startContainer\n" || err != nil {
		t.Errorf("the container says %q, error %v", text, err)
	}
	must(t, r.Delete(id(t), false))
	got, err := os.ReadFile(log)
	must(t, err)
	want := "prestart creating 0\ncreateRuntime creating 0\ncreateContainer creating inner\npoststart running 0\npoststop stopped 0\n"
	// The process may be over before poststart has looked.
	if s := strings.Replace(string(got), "poststart stopped", "poststart running", 1); s != want {
		t.Errorf("got\n%swant\n%s", s, want)
	}
}

func TestKill(t *testing.T) {
	r := newRuntime(t)
	p, _ := create(t, r, bundle(t, nil, "sleep", "100"), CreateOptions{})
	must(t, r.Kill(id(t), unix.SIGWINCH, false)) // harmless
	if s := status(t, r); s != specs.StateCreated {
		t.Errorf("after SIGWINCH: %s", s)
	}
	must(t, r.Kill(id(t), unix.SIGTERM, false))
	if code, err := p.Wait(); code != 128+9 || err != nil {
		t.Errorf("code %d, error %v", code, err)
	}
}

// TestKillAll is a container without a pid namespace, whose processes survive the first one.
func TestKillAll(t *testing.T) {
	r := newRuntime(t)
	p, out := create(t, r, bundle(t, func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, "sh", "-c", "sleep 100 & echo; exit"), CreateOptions{})
	must(t, r.Start(id(t)))
	_, err := out.Read(make([]byte, 1))
	must(t, err)
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	c, err := r.Load(id(t))
	must(t, err)
	if pids, err := c.Processes(); len(pids) != 1 || err != nil {
		t.Fatalf("processes %v, error %v", pids, err)
	}
	must(t, r.Kill(id(t), unix.SIGKILL, true))
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if pids, _ := c.Processes(); len(pids) == 0 {
			return
		}
	}
	t.Error("it still runs")
}

func TestDeleteForce(t *testing.T) {
	r := newRuntime(t)
	p, _ := create(t, r, bundle(t, nil, "sleep", "100"), CreateOptions{})
	must(t, r.Start(id(t)))
	ended := make(chan struct{})
	go func() { _, _ = p.Wait(); close(ended) }()
	must(t, r.Delete(id(t), true))
	<-ended
	must(t, r.Delete(id(t), true))
	if err := r.Delete(id(t), false); !errs.Is(err, errs.NotFound) {
		t.Errorf("error %v", err)
	}
}

func TestExec(t *testing.T) {
	r := newRuntime(t)
	p, _ := create(t, r, bundle(t, nil, "sleep", "100"), CreateOptions{})
	must(t, r.Start(id(t)))
	out, w, err := os.Pipe()
	must(t, err)
	e, err := r.Exec(id(t), ExecOptions{
		Args: []string{"sh", "-c", "id -u; echo $A; exit 4"}, User: "12:13", Env: []string{"A=b"}, Stdio: runtime.Stdio{Out: w, Err: w},
	})
	_ = w.Close()
	must(t, err)
	text, _ := io.ReadAll(out)
	if code, err := e.Wait(); string(text) != "12\nb\n" || code != 4 || err != nil {
		t.Errorf("got %q, code %d, error %v", text, code, err)
	}
	must(t, r.Kill(id(t), unix.SIGKILL, false))
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Exec(id(t), ExecOptions{Args: []string{"true"}}); !errs.Is(err, errs.Conflict) {
		t.Errorf("in a stopped container: %v", err)
	}
}

// TestConsoleSocket gets the terminals of a container and of an exec in it over a socket.
func TestConsoleSocket(t *testing.T) {
	r := newRuntime(t)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	defer func() { _ = l.Close() }()
	masters := make(chan *os.File, 2)
	go func() {
		for range 2 {
			masters <- receive(t, l)
		}
	}()
	p, _ := create(t, r, bundle(t, func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "tty; read x; exit 6"), CreateOptions{ConsoleSocket: socket})
	must(t, r.Start(id(t)))
	first := <-masters
	defer func() { _ = first.Close() }()
	if s := line(t, first); s != "/dev/pts/0\r\n" {
		t.Errorf("the container's terminal is %q", s)
	}
	e, err := r.Exec(id(t), ExecOptions{Args: []string{"tty"}, Terminal: true, ConsoleSocket: socket})
	must(t, err)
	second := <-masters
	defer func() { _ = second.Close() }()
	if s := line(t, second); s != "/dev/pts/1\r\n" {
		t.Errorf("the exec's terminal is %q", s)
	}
	if code, err := e.Wait(); code != 0 || err != nil {
		t.Errorf("code %d, error %v", code, err)
	}
	_, err = first.WriteString("\n")
	must(t, err)
	if code, err := p.Wait(); code != 6 || err != nil {
		t.Errorf("code %d, error %v", code, err)
	}
}

func line(t *testing.T, f *os.File) string {
	t.Helper()
	b := make([]byte, 100)
	n, err := f.Read(b)
	must(t, err)
	return string(b[:n])
}

func receive(t *testing.T, l *net.UnixListener) *os.File {
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Error(err)
		return nil
	}
	defer func() { _ = conn.Close() }()
	oob := make([]byte, 100)
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 100), oob)
	if err != nil {
		t.Error(err)
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Error("no descriptor came", err)
		return nil
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Error(err)
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "master")
}

func TestIDs(t *testing.T) {
	r := newRuntime(t)
	for _, bad := range []string{"", ".", "..", "a/b", "a b", strings.Repeat("x", 300)} {
		if _, err := r.Load(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, v := range []string{"", "1", "1.0", "one", "2.0.0", "0.9.0", "1.0.x"} {
		if checkVersion(v) == nil {
			t.Errorf("version %q is accepted", v)
		}
	}
	for _, v := range []string{"1.0.0", "1.0.2-dev", "1.3.0"} {
		must(t, checkVersion(v))
	}
	for s, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "SIGTERM": 15, "usr1": 10} {
		if got, err := ParseSignal(s); got != want || err != nil {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "65", "NOSUCH"} {
		if _, err := ParseSignal(s); err == nil {
			t.Errorf("signal %q is accepted", s)
		}
	}
}
