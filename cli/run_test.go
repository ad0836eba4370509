package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestRunStreamsAndStatus(t *testing.T) {
	h := newHarness(t)
	for _, c := range []struct {
		name string
		code int
		err  string
	}{
		{"exit-0", 0, ""},
		{"exit-3", 3, ""},
		{"exit-137", 137, ""},
		{"fail-missing", 127, `skiff: Error response from daemon: failed to start: exec: "x": executable file not found in $PATH`},
		{"fail-denied", 126, `skiff: Error response from daemon: failed to start: exec: "/x": permission denied`},
		{"fail-other", 125, `skiff: Error response from daemon: failed to start: no space left on device`},
		{"taken", 125, `skiff: Error response from daemon: Conflict. The container name "/taken" is already in use`},
	} {
		r := h.run("", "run", "--name", c.name, "busybox", "x")
		wantOut, wantErr := "out of "+c.name+"\n", "err of "+c.name+"\n"
		if c.err != "" {
			wantOut, wantErr = "", c.err+"\n\nRun 'skiff run --help' for more information\n"
		}
		if r.code != c.code || r.out != wantOut || r.err != wantErr {
			t.Errorf("%s: %+v, want status %d and %q", c.name, r, c.code, wantErr)
		}
	}
}

// TestRunRoundTrips holds the order of requests: create, then attach and wait side by side, then start, and nothing else.
func TestRunRoundTrips(t *testing.T) {
	h := newHarness(t)
	h.run("", "run", "--rm", "--name", "exit-0", "busybox", "true")
	calls := h.engine.asked()
	if len(calls) == 4 {
		slices.Sort(calls[1:3])
	}
	want := []string{
		"POST /containers/create?name=exit-0", "POST /containers/exit-0/attach?stderr=1&stdout=1&stream=1",
		"POST /containers/exit-0/wait?condition=removed", "POST /containers/exit-0/start",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(want, "\n"))
	}
	r := h.run("", "run", "-d", "--name", "exit-1", "busybox", "true")
	if calls := h.engine.asked(); len(calls) != 2 || r.out != "exit-1\n" || r.code != 0 {
		t.Errorf("asked %v: %+v", calls, r)
	}
	r = h.run("", "run", "-d", "--name", "fail-missing", "busybox", "true")
	if r.out != "fail-missing\n" || r.code != 127 {
		t.Errorf("a container that is there and does not start: %+v", r)
	}
}

// TestExecRoundTrips: a skiffd is asked once, another daemon step by step.
func TestExecRoundTrips(t *testing.T) {
	h := newHarness(t)
	r := h.run("", "exec", "box", "once-exit-3")
	if calls := h.engine.asked(); len(calls) != 1 || r.code != 3 || r.out != "at once\n" {
		t.Errorf("asked %v: %+v", calls, r)
	}
	r = h.run("", "exec", "box", "exit-3")
	if calls := h.engine.asked(); len(calls) != 3 || r.code != 3 || r.out != "out of exit-3\n" {
		t.Errorf("asked %v: %+v", calls, r)
	}
}

func TestRunStdin(t *testing.T) {
	h := newHarness(t)
	if r := h.run("some input", "run", "-i", "--name", "echo", "busybox", "cat"); r.out != "some input" || r.code != 0 {
		t.Errorf("%+v", r)
	}
	if r := h.run("", "run", "-it", "busybox"); r.code != 1 || r.err != "the input device is not a TTY\n" {
		t.Errorf("%+v", r)
	}
}

func TestRunPulls(t *testing.T) {
	h := newHarness(t)
	r := h.run("", "run", "--name", "exit-0", "absent", "true")
	if r.code != 0 || r.out != "out of exit-0\n" || !strings.HasPrefix(r.err, "Unable to find image 'absent:latest' locally\nlatest: Pulling from library/absent\n") {
		t.Errorf("%+v", r)
	}
	h.engine.pulls = 0
	if r := h.run("", "run", "--pull", "never", "absent"); r.code != 125 || !strings.Contains(r.err, "No such image: absent") {
		t.Errorf("%+v", r)
	}
	h.engine.asked()
	h.run("", "create", "--pull", "always", "--platform", "linux/arm64", "busybox@sha256:"+strings.Repeat("1", 64))
	want := "POST /images/create?fromImage=busybox&platform=linux%2Farm64&tag=sha256%3A" + strings.Repeat("1", 64)
	if calls := h.engine.asked(); len(calls) != 2 || calls[0] != want {
		t.Errorf("asked %v", calls)
	}
}

func TestCidfile(t *testing.T) {
	h := newHarness(t)
	file := filepath.Join(t.TempDir(), "id")
	if r := h.run("", "create", "--name", "abc", "--cidfile", file, "busybox"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if b, _ := os.ReadFile(file); string(b) != "abc" {
		t.Errorf("the file says %q", b)
	}
	r := h.run("", "run", "--cidfile", file, "busybox")
	if r.code != 125 || !strings.Contains(r.err, "container ID file found, make sure the other container isn't running or delete "+file) {
		t.Errorf("%+v", r)
	}
	file += "2"
	h.run("", "create", "--name", "taken", "--cidfile", file, "busybox")
	if _, err := os.Stat(file); err == nil {
		t.Error("a file is left although there is no container")
	}
}

// TestRunBodies is the table of run's flags: what each sends. The files were compared with what docker 28.2 sends.
func TestRunBodies(t *testing.T) {
	h := newHarness(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	t.Setenv("SKIFF_TEST_FOO", "bar")
	env := write("env", "\ufeffA=1\n# comment\nSKIFF_TEST_FOO\nSKIFF_TEST_NOPE\n B=2 \n")
	labels := write("labels", "l1=v\nl2\n")
	seccomp := write("seccomp.json", `{ "defaultAction": "SCMP_ACT_ALLOW" }`)

	table, err := os.ReadFile("testdata/run/flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	var out strings.Builder
	for line := range strings.SplitSeq(strings.TrimSpace(string(table)), "\n") {
		args := []string{"create"}
		for w := range strings.FieldsSeq(line) {
			w = strings.NewReplacer("ENVFILE", env, "LABELFILE", labels, "SECCOMP", seccomp, "~", " ", "EMPTY", "").Replace(w)
			args = append(args, w)
			noteFlag(used, w)
		}
		h.engine.body = nil
		r := h.run("", append(args, "img", "cmd", "-x")...)
		body := "refused: " + r.err
		if r.code == 0 {
			body = checkedBody(t, line, h.engine.body)
		}
		fmt.Fprintf(&out, "# %s\n%s\n", line, strings.ReplaceAll(strings.TrimSpace(body), dir, "DIR"))
	}
	golden(t, "run/bodies.txt", out.String())

	c := (&App{Getenv: func(string) string { return "" }}).command(lookup("", "create"), "create")
	for _, f := range missingFlags(c, used) {
		t.Errorf("--%s is not in the table", f)
	}
}

// noteFlag notes which flag a word is.
func noteFlag(used map[string]bool, word string) {
	if strings.HasPrefix(word, "-") {
		name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
		used[name] = true
	}
}

// checkedBody decodes a body as a daemon does, and refuses unknown names.
func checkedBody(t *testing.T, line string, b []byte) string {
	t.Helper()
	var req container.CreateRequest
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		t.Errorf("%s: the API refuses the body: %v", line, err)
	}
	return string(b)
}
