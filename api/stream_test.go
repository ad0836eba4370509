package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"

	"skiff/container"
	"skiff/image"
	"skiff/internal/errs"
)

func TestLogs(t *testing.T) {
	for _, c := range []struct {
		path, contentType string
		tty               bool
	}{
		{"/v1.50/containers/x/logs?stdout=1", mediaMultiplexed, false},
		{"/v1.50/containers/x/logs?stderr=1", mediaRaw, true},
		{"/v1.41/containers/x/logs?stdout=1", mediaRaw, false},
	} {
		f := &fake{logs: io.NopCloser(strings.NewReader("some lines")), tty: c.tty}
		w := ask(t, f, "GET", c.path+"&since=1700000000.25&until=1700000001&tail=3&follow=1&timestamps=1&details=1", "")
		if w.Code != 200 || w.Body.String() != "some lines" || w.Header().Get("Content-Type") != c.contentType {
			t.Errorf("%s: %d %v %s", c.path, w.Code, w.Header(), w.Body)
		}
		o := f.logOpt
		if !o.Since.Equal(time.Unix(1700000000, 250000000)) || !o.Until.Equal(time.Unix(1700000001, 0)) || o.Tail != 3 || !o.Follow || !o.Timestamps || !o.Details {
			t.Errorf("%+v", o)
		}
	}
	for path, want := range map[string]string{
		"/containers/x/logs":                     "Bad parameters: you must choose at least one stream",
		"/containers/x/logs?stdout=1&since=noon": `invalid value \"noon\" for since`,
		"/containers/x/logs?stdout=1&until=1.x":  `invalid value \"1.x\" for until`,
	} {
		if w := ask(t, &fake{}, "GET", path, ""); w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	f := &fake{logs: io.NopCloser(strings.NewReader(""))}
	if ask(t, f, "GET", "/containers/x/logs?stdout=1&tail=all&since=0", ""); f.logOpt.Tail != -1 || !f.logOpt.Since.IsZero() {
		t.Errorf("%+v", f.logOpt)
	}
}

// blocked is a log that is followed: it ends when it is closed.
type blocked struct{ *io.PipeReader }

func TestFollowedLogsEndWithTheirClient(t *testing.T) {
	r, w := io.Pipe()
	f := &fake{logs: blocked{r}}
	conn, br, head := dial(t, "unix", listen(t, f), "GET /containers/x/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
	if !strings.Contains(head, "200 OK") {
		t.Fatal(head)
	}
	if _, err := w.Write([]byte("line")); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(io.LimitReader(br, 9)); string(b) != "4\r\nline\r\n" { // it is here before the next one
		t.Errorf("%q", b)
	}
	conn.Close()
	deadline := time.Now().Add(5 * time.Second)
	for {
		if _, err := w.Write([]byte("more")); errors.Is(err, io.ErrClosedPipe) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the log is followed without a client")
		}
	}
}

func TestWaitSendsItsHeaderAtOnce(t *testing.T) {
	f := &fake{wait: make(chan container.WaitResult, 1)}
	_, br, head := dial(t, "unix", listen(t, f), "POST /containers/x/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n")
	if !strings.Contains(head, "200 OK") || !strings.Contains(head, "application/json") {
		t.Fatal(head)
	}
	f.wait <- container.WaitResult{StatusCode: 3, Err: errors.New("oh")}
	if _, err := br.ReadString('\n'); err != nil { // the chunk's size
		t.Fatal(err)
	}
	if line, _ := br.ReadString('\n'); line != `{"Error":{"Message":"oh"},"StatusCode":3}`+"\n" {
		t.Errorf("%q", line)
	}
	if w := ask(t, f, "POST", "/containers/x/wait?condition=never", ""); w.Code != 400 || !strings.Contains(w.Body.String(), `invalid condition: \"never\"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestPullProgress(t *testing.T) {
	messages := []image.Message{
		{ID: "latest", Status: "Pulling from library/x"},
		{ID: "abc", Status: "Downloading", Current: 500_000, Total: 1_000_000},
		{ID: "abc", Status: "Pull complete"},
		{Status: "Digest: sha256:1"},
	}
	f := &fake{messages: messages}
	w := ask(t, f, "POST", "/v1.41/images/create?fromImage=x&tag=1&platform=linux/arm64", "", "X-Registry-Auth", "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==")
	want := `{"status":"Pulling from library/x","progressDetail":{},"id":"latest"}` + "\r\n" +
		`{"status":"Downloading","progressDetail":{"current":500000,"total":1000000},"progress":"[=========================\u003e                         ]  500kB/1MB","id":"abc"}` + "\r\n" +
		`{"status":"Pull complete","progressDetail":{},"id":"abc"}` + "\r\n" +
		`{"status":"Digest: sha256:1"}` + "\r\n"
	want = strings.Replace(want, "                         ]", strings.Repeat(" ", 24)+"]", 1)
	if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v\n%s\nwant\n%s", w.Code, w.Header(), w.Body, want)
	}
	if f.pulled != "x:1" || f.pullOpt.Platform.Architecture != "arm64" || f.pullOpt.Credentials.Username != "u" || f.pullOpt.Credentials.Password != "p" {
		t.Errorf("%s %+v", f.pulled, f.pullOpt)
	}
	f = &fake{messages: messages[:1], err: errs.New(errs.NotFound, "no such thing")}
	w = ask(t, f, "POST", "/images/create?fromImage=x&tag=1", "")
	if w.Code != 200 || !strings.HasSuffix(w.Body.String(), `{"errorDetail":{"message":"no such thing"},"error":"no such thing"}`+"\r\n") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	f = &fake{err: errs.New(errs.NotFound, "no such thing")}
	if w = ask(t, f, "POST", "/images/create?fromImage=x&tag=1", ""); w.Code != 404 || w.Body.String() != `{"message":"no such thing"}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestPullReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for _, c := range [][3]string{
		{"x", "1", "x:1"},
		{"x:2", "", "x:2"},
		{"x:2", "1", "x:1"},
		{"docker.io/library/x", "1", "x:1"},
		{"host:5000/x", "1", "host:5000/x:1"},
		{"x", digest, "x@" + digest},
		{"x@" + digest, "1", "x@" + digest},
		{"x", "", ""},
		{"X!", "1", ""},
	} {
		got, err := pullReference(c[0], c[1])
		if got != c[2] || (err == nil) != (c[2] != "") {
			t.Errorf("%v: %q %v", c, got, err)
		}
	}
	for path, status := range map[string]int{
		"/images/create?fromImage=x": 501, "/images/create?fromImage=X!&tag=1": 400, "/images/create": 400,
		"/images/create?fromImage=x&tag=1&platform=a/b/c/d": 400,
	} {
		if w := ask(t, &fake{}, "POST", path, ""); w.Code != status {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := ask(t, &fake{}, "POST", "/images/create?fromImage=x&tag=1", "", "X-Registry-Auth", "!!"); w.Code != 400 || !strings.Contains(w.Body.String(), "X-Registry-Auth") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestLoadImportSave(t *testing.T) {
	w := ask(t, &fake{}, "POST", "/images/load", "tar", "Content-Type", "application/x-tar")
	want := `{"stream":"Loaded image: a:latest\n"}` + "\r\n" + `{"stream":"Loaded image ID: sha256:12\n"}` + "\r\n"
	if w.Code != 200 || w.Body.String() != want {
		t.Errorf("load: %d %s", w.Code, w.Body)
	}
	f := &fake{}
	w = ask(t, f, "POST", "/images/create?fromSrc=-&repo=a", "tar", "Content-Type", "text/plain")
	if w.Code != 200 || w.Body.String() != `{"status":"sha256:id"}`+"\r\n" || f.imported != "tar" {
		t.Errorf("import: %d %s %q", w.Code, w.Body, f.imported)
	}
	w = ask(t, &fake{}, "GET", "/images/get?names=a&names=b", "")
	if w.Code != 200 || w.Body.String() != "tar of a,b" || w.Header().Get("Content-Type") != mediaTar {
		t.Errorf("save: %d %s", w.Code, w.Body)
	}
	if w := ask(t, &fake{}, "GET", "/images/lib/a/get", ""); w.Body.String() != "tar of lib/a" {
		t.Errorf("save: %d %s", w.Code, w.Body)
	}
	if w := ask(t, &fake{err: errGone}, "GET", "/images/x/get", ""); w.Code != 404 || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		t.Errorf("save: %d %v", w.Code, w.Header())
	}
	if w := ask(t, &fake{}, "GET", "/v1.50/images/x/get?platform={}&platform={}", ""); w.Code != 400 {
		t.Errorf("save of two platforms: %d", w.Code)
	}
}

// TestBrokenSaveBreaksTheConnection: the client must not take half a tar for a whole one.
func TestBrokenSaveBreaksTheConnection(t *testing.T) {
	f := &fake{messages: make([]image.Message, 1), err: errors.New("disk")}
	_, br, head := dial(t, "unix", listen(t, f), "GET /images/x/get HTTP/1.1\r\nHost: x\r\n\r\n")
	if !strings.Contains(head, "200 OK") {
		t.Fatal(head)
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader(head+"\r\n"), br)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the body ended with %v", err)
	}
}

func TestEvents(t *testing.T) {
	m := events.Message{
		Type: events.ContainerEventType, Action: "start", Actor: events.Actor{ID: "abc", Attributes: map[string]string{"image": "x"}},
		Scope: "local", Time: 1, TimeNano: 1000000001,
	}
	const new52 = `{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"x"}},"scope":"local","time":1,"timeNano":1000000001}` + "\n"
	const old51 = `{"status":"start","id":"abc","from":"x","Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"x"}},"scope":"local","time":1,"timeNano":1000000001}` + "\n"
	for _, c := range []struct{ path, accept, contentType, want string }{
		{"/v1.41/events", "", mediaJSON, old51},
		{"/v1.51/events", mediaNDJSON, mediaJSON, old51},
		{"/v1.52/events", "", mediaJSON, new52},
		{"/v1.52/events", mediaNDJSON, mediaNDJSON, new52},
		{"/v1.52/events", mediaJSONLines, mediaJSON, new52},
		{"/v1.53/events", "text/html, " + mediaJSONLines + ";q=0.9", mediaJSONLines, new52},
		{"/v1.53/events", mediaJSONSeq, mediaJSONSeq, "\x1e" + new52},
	} {
		f := &fake{events: make(chan events.Message, 1)}
		f.events <- m
		close(f.events)
		w := ask(t, f, "GET", c.path+"?since=1&until=2", "", "Accept", c.accept)
		if w.Code != 200 || w.Body.String() != c.want || w.Header().Get("Content-Type") != c.contentType {
			t.Errorf("%s %s: %d %v\n%s", c.path, c.accept, w.Code, w.Header(), w.Body)
		}
	}
	for path, want := range map[string]string{
		"/events?since=2&until=1":         "cannot be after `until` time",
		"/events?since=x":                 "invalid value",
		`/events?filters={"x":["1"]}`:     "invalid filter 'x'",
		`/events?filters={"type":"x"}`:    "invalid filters",
		`/events?filters=nonsense`:        "invalid filters",
		`/containers/json?filters=[1]`:    "invalid filters",
		`/containers/json?limit=many`:     "limit",
		`/containers/x/resize?h=1&w=x`:    "page not found",
		`/networks?filters={"foo":["1"]}`: "invalid filter 'foo'",
	} {
		if w := ask(t, &fake{}, "GET", path, ""); w.Code < 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestEventFilter(t *testing.T) {
	c := events.Message{Type: "container", Action: "exec_create: ls", Scope: "local", Actor: events.Actor{
		ID: "abcdef", Attributes: map[string]string{"name": "web", "image": "host:5000/nginx:1", "role": "x"},
	}}
	i := events.Message{Type: "image", Action: "tag", Scope: "local", Actor: events.Actor{ID: "sha256:1", Attributes: map[string]string{"name": "nginx:1"}}}
	for _, tt := range []struct {
		filters          string
		container, image bool
	}{
		{`{}`, true, true},
		{`{"type":{"container":true}}`, true, false},
		{`{"type":["container","image"]}`, true, true},
		{`{"type":{}}`, true, true},
		{`{"event":["exec_create"]}`, true, false},
		{`{"event":["exec"]}`, false, false},
		{`{"event":["tag"],"type":["container"]}`, false, false},
		{`{"container":["web"]}`, true, false},
		{`{"container":["abc"]}`, true, false},
		{`{"container":["we"]}`, false, false},
		{`{"label":["role"]}`, true, false},
		{`{"label":["role=x"]}`, true, false},
		{`{"label":["role=y"]}`, false, false},
		{`{"image":["nginx"]}`, false, true},
		{`{"image":["nginx:1"]}`, false, true},
		{`{"image":["host:5000/nginx"]}`, true, false},
		{`{"scope":["local"]}`, true, true},
		{`{"network":["abc"]}`, false, false},
	} {
		var sets map[string][]string
		f := &fake{}
		w := ask(t, f, "GET", "/events?filters="+tt.filters, "")
		if w.Code != 200 {
			t.Errorf("%s: %d %s %v", tt.filters, w.Code, w.Body, sets)
			continue
		}
		match := f.match
		if match == nil {
			match = func(events.Message) bool { return true }
		}
		if match(c) != tt.container || match(i) != tt.image {
			t.Errorf("%s: container %v, image %v", tt.filters, match(c), match(i))
		}
	}
}

func FuzzFilters(f *testing.F) {
	f.Add(`{"a":{"b":true}}`)
	f.Add(`{"a":["b"]}`)
	f.Fuzz(func(t *testing.T, s string) {
		c := &call{params: map[string][]string{"filters": {s}}}
		got, err := c.filters()
		if err == nil && s != "" && !json.Valid([]byte(s)) {
			t.Errorf("%q: %v", s, got)
		}
	})
}
