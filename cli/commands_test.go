package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOutputs runs commands against the fake engine. What they print, on both streams, and their status is in one golden file,
// so that a change of any output is seen in review.
func TestOutputs(t *testing.T) {
	h := newHarness(t)
	t.Setenv("TZ", "UTC")
	var b strings.Builder
	for _, line := range []string{
		"ps --no-trunc", "ps -q", "ps --format json", "ps --format {{.Names}}", "ps --format {{.Foo}}", "ps --format {{",
		"ps -s", `ps --format table~{{.Names}}\t{{.Label~"a"}}\t{{.Mounts}}\t{{.Networks}}`, "ps -f foo", "ps extra",
		"container ls -a", "container list", "container ps",
		"images", "images -q --no-trunc", "images --digests", "images --format json", "image ls --format {{.Repository}}:{{.Tag}}", "images a b", "images --tree",
		"history image", "history -q image", "history --no-trunc --human=false image",
		"start a b", "start absent a", "start started", "stop a absent b", "stop -t 5 -s INT a", "restart a", "kill -s HUP a", "rm a absent running", "rm -f absent", "rm",
		"start -a exit-4", "wait exit-3 absent exit-0", "top a", "logs a", "logs absent", "logs --since x a", "attach running-1", "attach stopped",
		"exec a exit-5", "exec a missing", "exec -d a x", "exec a",
		"inspect a", "inspect a absent image", "inspect -f {{.State.Running}}~{{.Id}}~{{.ID}}~{{.HostConfig.CPUShares}} a",
		"inspect -f {{json~.Config}} a", "inspect -f {{.HostConfig.Binds}}{{if~.State.Health}}h{{end}}{{.State.Health}} a", "inspect -f {{.Nope}} a",
		"inspect -f json a", "inspect --type image a", "inspect --type x a", "image inspect image", "container inspect absent",
		"pull nginx", "pull -q nginx", "pull denied", "pull broken", "pull -a nginx:1", "pull UPPER", "image pull reg:5000/a/b:t",
		"tag image x", "tag image x@sha256:1", "rmi image absent", "rmi -f absent", "save image", "save -o /nonexistent/x image",
		"load", "import - x:y", "import /nonexistent",
		"version", "version -f {{.Server.Version}}", "version -f json", "info", "info -f {{.Driver}}", "system info -f {{.Nope}}", "system df", "events", "events --format json",
		"events --format {{.Status}}~{{.ID}}~{{.Actor.Attributes.name}}",
		"nosuch", "rnu", "container nosuch", "image lss", "help nosuch", "run", "run --nope", "run -m", "ps --format", "--nope", "-H a -H b ps", "-H a -c b ps",
		"completion bash extra", "completion tcsh", "login",
	} {
		var args []string
		for w := range strings.FieldsSeq(line) {
			args = append(args, strings.ReplaceAll(w, "~", " "))
		}
		r := h.run("input", args...)
		b.WriteString("$ skiff " + line + "\n")
		for l := range strings.Lines(r.out) {
			b.WriteString("1 " + l)
		}
		if r.out != "" && !strings.HasSuffix(r.out, "\n") {
			b.WriteString("\\\n")
		}
		for l := range strings.Lines(r.err) {
			b.WriteString("2 " + l)
		}
		if r.code != 0 {
			b.WriteString("= " + string(rune('0'+r.code/100)) + string(rune('0'+r.code/10%10)) + string(rune('0'+r.code%10)) + "\n")
		}
	}
	text := b.String()
	for old, fresh := range map[string]string{
		h.engine.path: "SOCKET", goVersion(): "GOVERSION",
	} {
		text = strings.ReplaceAll(text, old, fresh)
	}
	golden(t, "outputs.txt", agoPattern.ReplaceAllString(text, "56 years ago"))
}

func TestHelp(t *testing.T) {
	h := newHarness(t)
	h.env["HOME"], h.env["DOCKER_CONFIG"] = "/root", ""
	var b strings.Builder
	for _, args := range [][]string{{"--help"}, {"container", "--help"}, {"help", "container", "ls"}, {"run", "--help"}, {"help", "image"}} {
		r := h.run("", args...)
		if r.code != 0 || r.err != "" {
			t.Errorf("%v: %+v", args, r)
		}
		b.WriteString("$ skiff " + strings.Join(args, " ") + "\n" + r.out)
	}
	golden(t, "help.txt", b.String())
}

func TestEveryCommandHasHelp(t *testing.T) {
	h := newHarness(t)
	for _, s := range specs() {
		args := []string{s.name, "--help"}
		if s.parent != "" {
			args = append([]string{s.parent}, args...)
		}
		if r := h.run("", args...); r.code != 0 || !strings.HasPrefix(r.out, "Usage:  skiff "+strings.Join(args[:len(args)-1], " ")) {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestSaveToFile(t *testing.T) {
	h := newHarness(t)
	path := filepath.Join(t.TempDir(), "x.tar")
	if r := h.run("", "save", "-o", path, "a", "b"); r.code != 0 || r.out != "" {
		t.Fatalf("%+v", r)
	}
	if b, _ := os.ReadFile(path); string(b) != "tar of a,b" {
		t.Errorf("wrote %q", b)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCompletion(t *testing.T) {
	h := newHarness(t)
	for _, c := range []struct {
		words string
		want  []string // "!" before a word: must not be there
		code  int      // directive
	}{
		{"", []string{"run", "container", "help", "ps"}, 4},
		{"st", []string{"start", "stop", "!run"}, 4},
		{"container ", []string{"ls", "run", "!ps"}, 4},
		{"start ", []string{"old", "!web"}, 4},
		{"stop ", []string{"web"}, 4},
		{"rm ", []string{"old", "!web"}, 4},
		{"rm -f ", []string{"old", "web"}, 4},
		{"logs ", []string{"old", "web"}, 4},
		{"logs web ", nil, 4},
		{"stop web ", []string{"!web"}, 4},
		{"run ", []string{"nginx", "nginx:1"}, 4},
		{"run --rm -e X=1 ng", []string{"nginx:1"}, 4},
		{"run nginx ", nil, 0},
		{"run --pull ", []string{"always", "missing", "never"}, 4},
		{"run --pull=al", []string{"--pull=always"}, 4},
		{"run --net", []string{"--network", "--network-alias"}, 4},
		{"run --network ", []string{"bridge", "host", "container:"}, 6},
		{"run --cap-add net_a", []string{"NET_ADMIN"}, 4},
		{"run -v ", nil, 0},
		{"-l d", []string{"debug"}, 4},
		{"--log-level ", []string{"info"}, 4},
		{"-c ", []string{"default"}, 4},
		{"-D ps --format ", []string{"json", "table"}, 4},
		{"image rm ", []string{"nginx:1"}, 4},
		{"completion ", []string{"bash", "fish", "zsh"}, 4},
		{"nosuch ", nil, 4},
		{"kill -s HU", []string{"!SIGHUP"}, 4},
		{"kill -s SIGH", []string{"SIGHUP"}, 4},
	} {
		words := strings.Split(c.words, " ")
		r := h.run("", append([]string{"__completeNoDesc"}, words...)...)
		lines := strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
		if got := lines[len(lines)-1]; got != ":"+string(rune('0'+c.code)) {
			t.Errorf("%q: directive %s, want %d", c.words, got, c.code)
		}
		for _, w := range c.want {
			name, absent := strings.CutPrefix(w, "!")
			if slices.Contains(lines, name) == absent {
				t.Errorf("%q: %v, want %s", c.words, lines, w)
			}
		}
	}
}

// TestCompletionWithoutEngine: it says nothing, and starts nothing.
func TestCompletionWithoutEngine(t *testing.T) {
	h := newHarness(t)
	h.env["DOCKER_HOST"] = "unix:///nonexistent"
	delete(h.env, "SKIFF_NO_AUTOSTART")
	if r := h.run("", "__complete", "start", ""); r.out != ":4\n" || r.err != "" || r.code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestKeyReader(t *testing.T) {
	keys, err := parseKeys(defaultDetachKeys)
	if err != nil || !bytes.Equal(keys, []byte{16, 17}) {
		t.Fatal(keys, err)
	}
	for _, c := range []struct {
		in, out  string
		detached bool
	}{
		{"abc", "abc", false},
		{"ab\x10\x11cd", "ab", true},
		{"a\x10b", "a\x10b", false},
		{"\x10\x10\x11", "\x10", true},
		{"a\x10", "a\x10", false},
	} {
		for _, size := range []int{1, 100} {
			r := newKeyReader(&slowReader{s: c.in, n: size}, keys)
			var out []byte
			var err error
			for err == nil {
				p := make([]byte, 3)
				var n int
				n, err = r.Read(p)
				out = append(out, p[:n]...)
			}
			if string(out) != c.out || (err == errDetached) != c.detached {
				t.Errorf("%q by %d: %q, %v", c.in, size, out, err)
			}
		}
	}
	for _, bad := range []string{"", "ctrl-", "ctrl-1", "xx", "ctrl-a,"} {
		if k, err := parseKeys(bad); err == nil {
			t.Errorf("%q gives %v", bad, k)
		}
	}
}

func TestRef(t *testing.T) {
	for in, want := range map[string]string{
		"busybox": "docker.io/library/busybox", "a/b:c": "docker.io/a/b:c", "reg.io/x": "reg.io/x", "localhost/x": "localhost/x",
		"reg:5000/x/y:1": "reg:5000/x/y:1", "index.docker.io/x": "docker.io/library/x", "a__b--c.d": "docker.io/library/a__b--c.d",
		"x@sha256:" + strings.Repeat("a", 64): "docker.io/library/x@sha256:" + strings.Repeat("a", 64), "[::1]:5000/x": "[::1]:5000/x",
		"": "", "A": "", "a/B": "", "a:": "", "-a": "", "a..b": "", "a___b": "", "a@sha256:1": "", "a b": "", "/a": "", "a//b": "",
		strings.Repeat("a", 64): "",
	} {
		r, err := parseRef(in)
		if (err == nil) != (want != "") || err == nil && r.full() != want {
			t.Errorf("%q: %q, %v", in, r.full(), err)
		}
	}
}

type slowReader struct {
	s string
	n int
}

func (s *slowReader) Read(p []byte) (int, error) {
	if s.s == "" {
		return 0, os.ErrClosed
	}
	n := copy(p, s.s[:min(s.n, len(s.s))])
	s.s = s.s[n:]
	return n, nil
}
