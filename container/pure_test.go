package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"skiff/internal/errs"
	"skiff/network"
)

func TestMergeConfig(t *testing.T) {
	img := dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{
		User: "u", Env: []string{"A=1", "B=2"}, Entrypoint: []string{"ep"}, Cmd: []string{"c"}, WorkingDir: "/w",
		Labels: map[string]string{"x": "image", "y": "image"}, ExposedPorts: map[string]struct{}{"80": {}}, StopSignal: "INT",
	}}
	img.Healthcheck = &api.HealthConfig{Test: []string{"CMD", "x"}, Retries: 3}
	for _, tc := range []struct {
		name       string
		asked      api.Config
		entrypoint []string
		cmd        []string
	}{
		{"silent", api.Config{}, []string{"ep"}, []string{"c"}},
		{"command", api.Config{Cmd: []string{"mine"}}, []string{"ep"}, []string{"mine"}},
		{"entry point", api.Config{Entrypoint: []string{"mine"}}, []string{"mine"}, nil},
		{"reset entry point", api.Config{Entrypoint: []string{""}, Cmd: []string{"mine"}}, nil, []string{"mine"}},
		{"empty entry point", api.Config{Entrypoint: []string{}, Cmd: []string{"mine"}}, []string{}, []string{"mine"}},
	} {
		c, err := mergeConfig(&tc.asked, img)
		if err != nil {
			t.Fatal(tc.name, err)
		}
		if !slices.Equal(c.Entrypoint, tc.entrypoint) || !slices.Equal(c.Cmd, tc.cmd) {
			t.Errorf("%s: %q %q", tc.name, c.Entrypoint, c.Cmd)
		}
	}
	c, err := mergeConfig(&api.Config{
		Env: []string{"B=3", "C"}, Labels: map[string]string{"x": "mine"}, WorkingDir: "/a/../b/",
		Healthcheck: &api.HealthConfig{Interval: time.Second},
	}, img)
	if err != nil {
		t.Fatal(err)
	}
	want := &api.Config{
		User: "u", Env: []string{"B=3", "C", "A=1"}, Entrypoint: []string{"ep"}, Cmd: []string{"c"}, WorkingDir: "/b",
		Labels: map[string]string{"x": "mine", "y": "image"}, StopSignal: "INT",
		ExposedPorts: apinetwork.PortSet{apinetwork.MustParsePort("80/tcp"): {}},
		Healthcheck:  &api.HealthConfig{Test: []string{"CMD", "x"}, Retries: 3, Interval: time.Second},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
	for text, bad := range map[string]api.Config{
		"no command specified":                    {Entrypoint: []string{""}},
		"the working directory 'a' is invalid":    {Cmd: []string{"x"}, WorkingDir: "a"},
		"invalid environment variable: =x":        {Cmd: []string{"x"}, Env: []string{"=x"}},
		"invalid signal: NOPE":                    {Cmd: []string{"x"}, StopSignal: "NOPE"},
		"invalid hostname format: -a":             {Cmd: []string{"x"}, Hostname: "-a"},
		"Interval in Healthcheck cannot be less ": {Cmd: []string{"x"}, Healthcheck: &api.HealthConfig{Interval: 1}},
	} {
		if _, err := mergeConfig(&bad, dockerspec.DockerOCIImageConfig{}); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestSignals(t *testing.T) {
	for s, want := range map[string]unix.Signal{
		"9": 9, "KILL": 9, "sigkill": 9, "SIGTERM": 15, "usr1": 10, "RTMIN": 34, "SIGRTMIN+3": 37, "rtmax-1": 63, "RTMAX": 64, "64": 64, "CLD": 17,
	} {
		if got, err := parseSignal(s); got != want || err != nil {
			t.Errorf("%s: %d %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "65", "-1", "NOPE", "SIG", "RTMIN-1", "RTMAX+1", "RTMIN+99", "RTMIN+x", "RTMIN+"} {
		if got, err := parseSignal(s); err == nil || err.Error() != "invalid signal: "+s {
			t.Errorf("%q: %d %v", s, got, err)
		}
	}
}

func TestDetachKeys(t *testing.T) {
	for s, want := range map[string]string{
		"": "\x10\x11", "ctrl-a": "\x01", "a,b": "ab", "ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_": "\x00\x1b\x1c\x1d\x1e\x1f", "ctrl-z,A": "\x1aA",
	} {
		if got, err := parseDetachKeys(s); err != nil || string(got) != want {
			t.Errorf("%q: %q %v", s, got, err)
		}
	}
	for _, s := range []string{"ctrl-", "ctrl-A", "ctrl-1", "ab", "a,", "ü", ",", "ctrl-ü"} {
		if got, err := parseDetachKeys(s); err == nil {
			t.Errorf("%q: %q", s, got)
		}
	}
}

func FuzzDetachKeys(f *testing.F) {
	f.Add("ctrl-p,ctrl-q")
	f.Fuzz(func(t *testing.T, s string) {
		keys, err := parseDetachKeys(s)
		if err == nil && len(keys) == 0 {
			t.Errorf("%q gives no keys", s)
		}
	})
}

// The reader passes everything up to the first occurrence of the keys, however the input is cut.
func TestDetachReader(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		keys := rapid.SliceOfN(rapid.ByteRange('a', 'c'), 1, 4).Draw(rt, "keys")
		in := rapid.SliceOfN(rapid.ByteRange('a', 'd'), 0, 40).Draw(rt, "in")
		var r io.Reader = bytes.NewReader(in)
		if rapid.Bool().Draw(rt, "byte by byte") {
			r = iotest.OneByteReader(r)
		}
		var got bytes.Buffer
		_, err := got.ReadFrom(&detachReader{r: r, keys: keys})
		before, _, found := bytes.Cut(in, keys)
		if !bytes.Equal(got.Bytes(), before) || errors.Is(err, ErrDetached) != found {
			rt.Fatalf("got %q %v, want %q %v", got.Bytes(), err, before, found)
		}
	})
}

func TestQueue(t *testing.T) {
	var q queue
	var order []int
	block := make(chan struct{})
	q.post(func() { <-block })
	for i := range 100 {
		q.post(func() { order = append(order, i) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran := make(chan error, 1)
	if err := q.do(ctx, func(ctx context.Context) error { ran <- ctx.Err(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(block)
	if err := <-ran; err != nil {
		t.Errorf("the command's context has ended: %v", err)
	}
	if len(order) != 100 || !slices.IsSorted(order) {
		t.Errorf("order %v", order)
	}
}

func TestStatusText(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(-d) }
	for want, s := range map[string]status{
		"Up 2 hours":                 {Phase: api.StateRunning, StartedAt: at(2*time.Hour + time.Second)},
		"Up Less than a second":      {Phase: api.StateRunning, StartedAt: now},
		"Up 3 minutes (Paused)":      {Phase: api.StatePaused, StartedAt: at(3 * time.Minute)},
		"Exited (137) 4 seconds ago": {Phase: api.StateExited, ExitCode: 137, FinishedAt: at(4 * time.Second)},
		"Created":                    {Phase: api.StateCreated},
		"Removal In Progress":        {Phase: api.StateRemoving},
	} {
		if got := statusText(&s, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPorts(t *testing.T) {
	p := apinetwork.MustParsePort
	d := &definition{Config: &api.Config{ExposedPorts: apinetwork.PortSet{p("80/tcp"): {}, p("53/udp"): {}}}, HostConfig: &api.HostConfig{PublishAllPorts: true}}
	if got := published(d.Config, d.HostConfig); len(got) != 2 || len(got[p("53/udp")]) != 1 {
		t.Errorf("published %v", got)
	}
	s := &status{Phase: api.StateRunning, Endpoint: &network.Endpoint{Ports: apinetwork.PortMap{
		p("80/tcp"): {{HostIP: netip.MustParseAddr("0.0.0.0"), HostPort: "8080"}, {HostIP: netip.MustParseAddr("::"), HostPort: "8080"}},
	}}}
	got, err := json.Marshal(portSummaries(d, s))
	want := `[{"PrivatePort":53,"Type":"udp"},{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}]`
	if s := strings.ReplaceAll(string(got), `"IP":"",`, ""); err != nil || s != want {
		t.Errorf("got  %s %v\nwant %s", s, err, want)
	}
	m, _ := json.Marshal(portMap(d, s))
	if string(m) != `{"53/udp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}` {
		t.Errorf("map %s", m)
	}
}

func TestLogOptions(t *testing.T) {
	d := func(driver string, opt map[string]string) *definition {
		d := &definition{ID: "id", Name: "web", Image: fakeImageID, Config: &api.Config{
			Image: "busybox", Labels: map[string]string{"a": "1", "b": "2"}, Env: []string{"X=3", "Y=4"},
		}, HostConfig: &api.HostConfig{}}
		var err error
		if d.HostConfig.LogConfig, err = completeLogConfig(api.LogConfig{Type: driver, Config: opt}, api.LogConfig{}); err != nil {
			t.Fatal(err)
		}
		return d
	}
	l, err := logTo(d("", nil), "/c")
	if err != nil || l.Driver != "json-file" || l.Path != "/c/id-json.log" || l.MaxSize != 20<<20 || l.MaxFiles != 3 || l.Compress || l.Attrs != nil {
		t.Errorf("default: %+v %v", l, err)
	}
	l, err = logTo(d("json-file", map[string]string{
		"max-size": "10m", "max-file": "7", "compress": "true", "labels": "a", "env-regex": "^Y", "tag": "{{.Name}}/{{.ImageName}}",
	}), "/c")
	if err != nil || l.MaxSize != 10_000_000 || l.MaxFiles != 7 || !l.Compress ||
		!cmp.Equal(l.Attrs, map[string]string{"a": "1", "Y": "4", "tag": "web/busybox"}) {
		t.Errorf("options: %+v %v", l, err)
	}
	if l, err = logTo(d("none", nil), "/c"); err != nil || l.Path != "" {
		t.Errorf("none: %+v %v", l, err)
	}
	if l, err = logTo(d("local", map[string]string{"max-size": "-1"}), "/c"); err != nil || l.MaxSize > 0 || !l.Compress {
		t.Errorf("local: %+v %v", l, err)
	}
	for text, opt := range map[string]map[string]string{
		"max-size":               {"max-size": "x"},
		"less than 1":            {"max-file": "-1"},
		"compress cannot be":     {"max-file": "1", "compress": "true"},
		"invalid log opt tag":    {"tag": "{{.Nope}}"},
		"invalid log opt labels": {"labels-regex": "("},
	} {
		if _, err := logTo(d("json-file", opt), "/c"); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v", opt, err)
		}
	}
}

func TestFilters(t *testing.T) {
	w := newFake(t)
	create := func(name string, c api.Config, h api.HostConfig) string {
		c.Image = "busybox"
		id, _, err := w.Create(t.Context(), CreateOptions{Name: name, Config: &c, HostConfig: &h})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	p := apinetwork.MustParsePort
	one := create("one", api.Config{Labels: map[string]string{"k": "v"}}, api.HostConfig{NetworkMode: "none"})
	create("two", api.Config{ExposedPorts: apinetwork.PortSet{p("80/tcp"): {}}}, api.HostConfig{
		PortBindings: apinetwork.PortMap{p("80/tcp"): {{HostPort: "8080"}}}, Binds: []string{"/src:/dst:ro"},
	})
	three := create("three", api.Config{}, api.HostConfig{})
	for _, n := range []string{"two", "three"} {
		if err := w.Start(t.Context(), n, ""); err != nil {
			t.Fatal(err)
		}
	}
	w.end(three, 5)
	w.settledExit(three)
	for _, tc := range []struct {
		filters string // key=value …
		all     bool
		want    string
	}{
		{"", false, "two"},
		{"", true, "three two one"},
		{"name=o", true, "two one"},
		{"name=^/?t", true, "three two"},
		{"id=" + one[:8], true, "one"},
		{"label=k", true, "one"},
		{"label=k=x", true, ""},
		{"status=exited", false, "three"},
		{"status=created status=running", false, "two one"},
		{"exited=5", false, "three"},
		{"exited=0", false, ""},
		{"ancestor=busybox", false, "two"},
		{"ancestor=other", true, ""},
		{"before=two", false, "one"},
		{"since=two", false, "three"},
		{"network=none", true, "one"},
		{"network=bridge", false, "two"},
		{"publish=8080", true, "two"},
		{"publish=8000-9000/tcp", true, "two"},
		{"publish=80", true, ""},
		{"expose=80", true, "two"},
		{"expose=80/udp", true, ""},
		{"volume=/dst", true, "two"},
		{"health=none", false, "two"},
		{"health=healthy", true, ""},
		{"is-task=true", true, ""},
		{"is-task=false name=two", true, "two"},
	} {
		opt := ListOptions{All: tc.all, Filters: map[string][]string{}}
		for f := range strings.FieldsSeq(tc.filters) {
			k, v, _ := strings.Cut(f, "=")
			opt.Filters[k] = append(opt.Filters[k], v)
		}
		list, err := w.List(t.Context(), opt)
		if err != nil {
			t.Errorf("%s: %v", tc.filters, err)
		}
		var names []string
		for _, s := range list {
			names = append(names, s.Names[0][1:])
		}
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("%q (all %v): got %q, want %q", tc.filters, tc.all, got, tc.want)
		}
	}
	if list, err := w.List(t.Context(), ListOptions{Limit: 2, Size: true}); err != nil || len(list) != 2 || list[0].SizeRw != 10 || list[0].SizeRootFs != 1010 {
		t.Errorf("limit: %v %v", list, err)
	}
	for _, bad := range []map[string][]string{{"nonesuch": {"x"}}, {"status": {"x"}}, {"exited": {"x"}}, {"publish": {"x"}}, {"name": {"("}}, {"health": {"x"}}, {"is-task": {"x"}}, {"before": {"a", "b"}}} {
		if _, err := w.List(t.Context(), ListOptions{Filters: bad}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if r, err := w.Prune(t.Context(), map[string][]string{"label!": {"k"}}); err != nil || !slices.Equal(r.ContainersDeleted, []string{three}) || r.SpaceReclaimed != 10 {
		t.Errorf("prune: %+v %v", r, err)
	}
}

func TestTop(t *testing.T) {
	r, err := readProcesses([]int{os.Getpid()})
	if err != nil || len(r.Processes) != 1 || len(r.Processes[0]) != len(r.Titles) || !strings.Contains(r.Processes[0][7], "test") {
		t.Errorf("%v %+v", err, r)
	}
	r, err = parsePS("  PID USER COMMAND\n    1 root init\n   22 user sh -c  'a b'\n", []int{22})
	if err != nil || !reflect.DeepEqual(r.Processes, [][]string{{"22", "user", "sh -c 'a b'"}}) {
		t.Errorf("%v %+v", err, r)
	}
	if _, err := parsePS("USER\nroot\n", nil); err == nil || err.Error() != "Couldn't find PID field in ps output" {
		t.Errorf("without PID: %v", err)
	}
	for d, want := range map[time.Duration]string{0: "00:00:00", 3*time.Hour + 4*time.Minute + 5*time.Second: "03:04:05", 49 * time.Hour: "2-01:00:00"} {
		if got := cpuText(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
	for dev, want := range map[int64]string{0: "?", 34816: "pts/0", 34821: "pts/5", 1025: "tty1"} {
		if got := ttyName(dev); got != want {
			t.Errorf("%d: %s", dev, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	b, _ := os.ReadFile("/proc/self/stat")
	f.Add(string(b))
	f.Add("1 (a) b) S 1 2 3")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parseStat(s) })
}
