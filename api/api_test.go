package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"skiff/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// specified reads all endpoints from the specification of the newest version.
func specified(t *testing.T) []string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "docs", "v"+MaxVersion.String()+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, paths, _ := strings.Cut(string(b), "\npaths:\n")
	var out []string
	path := ""
	for _, line := range strings.Split(paths, "\n") {
		if m := regexp.MustCompile(`^  (/\S*):$`).FindStringSubmatch(line); m != nil {
			path = strings.Replace(m[1], "{id}", "{name}", 1)
		}
		if m := regexp.MustCompile(`^    (get|head|post|put|delete):$`).FindStringSubmatch(line); m != nil {
			out = append(out, strings.ToUpper(m[1])+" "+path)
		}
	}
	return out
}

func TestEndpointsAreThoseOfTheSpecification(t *testing.T) {
	want := append(specified(t), "POST /build/cancel", "POST /grpc") // dockerd has these beside it
	got := append([]string{}, endpoints...)
	sort.Strings(want)
	sort.Strings(got)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("endpoints.go is not the list of the specification:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestEveryEndpointAnswers walks all endpoints: each is served, or says by its name that it is not there yet.
func TestEveryEndpointAnswers(t *testing.T) {
	f := &fake{err: errs.New(errs.Forbidden, "served")}
	missing := 0
	for _, endpoint := range endpoints {
		method, pattern, _ := strings.Cut(endpoint, " ")
		for _, version := range []string{"", "/v1.40", "/v1.56"} {
			path := version + strings.Replace(pattern, "{name}", "some/name", 1)
			w := ask(t, f, method, path, "")
			switch w.Code {
			case http.StatusNotFound:
				t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
			case http.StatusNotImplemented:
				missing++
				if method != "HEAD" && w.Body.String() != `{"message":"skiff: `+endpoint+` is not there yet"}`+"\n" {
					t.Errorf("%s %s: %s", method, path, w.Body)
				}
			}
		}
	}
	if missing == 0 || missing > 3*75 {
		t.Errorf("%d of %d endpoints are missing", missing/3, len(endpoints))
	}
	for _, wrong := range []string{
		"/", "/foo", "/v1.41/foo", "/containers", "/containers/", "/containers/x/foo", "/v1.41", "/v1.41/",
		"/images//json", "/vx/info", "/v/info", "/v1.99/foo", "//info",
	} {
		if w := ask(t, f, "GET", wrong, ""); w.Code != 404 || w.Body.String() != `{"message":"page not found"}`+"\n" {
			t.Errorf("GET %s: %d %s", wrong, w.Code, w.Body)
		}
	}
	if w := ask(t, f, "PATCH", "/containers/json", ""); w.Code != 404 {
		t.Errorf("PATCH: %d", w.Code)
	}
}

func TestRouteNames(t *testing.T) {
	s := newServer(&fake{})
	for _, c := range []struct{ method, path, pattern, name string }{
		{"GET", "/containers/json", "/containers/json", ""},
		{"GET", "/containers/json/json", "/containers/{name}/json", "json"},
		{"GET", "/containers/a/attach/ws", "/containers/{name}/attach/ws", "a"},
		{"POST", "/containers/a/attach", "/containers/{name}/attach", "a"},
		{"GET", "/images/docker.io/library/x:1/json", "/images/{name}/json", "docker.io/library/x:1"},
		{"GET", "/images/get", "/images/get", ""},
		{"GET", "/images/a/get", "/images/{name}/get", "a"},
		{"DELETE", "/images/host:5000/a/b@sha256:12", "/images/{name}", "host:5000/a/b@sha256:12"},
		{"DELETE", "/containers/x", "/containers/{name}", "x"},
	} {
		r, name := s.table.find(c.method, c.path)
		if r == nil || r.pattern != c.pattern || name != c.name {
			t.Errorf("%s %s: %v %q", c.method, c.path, r, name)
		}
	}
}

func TestNegotiation(t *testing.T) {
	old := "client version %s is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version"
	young := "client version %s is too new. Maximum supported API version is 1.56"
	for _, c := range []struct {
		version string
		want    Version
		refusal string
	}{
		{"", 56, ""},
		{"1.40", 40, ""},
		{"1.41", 41, ""},
		{"1.50", 50, ""},
		{"1.56", 56, ""},
		{"1.41.7", 41, ""},
		{"1.39", 0, old},
		{"1.57", 0, young},
		{"1.400", 0, young},
		{"1.99999999999999999999", 0, young},
		{"2.0", 0, young},
		{"1", 0, old},
		{"0.50", 0, old},
		{".", 0, old},
		{"1..", 0, old},
	} {
		got, err := negotiate(c.version)
		if got != c.want {
			t.Errorf("%q: %d, want %d", c.version, got, c.want)
		}
		if want := strings.Replace(c.refusal, "%s", c.version, 1); want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%q: %v, want %s", c.version, err, want)
		}
		if c.version == "" {
			continue
		}
		w := ask(t, &fake{}, "GET", "/v"+c.version+"/_ping", "")
		if (w.Code == 200) != (c.refusal == "") || w.Code != 200 && w.Code != 400 {
			t.Errorf("%q: status %d", c.version, w.Code)
		}
		if w.Header().Get("Api-Version") != "1.56" || w.Header().Get("Ostype") != "linux" || w.Header().Get("Server") != "Docker/test (linux)" {
			t.Errorf("%q: headers %v", c.version, w.Header())
		}
	}
}

func TestPing(t *testing.T) {
	for _, method := range []string{"GET", "HEAD"} {
		w := ask(t, &fake{}, method, "/_ping", "")
		want := map[string]string{"GET": "OK", "HEAD": ""}[method]
		if w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %q", method, w.Code, w.Body)
		}
		for key, value := range map[string]string{
			"Api-Version": "1.56", "Docker-Experimental": "false", "Swarm": "inactive", "Pragma": "no-cache",
			"Cache-Control": "no-cache, no-store, must-revalidate", "Builder-Version": "",
		} {
			if got := w.Header().Get(key); got != value {
				t.Errorf("%s: %s is %q", method, key, got)
			}
		}
	}
}

func TestErrorsBecomeStatuses(t *testing.T) {
	for class, status := range map[errs.Class]int{
		errs.Invalid: 400, errs.Unauthorized: 401, errs.Forbidden: 403, errs.NotFound: 404, errs.Conflict: 409,
		errs.NotModified: 304, errs.NotImplemented: 501, errs.Unavailable: 503, errs.Exhausted: 507, errs.Internal: 500,
	} {
		w := ask(t, &fake{err: errs.New(class, "text <of> %d", status)}, "POST", "/containers/x/start", "")
		if w.Code != status {
			t.Errorf("class %d: status %d", class, w.Code)
		}
		var body struct{ Message string }
		if status == 304 {
			if w.Body.Len() > 0 {
				t.Errorf("304 with a body: %s", w.Body)
			}
			continue
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || !strings.HasPrefix(body.Message, "text <of> ") {
			t.Errorf("class %d: %s", class, w.Body)
		}
		if w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("class %d: %v", class, w.Header())
		}
	}
	if w := ask(t, &fake{err: errors.New("plain")}, "GET", "/info", ""); w.Code != 500 {
		t.Errorf("plain error: %d", w.Code)
	}
}

func TestPanicIsA500(t *testing.T) {
	w := ask(t, &fake{panics: true}, "GET", "/containers/json", "")
	if w.Code != 500 || !strings.Contains(w.Body.String(), "internal error while serving GET /containers/json") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestStrictBodies(t *testing.T) {
	const create = "/containers/create"
	for _, c := range []struct {
		path, body, contentType string
		status                  int
		text                    string
	}{
		{create, `{"Image":"a"}`, "application/json", 201, ""},
		{create, `{"Image":"a"}`, "application/json; charset=utf-8", 201, ""},
		{create, `{"Image":"a"}  ` + "\n", "application/json", 201, ""},
		{create, `{"Cmd":["a"]}`, "application/json", 201, ""},
		{create, `{"Image":"a"}`, "text/plain", 400, "unsupported Content-Type header (text/plain): must be 'application/json'"},
		{create, `{"Image":"a"}`, "", 400, "unsupported Content-Type header (): must be 'application/json'"},
		{create, `{"Image":"a"}{}`, "application/json", 400, "unexpected content after JSON"},
		{create, `{"Image":"a"} x`, "application/json", 400, "unexpected content after JSON"},
		{create, ` `, "application/json", 400, "invalid JSON: got EOF while reading request body"},
		{create, `{"Image":`, "application/json", 400, "invalid JSON: unexpected EOF"},
		{create, `{"Image":7}`, "application/json", 400, "invalid JSON: json: cannot unmarshal number"},
		{create, `{}`, "application/json", 400, "config cannot be empty in order to create a container"},
		{create, `null`, "application/json", 400, "config cannot be empty in order to create a container"},
		{create, `{"Image":"` + strings.Repeat("x", maxBody) + `"}`, "application/json", 413, "too large"},
		{"/containers/x/exec", `{"Cmd":[]}`, "application/json", 400, "No exec command specified"},
		{"/containers/x/exec", `{"Cmd":["a"]}`, "application/json", 201, ""},
		{"/containers/x/start", `{"Binds":["/a:/b"]}`, "application/json", 400, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"},
		{"/containers/x/start", `{}`, "application/json", 204, ""},
	} {
		w := ask(t, &fake{}, "POST", c.path, c.body, "Content-Type", c.contentType)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) {
			body := w.Body.String()
			t.Errorf("%s %.40s: %d %.200s, want %d %s", c.path, c.body, w.Code, body, c.status, c.text)
		}
	}
	if w := ask(t, &fake{}, "GET", "/containers/json?a=%zz", ""); w.Code != 400 {
		t.Errorf("malformed query: %d", w.Code)
	}
}
