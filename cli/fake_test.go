package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeEngine answers like an engine whose containers are named after what they do: "exit-3" ends with status 3, "absent" is
// not there, "echo" writes its input, "fail-…" does not start.
type fakeEngine struct {
	path string // of the socket

	mu    sync.Mutex
	calls []string
	body  json.RawMessage // of the last create
	pulls int             // images that were pulled
	start map[string]chan struct{}
}

func newFakeEngine(dir string) (*fakeEngine, func(), error) {
	f := &fakeEngine{path: filepath.Join(dir, "engine.sock"), start: map[string]chan struct{}{}}
	l, err := net.Listen("unix", f.path)
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	handle := func(pattern string, h func(w http.ResponseWriter, r *http.Request)) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /{version}"+path, func(w http.ResponseWriter, r *http.Request) {
			_, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.RequestURI(), "/"), "/")
			f.mu.Lock()
			f.calls = append(f.calls, r.Method+" /"+rest)
			f.mu.Unlock()
			w.Header().Set("Api-Version", "1.56")
			h(w, r)
		})
	}
	mux.HandleFunc("GET /_ping", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Api-Version", "1.56") })
	f.containers(handle)
	f.images(handle)
	f.system(handle)
	s := httptest.NewUnstartedServer(mux)
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	return f, s.Close, nil
}

func sendJSON(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	b, _ := json.Marshal(map[string]string{"message": fmt.Sprintf(format, args...)})
	sendJSON(w, status, string(b))
}

// exitCode is what a container of this name ends with.
func exitCode(name string) int {
	n := 0
	_, _ = fmt.Sscanf(name, "exit-%d", &n)
	return n
}

func (f *fakeEngine) started(id string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.start[id] == nil {
		f.start[id] = make(chan struct{})
	}
	return f.start[id]
}

// letRun lets a container run.
func (f *fakeEngine) letRun(id string) {
	c := f.started(id)
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-c:
	default:
		close(c)
	}
}

type handleFunc func(pattern string, h func(w http.ResponseWriter, r *http.Request))

func (f *fakeEngine) containers(handle handleFunc) {
	handle("POST /containers/create", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var c struct{ Image string }
		_ = json.Unmarshal(b, &c)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.body = b
		if strings.HasPrefix(c.Image, "absent") && f.pulls == 0 {
			refuse(w, 404, "No such image: %s", c.Image)
			return
		}
		name := r.URL.Query().Get("name")
		if name == "taken" {
			refuse(w, 409, `Conflict. The container name "/taken" is already in use`)
			return
		}
		warnings := "[]"
		if name == "warned" {
			warnings = `["Your kernel does not support swap limit capabilities"]`
		}
		id := name
		if id == "" {
			id = strings.Repeat("0123456789abcdef", 4)
		}
		sendJSON(w, 201, fmt.Sprintf(`{"Id":%q,"Warnings":%s}`, id, warnings))
	})
	handle("POST /containers/{id}/start", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		if reason, bad := strings.CutPrefix(id, "fail-"); bad {
			text := map[string]string{
				"missing": `exec: "x": executable file not found in $PATH`, "denied": `exec: "/x": permission denied`, "other": "no space left on device",
			}[reason]
			f.letRun(id)
			refuse(w, 400, "failed to start: %s", text)
			return
		}
		if id == "absent" {
			refuse(w, 404, "No such container: absent")
			return
		}
		if id == "started" {
			w.WriteHeader(304)
			return
		}
		f.letRun(id)
		w.WriteHeader(204)
	})
	handle("POST /containers/{id}/wait", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		if id == "absent" {
			refuse(w, 404, "No such container: absent")
			return
		}
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		if r.URL.Query().Get("condition") != "" {
			<-f.started(id)
		}
		fmt.Fprintf(w, `{"StatusCode":%d}`, exitCode(id))
	})
	handle("POST /containers/{id}/attach", f.attach)
	handle("POST /containers/{id}/resize", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(200) })
	for _, verb := range []string{"stop", "restart", "kill"} {
		handle("POST /containers/{id}/"+verb, func(w http.ResponseWriter, r *http.Request) {
			if r.PathValue("id") == "absent" {
				refuse(w, 404, "No such container: absent")
				return
			}
			w.WriteHeader(204)
		})
	}
	handle("DELETE /containers/{id}", func(w http.ResponseWriter, r *http.Request) {
		switch r.PathValue("id") {
		case "absent":
			refuse(w, 404, "No such container: absent")
		case "running":
			refuse(w, 409, "cannot remove container \"running\": container is running: stop the container before removing or force remove")
		default:
			w.WriteHeader(204)
		}
	})
	handle("GET /containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		if id == "absent" || strings.HasPrefix(id, "image") {
			refuse(w, 404, "No such container: %s", id)
			return
		}
		sendJSON(w, 200, fmt.Sprintf(`{"Id":%q,"Created":"2026-01-02T03:04:05Z","Name":"/%s","State":{"Status":"running","Running":%v,"Pid":7,"ExitCode":0},`+
			`"Config":{"Tty":false,"OpenStdin":true,"Image":"a<b","Labels":{"b":"2","a":"1"}},"HostConfig":{"Binds":null,"CpuShares":2,"NanoCpus":0},"Mounts":[]}`, id, id, id != "stopped"))
	})
	handle("GET /containers/json", func(w http.ResponseWriter, r *http.Request) { sendJSON(w, 200, psJSON) })
	handle("GET /containers/{id}/top", func(w http.ResponseWriter, r *http.Request) {
		sendJSON(w, 200, `{"Titles":["PID","CMD"],"Processes":[["1","sleep 1000"],["22","a long command line"]]}`)
	})
	handle("GET /containers/{id}/logs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
		_, _ = w.Write(frame(1, "to stdout\n"))
		_, _ = w.Write(frame(2, "to stderr\n"))
	})
	handle("POST /containers/{id}/exec", func(w http.ResponseWriter, r *http.Request) {
		var b struct{ Cmd []string }
		_ = json.NewDecoder(r.Body).Decode(&b)
		if strings.HasPrefix(b.Cmd[0], "once-") && r.Header.Get("Skiff-Exec") == "start" {
			nc, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer nc.Close()
			fmt.Fprintf(nc, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nSkiff-Exec-Id: %s\r\n\r\n", b.Cmd[0])
			_, _ = nc.Write(append(frame(1, "at once\n"), frame(4, strconv.Itoa(exitCode(strings.TrimPrefix(b.Cmd[0], "once-"))))...))
			return
		}
		sendJSON(w, 201, fmt.Sprintf(`{"Id":%q}`, b.Cmd[0]))
	})
	handle("POST /exec/{id}/start", func(w http.ResponseWriter, r *http.Request) {
		var b struct{ Detach bool }
		_ = json.NewDecoder(r.Body).Decode(&b)
		switch id := r.PathValue("id"); {
		case id == "missing":
			refuse(w, 400, `OCI runtime exec failed: exec: "missing": executable file not found in $PATH`)
		case b.Detach:
			w.WriteHeader(200)
		default:
			f.attach(w, r)
		}
	})
	handle("GET /exec/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		sendJSON(w, 200, fmt.Sprintf(`{"Running":false,"ExitCode":%d}`, exitCode(r.PathValue("id"))))
	})
}

func frame(stream byte, text string) []byte {
	return append([]byte{stream, 0, 0, 0, 0, 0, 0, byte(len(text))}, text...)
}

// attach upgrades; an "echo" sends its input back, others write a line to each stream once they run.
func (f *fakeEngine) attach(w http.ResponseWriter, r *http.Request) {
	nc, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer nc.Close()
	id := r.PathValue("id")
	kind := "multiplexed"
	if id == "tty" {
		kind = "raw"
	}
	fmt.Fprintf(nc, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.%s-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: 1.56\r\n\r\n", kind)
	if id == "tty" {
		fmt.Fprint(nc, "ready> ")
		_, _ = io.Copy(nc, rw)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/attach") && !strings.HasPrefix(id, "running") {
		<-f.started(id)
	}
	if strings.HasPrefix(id, "fail-") {
		return
	}
	if strings.HasPrefix(id, "echo") {
		in, _ := io.ReadAll(rw)
		_, _ = nc.Write(frame(1, string(in)))
		return
	}
	_, _ = nc.Write(append(frame(1, "out of "+id+"\n"), frame(2, "err of "+id+"\n")...))
}

func (f *fakeEngine) images(handle handleFunc) {
	handle("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("fromSrc") != "" {
			n, _ := io.Copy(io.Discard, r.Body)
			sendJSON(w, 200, fmt.Sprintf(`{"status":"sha256:%d"}`, n))
			return
		}
		name := r.URL.Query().Get("fromImage")
		if name == "denied" {
			refuse(w, 404, "pull access denied for denied, repository does not exist or may require 'docker login'")
			return
		}
		f.mu.Lock()
		f.pulls++
		f.mu.Unlock()
		w.WriteHeader(200)
		lines := strings.ReplaceAll(pullStream, "NAME", name)
		if name == "broken" {
			lines = `{"status":"Pulling from library/broken","id":"latest"}` + "\n" + `{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}` + "\n"
		}
		_, _ = io.WriteString(w, lines)
	})
	handle("GET /images/json", func(w http.ResponseWriter, r *http.Request) { sendJSON(w, 200, imagesJSON) })
	handle("GET /images/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		if id := r.PathValue("id"); id != "image" {
			refuse(w, 404, "No such image: %s", id)
			return
		}
		sendJSON(w, 200, `{"Id":"sha256:1234","RepoTags":["image:latest"],"Os":"linux","Config":{"Cmd":["sh"]}}`)
	})
	handle("GET /images/{id}/history", func(w http.ResponseWriter, r *http.Request) {
		sendJSON(w, 200, `[{"Id":"sha256:0123456789abcdef","Created":0,"CreatedBy":"/bin/sh -c #(nop) a step with a very long command line indeed","Size":1234567,"Comment":"c"},{"Id":"<missing>","Created":0,"CreatedBy":"x","Size":0}]`)
	})
	handle("POST /images/{id}/tag", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201) })
	handle("DELETE /images/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id := r.PathValue("id"); id != "image" {
			refuse(w, 404, "No such image: %s", id)
			return
		}
		sendJSON(w, 200, `[{"Untagged":"image:latest"},{"Deleted":"sha256:1234"}]`)
	})
	handle("POST /images/load", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		sendJSON(w, 200, fmt.Sprintf("{\"stream\":\"Loaded image: of %d bytes\\n\"}", n))
	})
	handle("GET /images/get", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "tar of "+strings.Join(r.URL.Query()["names"], ","))
	})
}

func (f *fakeEngine) system(handle handleFunc) {
	handle("GET /version", func(w http.ResponseWriter, r *http.Request) {
		sendJSON(w, 200, `{"Platform":{"Name":"skiff"},"Version":"9","ApiVersion":"1.56","MinAPIVersion":"1.40","Os":"linux","Arch":"amd64","Components":[{"Name":"Engine","Version":"9","Details":{"ApiVersion":"1.56","MinAPIVersion":"1.40","GoVersion":"go1","GitCommit":"c","Os":"linux","Arch":"amd64","Experimental":"false"}}]}`)
	})
	handle("GET /info", func(w http.ResponseWriter, r *http.Request) {
		sendJSON(w, 200, `{"ID":"i","Containers":3,"ContainersRunning":1,"Driver":"overlay","NCPU":2,"MemTotal":1073741824,"Plugins":{"Volume":["local"],"Network":["bridge"],"Log":["json-file"]},"SecurityOptions":["name=seccomp,profile=builtin"],"Warnings":["WARNING: No swap limit support"]}`)
	})
	handle("GET /system/df", func(w http.ResponseWriter, r *http.Request) {
		sendJSON(w, 200, `{"ImageUsage":{"ActiveCount":1,"TotalCount":2,"Reclaimable":500000,"TotalSize":2000000},"ContainerUsage":{"TotalCount":1,"TotalSize":10}}`)
	})
	handle("GET /events", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"name":"n","image":"i"}},"scope":"local","time":1,"timeNano":1000000001}`+"\n")
	})
}

const pullStream = `{"status":"Pulling from library/NAME","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Pulling fs layer","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Downloading","progressDetail":{"current":500000,"total":2000000},"id":"aaaaaaaaaaaa"}
{"status":"Downloading","progressDetail":{"current":2000000,"total":2000000},"id":"aaaaaaaaaaaa"}
{"status":"Download complete","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Extracting","progressDetail":{"current":1000000,"total":2000000},"id":"aaaaaaaaaaaa"}
{"status":"Pull complete","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Already exists","progressDetail":{},"id":"bbbbbbbbbbbb"}
{"status":"Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111"}
{"status":"Status: Downloaded newer image for NAME:latest"}
`

const psJSON = `[{"Id":"4f66ad9a0b2e4f66ad9a0b2e4f66ad9a0b2e4f66ad9a0b2e4f66ad9a0b2eabcd","Names":["/web","/other/link"],"Image":"nginx:1","ImageID":"sha256:1234","Command":"/docker-entrypoint.sh nginx -g 'daemon off;'","Created":1,` +
	`"Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"},{"PrivatePort":444,"Type":"tcp"}],` +
	`"Labels":{"b":"2","a":"1"},"State":"running","Status":"Up 2 hours (healthy)","NetworkSettings":{"Networks":{"bridge":{}}},"Mounts":[{"Type":"volume","Name":"a-volume-with-a-long-name","Driver":"local"}]},` +
	`{"Id":"aaaaaaaaaaaabbbb","Names":["/old"],"Image":"sha256:1234","ImageID":"sha256:1234","Command":"sh","Created":1,"Ports":[],"Labels":{},"State":"exited","Status":"Exited (137) 5 minutes ago","Mounts":[]}]`

const imagesJSON = `[{"Id":"sha256:0123456789abcdef","RepoTags":["nginx:1","nginx:latest"],"RepoDigests":["nginx@sha256:1111111111111111111111111111111111111111111111111111111111111111"],"Created":0,"Size":187654321,"SharedSize":-1,"Containers":-1},` +
	`{"Id":"sha256:fedcba9876543210","RepoTags":[],"RepoDigests":[],"Created":0,"Size":10,"SharedSize":-1,"Containers":-1}]`

// harness runs commands in this process against a fake engine.
type harness struct {
	t      *testing.T
	engine *fakeEngine
	env    map[string]string
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	f, stop, err := newFakeEngine(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return &harness{t: t, engine: f, env: map[string]string{"DOCKER_HOST": "unix://" + f.path, "DOCKER_CONFIG": t.TempDir(), "SKIFF_NO_AUTOSTART": "1"}}
}

type result struct {
	out, err string
	code     int
}

func (h *harness) run(stdin string, args ...string) result {
	h.t.Helper()
	in, err := os.CreateTemp(h.t.TempDir(), "in")
	if err != nil {
		h.t.Fatal(err)
	}
	defer in.Close()
	_, _ = in.WriteString(stdin)
	_, _ = in.Seek(0, 0)
	var out, errs bytes.Buffer
	app := &App{In: in, Out: &out, Err: &errs, Getenv: func(k string) string { return h.env[k] }}
	done := make(chan int, 1)
	go func() { done <- app.Run(h.t.Context(), args) }()
	select {
	case code := <-done:
		return result{out.String(), errs.String(), code}
	case <-time.After(20 * time.Second):
		h.t.Fatalf("%v hangs", args)
		return result{}
	}
}

// calls returns what the engine was asked for since the last time.
func (f *fakeEngine) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls
	f.calls = nil
	return c
}
