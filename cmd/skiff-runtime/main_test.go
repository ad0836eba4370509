package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain makes the test binary the program itself when it is told so.
func TestMain(m *testing.M) {
	if os.Getenv("SKIFF_RUNTIME_TEST") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// call runs the program and gives what it printed and its exit code.
func call(t *testing.T, dir, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", filepath.Join(dir, "root")}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, append(os.Environ(), "SKIFF_RUNTIME_TEST=1"), strings.NewReader(stdin)
	// Files, not pipes: a created container keeps its streams, and nobody may wait for their end.
	files := t.TempDir()
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(files, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, to := range map[string]*io.Writer{"out": &cmd.Stdout, "err": &cmd.Stderr} {
		f, err := os.Create(filepath.Join(files, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		*to = f
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return read("out"), read("err"), cmd.ProcessState.ExitCode()
}

// newBundle makes a bundle by `spec`, without a terminal.
func newBundle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		t.Skip("needs a static busybox: ", err)
	}
	for _, err := range []error{
		os.MkdirAll(dir+"/rootfs/bin", 0o755), os.WriteFile(dir+"/rootfs/bin/busybox", data, 0o755), os.Symlink("busybox", dir+"/rootfs/bin/sh"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, e, code := call(t, dir, "", "spec"); code != 0 {
		t.Fatal(e)
	}
	b, err := os.ReadFile(dir + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte(`"terminal": true`), []byte(`"terminal": false`), 1)
	if err := os.WriteFile(dir+"/config.json", b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRun(t *testing.T) {
	dir := newBundle(t)
	out, e, code := call(t, dir, "echo $$ out; echo err >&2; exit 3", "run", "cmd-test-run")
	if out != "1 out\n" || e != "err\n" || code != 3 {
		t.Errorf("got %q, %q, code %d", out, e, code)
	}
	if out, _, _ := call(t, dir, "", "list", "-q"); out != "" {
		t.Errorf("left: %q", out)
	}
}

func TestCommands(t *testing.T) {
	dir := newBundle(t)
	const id = "cmd-test-commands"
	defer call(t, dir, "", "delete", "--force", id)
	if _, e, code := call(t, dir, "", "create", "--bundle", dir, id); code != 0 {
		t.Fatal(e)
	}
	out, _, _ := call(t, dir, "", "exec", id, "busybox", "echo", "-n", "hello")
	if out != "hello" {
		t.Errorf("exec: %q", out)
	}
	var all []listed
	out, _, _ = call(t, dir, "", "list", "--format", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 || all[0].ID != id || all[0].Status != "created" || all[0].Owner != "root" {
		t.Errorf("list: %s (%v)", out, err)
	}
	if out, _, _ = call(t, dir, "", "list"); !strings.Contains(out, id) || !strings.HasPrefix(out, "ID  ") {
		t.Errorf("list: %s", out)
	}
	out, _, _ = call(t, dir, "", "ps", "--format", "json", id)
	var pids []int
	if err := json.Unmarshal([]byte(out), &pids); err != nil || len(pids) != 1 {
		t.Errorf("ps: %s (%v)", out, err)
	}
	for _, args := range [][]string{{"start", id}, {"state", id}} {
		if _, e, code := call(t, dir, "", args...); code != 0 {
			t.Errorf("%v: %s", args, e)
		}
	}
}

func TestErrors(t *testing.T) {
	dir := newBundle(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"state", "nope"}, "skiff-runtime: container does not exist: nope\n"},
		{[]string{"kill", "nope", "NOSUCH"}, "skiff-runtime: unknown signal \"NOSUCH\"\n"},
		{[]string{"spec"}, "skiff-runtime: file config.json exists. Remove it first\n"},
		{[]string{"--log-format", "xml", "list"}, "skiff-runtime: invalid log-format: xml\n"},
		{[]string{"--systemd-cgroup", "list"}, "skiff-runtime: --systemd-cgroup is not supported\n"},
	} {
		if _, e, code := call(t, dir, "", c.args...); e != c.want || code != 1 {
			t.Errorf("%v: %q, code %d", c.args, e, code)
		}
	}
	// The log gets errors in the form that containerd reads.
	log := filepath.Join(dir, "log")
	call(t, dir, "", "--log", log, "--log-format", "json", "state", "nope")
	b, _ := os.ReadFile(log)
	var entry struct{ Level, Msg, Time string }
	if err := json.Unmarshal(b, &entry); err != nil || entry.Level != "error" || entry.Msg != "container does not exist: nope" {
		t.Errorf("log: %s (%v)", b, err)
	}
}

func TestInformation(t *testing.T) {
	dir := newBundle(t)
	out, _, _ := call(t, dir, "", "features")
	var f struct {
		OCIVersionMin string
		Hooks         []string
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil || f.OCIVersionMin != "1.0.0" || len(f.Hooks) != 6 {
		t.Errorf("features: %s (%v)", out, err)
	}
	out, _, _ = call(t, dir, "", "explain", dir)
	for _, want := range []string{"clone  new mnt|pid|net|ipc|uts", `pivot_root(".", ".")`, "# wait at the gate", `execve  "/usr/local/sbin/sh"`} {
		if !strings.Contains(out, want) {
			t.Errorf("explain lacks %q:\n%s", want, out)
		}
	}
	if out, _, _ = call(t, dir, "", "--version"); !strings.HasPrefix(out, "skiff-runtime version ") {
		t.Errorf("version: %q", out)
	}
}
