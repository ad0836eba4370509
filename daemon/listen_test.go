package daemon

import (
	"context"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"skiff/daemon/config"
)

// memoryStash holds files as the keeper does.
type memoryStash map[string][]*os.File

func dupFile(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

type testStash struct {
	t *testing.T
	m memoryStash
}

func (s testStash) Stash(_ context.Context, name string, files []*os.File) error {
	var own []*os.File
	for _, f := range files {
		own = append(own, dupFile(s.t, f))
	}
	closeFiles(map[string][]*os.File{name: s.m[name]})
	s.m[name] = own
	return nil
}

func (s testStash) Stashed(context.Context) (map[string][]*os.File, error) {
	out := map[string][]*os.File{}
	for name, files := range s.m {
		for _, f := range files {
			out[name] = append(out[name], dupFile(s.t, f))
		}
	}
	return out, nil
}

func (s testStash) Unstash(_ context.Context, name string) error {
	closeFiles(map[string][]*os.File{name: s.m[name]})
	delete(s.m, name)
	return nil
}

func load(t *testing.T, args ...string) *config.Config {
	t.Helper()
	cfg, _, _, err := config.Load(append([]string{"--config-file=/dev/null"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestConnectionsQueueBetweenEngines: what connects while no engine accepts is served by the next one.
func TestConnectionsQueueBetweenEngines(t *testing.T) {
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	keep := testStash{t, memoryStash{}}
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "s.sock")
	cfg := load(t, "-H", "unix://"+path, "-H", "tcp://127.0.0.1:0", "-G", "0")
	ls, first, err := openListeners(ctx, cfg, keep, log)
	if err != nil || !first || len(ls) != 2 || len(keep.m) != 2 {
		t.Fatal(ls, first, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 || st.Mode().Type() != fs.ModeSocket {
		t.Errorf("%v %v", st.Mode(), err)
	}
	tcp := ls[1].Addr().String()
	for _, l := range ls { // the engine dies
		l.Close()
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal("refused while no engine is there:", err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("hi"))

	ls, first, err = openListeners(ctx, cfg, keep, log)
	if err != nil || first || len(ls) != 2 {
		t.Fatal(ls, first, err)
	}
	if got := ls[1].Addr().String(); got != tcp {
		t.Errorf("listening on %s, before on %s", got, tcp)
	}
	served, err := ls[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	if _, err := served.Read(b); err != nil || string(b) != "hi" {
		t.Errorf("%q %v", b, err)
	}
	served.Close()
	// Another configuration: what is no longer in it is closed.
	other := filepath.Join(dir, "t.sock")
	for _, l := range ls {
		l.Close()
	}
	ls, _, err = openListeners(ctx, load(t, "-H", "unix://"+other), keep, log)
	if err != nil || len(ls) != 1 || len(keep.m) != 1 {
		t.Fatal(ls, keep.m, err)
	}
	defer ls[0].Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the old socket is still there")
	}
	if _, err := net.Dial("tcp", tcp); err == nil {
		t.Error("the old port is still open")
	}
	_ = keep.Unstash(ctx, stashListener+"unix://"+other)
}

func TestSocketsInTheWay(t *testing.T) {
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	open := func(path string) ([]listener, error) {
		ls, _, err := openListeners(ctx, load(t, "-H", "unix://"+path), testStash{t, memoryStash{}}, log)
		return ls, err
	}
	file := filepath.Join(dir, "file")
	_ = os.WriteFile(file, nil, 0o600)
	if _, err := open(file); err == nil || !strings.Contains(err.Error(), "there is a file of another kind") {
		t.Error(err)
	}
	busy := filepath.Join(dir, "busy")
	l, err := net.Listen("unix", busy)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(busy); err == nil || !strings.Contains(err.Error(), "another process serves this socket already") {
		t.Error(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // now it is stale
	ls, err := open(busy)
	if err != nil {
		t.Fatal(err)
	}
	ls[0].Close()
	if _, _, err := openListeners(ctx, load(t, "-G", "no-such-group", "-H", "unix://"+busy), testStash{t, memoryStash{}}, log); err == nil {
		t.Error("a group that is not there was accepted")
	}
	if _, _, err := openListeners(ctx, load(t, "-H", "fd://"), testStash{t, memoryStash{}}, log); err == nil ||
		!strings.Contains(err.Error(), "no sockets found via socket activation") {
		t.Error(err)
	}
}

func TestSystemdSockets(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	keep := testStash{t, memoryStash{stashSystemd + "skiff.socket": {f}}}
	for _, host := range []string{"fd://", "fd://skiff.socket"} {
		ls, first, err := openListeners(t.Context(), load(t, "-H", host), keep, slog.New(slog.DiscardHandler))
		if err != nil || !first || len(ls) != 1 {
			t.Fatal(ls, first, err)
		}
		ls[0].Close()
	}
	if len(keep.m) != 1 {
		t.Error("systemd's socket was dropped")
	}
	if _, _, err := openListeners(t.Context(), load(t, "-H", "fd://other"), keep, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("another name was found")
	}
}

func TestDataRootHasOneDaemon(t *testing.T) {
	dir := t.TempDir()
	f, err := lockDataRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDataRoot(dir); err == nil || !strings.Contains(err.Error(), "another skiffd (pid "+strconv.Itoa(os.Getpid())+") works in the data root "+dir) {
		t.Error(err)
	}
	f.Close()
	if f, err = lockDataRoot(dir); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestPidFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "pid")
	for _, old := range []string{"", "nonsense", "1", strconv.Itoa(os.Getpid()), "999999999"} {
		if old != "" {
			_ = os.WriteFile(path, []byte(old), 0o600)
		}
		if err := writePidFile(path, 42); err != nil {
			t.Errorf("%q: %v", old, err)
		}
		if b, _ := os.ReadFile(path); string(b) != "42" {
			t.Errorf("%q: %s", old, b)
		}
	}
}

func TestInstance(t *testing.T) {
	if got := instance("/run/skiff"); got != "" {
		t.Errorf("default: %q", got)
	}
	if got := instance("/tmp/x/exec"); len(got) != 6 {
		t.Errorf("%q", got)
	}
	for exec, want := range map[string]string{"/run/skiff": "/skiff", "/e": "/skiff-" + instance("/e")} {
		if got := cgroupParent(load(t, "--exec-root", exec)); got != want {
			t.Errorf("%s: %s", exec, got)
		}
	}
}
