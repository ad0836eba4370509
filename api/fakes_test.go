package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/container"
	"skiff/image"
	"skiff/internal/errs"
)

// fake is all services at once. Fields hold what a test wants to see or to get.
type fake struct {
	err      error // what every method returns if set
	created  container.CreateOptions
	stopped  container.StopOptions
	attached container.AttachOptions
	exec     apicontainer.ExecCreateRequest
	exitCode *int
	execOpt  container.ExecStartOptions
	logOpt   container.LogOptions
	listOpt  container.ListOptions
	list     []apicontainer.Summary
	inspect  apicontainer.InspectResponse
	session  *fakeSession
	logs     io.ReadCloser
	tty      bool
	wait     chan container.WaitResult
	panics   bool

	images   []apiimage.Summary
	image    apiimage.InspectResponse
	networks []network.Summary
	pulled   string
	pullOpt  image.PullOptions
	messages []image.Message
	imported string
	events   chan events.Message
	match    func(events.Message) bool
}

func (f *fake) Create(_ context.Context, opt container.CreateOptions) (string, []string, error) {
	f.created = opt
	return "abc", nil, f.err
}
func (f *fake) Start(context.Context, string, string) error { return f.err }
func (f *fake) Stop(_ context.Context, _ string, opt container.StopOptions) error {
	f.stopped = opt
	return f.err
}
func (f *fake) Restart(context.Context, string, container.StopOptions) error { return f.err }
func (f *fake) Kill(context.Context, string, string) error                   { return f.err }
func (f *fake) Wait(context.Context, string, container.WaitCondition) (<-chan container.WaitResult, error) {
	return f.wait, f.err
}

func (f *fake) Attach(_ context.Context, _ string, opt container.AttachOptions) (container.Session, error) {
	f.attached = opt
	if f.err != nil {
		return nil, f.err
	}
	return f.session, nil
}
func (f *fake) Resize(context.Context, string, uint, uint) error { return f.err }
func (f *fake) Logs(_ context.Context, _ string, opt container.LogOptions) (io.ReadCloser, bool, error) {
	f.logOpt = opt
	return f.logs, f.tty, f.err
}

func (f *fake) Top(context.Context, string, string) (apicontainer.TopResponse, error) {
	return apicontainer.TopResponse{}, f.err
}
func (f *fake) Remove(context.Context, string, container.RemoveOptions) error { return f.err }
func (f *fake) List(_ context.Context, opt container.ListOptions) ([]apicontainer.Summary, error) {
	f.listOpt = opt
	if f.panics {
		panic("oh")
	}
	return f.list, f.err
}

func (f *fake) Inspect(context.Context, string, bool) (apicontainer.InspectResponse, error) {
	return f.inspect, f.err
}

func (f *fake) ExecCreate(_ context.Context, _ string, req apicontainer.ExecCreateRequest) (string, error) {
	f.exec = req
	return "e1", f.err
}

func (f *fake) ExecStart(_ context.Context, _ string, opt container.ExecStartOptions) (container.Session, error) {
	f.execOpt = opt
	if f.err != nil || opt.Detach {
		return nil, f.err
	}
	return f.session, nil
}

func (f *fake) ExecInspect(context.Context, string) (apicontainer.ExecInspectResponse, error) {
	return apicontainer.ExecInspectResponse{ID: "e1", ExitCode: f.exitCode}, f.err
}
func (f *fake) ExecResize(context.Context, string, uint, uint) error { return f.err }

func (f *fake) Subscribe(_ context.Context, _, _ time.Time, match func(events.Message) bool) <-chan events.Message {
	f.match = match
	if f.events == nil {
		f.events = make(chan events.Message)
		close(f.events)
	}
	return f.events
}
func (f *fake) Info(context.Context) (system.Info, error) { return system.Info{ID: "me"}, f.err }
func (f *fake) Version(context.Context) (system.VersionResponse, error) {
	return system.VersionResponse{Version: "1"}, f.err
}

func (f *fake) Login(context.Context, string, image.Credentials) (string, error) { return "", f.err }

// fakeImages and fakeNetworks have methods of the same names as the containers'.
type fakeImages struct{ f *fake }

func (i fakeImages) Pull(_ context.Context, ref string, opt image.PullOptions) error {
	i.f.pulled, i.f.pullOpt = ref, opt
	for _, m := range i.f.messages {
		opt.Progress(m)
	}
	return i.f.err
}

func (i fakeImages) List(context.Context, image.ListOptions) ([]apiimage.Summary, error) {
	return i.f.images, i.f.err
}

func (i fakeImages) Inspect(context.Context, string, *ocispec.Platform, bool) (apiimage.InspectResponse, error) {
	return i.f.image, i.f.err
}

func (i fakeImages) History(context.Context, string, *ocispec.Platform) ([]apiimage.HistoryResponseItem, error) {
	return nil, i.f.err
}

func (i fakeImages) Tag(_ context.Context, _, target string) error {
	i.f.pulled = target
	return i.f.err
}

func (i fakeImages) Remove(context.Context, string, image.RemoveOptions) ([]apiimage.DeleteResponse, error) {
	return nil, i.f.err
}

func (i fakeImages) Load(_ context.Context, r io.Reader, _ []ocispec.Platform, _ func(image.Message)) ([]string, error) {
	_, err := io.Copy(io.Discard, r)
	return []string{"a:latest", "sha256:12"}, errors.Join(err, i.f.err)
}

func (i fakeImages) Save(_ context.Context, refs []string, _ []ocispec.Platform, w io.Writer) error {
	if len(i.f.messages) > 0 { // an error in the middle
		_, _ = io.WriteString(w, strings.Repeat("x", 10000))
	}
	if i.f.err == nil {
		_, _ = io.WriteString(w, "tar of "+strings.Join(refs, ","))
	}
	return i.f.err
}

func (i fakeImages) Import(_ context.Context, r io.Reader, _ image.ImportOptions) (string, error) {
	b, err := io.ReadAll(r)
	i.f.imported = string(b)
	return "sha256:id", errors.Join(err, i.f.err)
}

type fakeNetworks struct{ f *fake }

func (n fakeNetworks) List(context.Context) ([]network.Summary, error) {
	return n.f.networks, n.f.err
}

func (n fakeNetworks) Inspect(context.Context, string) (network.Inspect, error) {
	return network.Inspect{}, n.f.err
}

// fakeSession runs a function.
type fakeSession struct {
	tty    bool
	run    func(ctx context.Context, in io.Reader, out io.Writer) error
	ended  chan error // gets the result of run
	closed bool
}

func (s *fakeSession) TTY() bool    { return s.tty }
func (s *fakeSession) Close() error { s.closed = true; return nil }
func (s *fakeSession) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	err := s.run(ctx, in, out)
	s.ended <- err
	return err
}

func newServer(f *fake) *Server {
	return New(Config{
		Containers: f, Execs: f, Images: fakeImages{f}, Networks: fakeNetworks{f}, Events: f, System: f, Login: f,
		Log: slog.New(slog.DiscardHandler), Product: "test",
	})
}

// ask sends one request straight to the handler.
func ask(t *testing.T, f *fake, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	newServer(f).ServeHTTP(w, r)
	return w
}

// listen serves f on a unix socket until the test ends.
func listen(t *testing.T, f *fake) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: newServer(f), ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return socket
}

var errGone = errs.New(errs.NotFound, "No such container: x")

// discardAnswer asks and throws the answer away.
func discardAnswer(h http.Handler, path string) {
	h.ServeHTTP(&nowhere{header: http.Header{}}, httptest.NewRequest(http.MethodGet, path, nil))
}

type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}
