package api

import (
	"log/slog"
	"net/http"
	"net/http/pprof"
	"net/url"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"skiff/internal/errs"
)

// Config is what a Server is made of. Services that are nil leave their endpoints unimplemented (501).
type Config struct {
	Containers Containers
	Execs      Execs
	Images     Images
	Networks   Networks
	Events     Events
	System     System
	Login      Login
	Log        *slog.Logger // nil: slog.Default()
	// Product goes into the Server header as "Docker/<product> (linux)". Clients parse the operating system from it.
	Product string
	// CgroupV2 says that the host has cgroup v2 alone: clients before 1.41 expect another default then.
	CgroupV2 bool
	// Profiling serves /debug/pprof. It belongs behind a socket that only root can open.
	Profiling bool
}

// Server serves the Engine API. It is an http.Handler.
type Server struct {
	Config
	table      *table
	product    []string
	apiVersion []string
	buffers    sync.Pool // of *bytes.Buffer, for encoding answers
}

// New makes a server for the given services.
func New(cfg Config) *Server {
	s := &Server{
		Config:     cfg,
		table:      newTable(),
		product:    []string{"Docker/" + cfg.Product + " (" + runtime.GOOS + ")"},
		apiVersion: []string{MaxVersion.String()},
	}
	if s.Log == nil {
		s.Log = slog.Default()
	}
	s.addRoutes()
	for _, endpoint := range endpoints {
		s.table.add(endpoint, notYet(endpoint))
	}
	return s
}

var (
	osType       = []string{runtime.GOOS}
	experimental = []string{"false"}
)

// ServeHTTP serves one request of the Engine API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Request: r, ResponseWriter: w, log: s.Log, buffers: &s.buffers}
	h := w.Header()
	h["Server"] = s.product
	h["Api-Version"] = s.apiVersion
	h["Ostype"] = osType
	h["Docker-Experimental"] = experimental
	defer c.recoverPanic()
	if err := s.serve(c); err != nil {
		c.fail(err)
	}
}

func (s *Server) serve(c *call) error {
	s.Log.Debug("request", "method", c.Method, "url", c.URL)
	text, path := cutVersion(c.URL.Path)
	if s.Profiling && strings.HasPrefix(path, "/debug/pprof") {
		return profile(c, path)
	}
	r, name := s.table.find(c.Method, path)
	if r == nil {
		return errNotFound(c)
	}
	version, err := negotiate(text)
	if err != nil {
		return err
	}
	c.version, c.name = version, name
	if c.URL.RawQuery != "" {
		if c.params, err = url.ParseQuery(c.URL.RawQuery); err != nil {
			return errs.New(errs.Invalid, "malformed query: %w", err)
		}
	}
	return r.serve(c)
}

// recoverPanic turns a panic of a handler into a 500 and a log entry: one bad request must not end the others.
func (c *call) recoverPanic() {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	c.log.Error("panic while serving a request", "method", c.Method, "path", c.URL.Path, "panic", p, "stack", string(debug.Stack()))
	c.fail(errs.New(errs.Internal, "skiff: internal error while serving %s %s, see the daemon's log", c.Method, c.URL.Path))
}

// profile serves Go's profiles of the daemon.
func profile(c *call, path string) error {
	c.URL.Path = path // pprof finds the profile's name by its own prefix
	switch strings.TrimPrefix(path, "/debug/pprof/") {
	case "cmdline":
		pprof.Cmdline(c, c.Request)
	case "profile":
		pprof.Profile(c, c.Request)
	case "symbol":
		pprof.Symbol(c, c.Request)
	case "trace":
		pprof.Trace(c, c.Request)
	default:
		pprof.Index(c, c.Request)
	}
	return nil
}
