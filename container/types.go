package container

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CreateOptions describe a container to be made. The Engine API's structures are taken as they came.
type CreateOptions struct {
	Name             string // "" : a random name is given
	Config           *container.Config
	HostConfig       *container.HostConfig
	NetworkingConfig *network.NetworkingConfig
	Platform         *ocispec.Platform
}

// StopOptions say how a container is asked to end.
type StopOptions struct {
	Signal  string // "" : the container's stop signal
	Timeout *int   // seconds until SIGKILL; nil: the container's or 10; negative: for ever
}

// RemoveOptions say how a container is removed.
type RemoveOptions struct {
	Force         bool // kill it first
	RemoveVolumes bool
	RemoveLink    bool
}

// ListOptions select containers.
type ListOptions struct {
	All     bool
	Limit   int // the newest n, running or not; <= 0: no limit
	Size    bool
	Filters map[string][]string // validated by the manager
}

// WaitCondition is when Wait ends, as in the Engine API: "not-running" (default), "next-exit" or "removed".
type WaitCondition string

// WaitResult is the end of a container.
type WaitResult struct {
	StatusCode int64
	Err        error // the wait itself failed, or the container could not be started
}

// AttachOptions select the streams of an attach.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Stream                bool // live output (and input)
	Logs                  bool // what was logged until now, first
	DetachKeys            string
}

// Session is an attach or an exec, ready to be run over a connection. The caller checks it for errors before it answers
// the request, so that a refusal can still be an HTTP status.
type Session interface {
	// TTY says that the output is raw, not framed.
	TTY() bool
	// Run copies until the process ended, the client left (in and out fail) or detached by its keys, or ctx ended. Output
	// comes framed as stdcopy (8-byte headers) unless TTY. End of in closes the process's stdin if the container's StdinOnce
	// (attach) says so, or always (exec). A detach by keys is reported as ErrDetached. Run is called once.
	Run(ctx context.Context, in io.Reader, out io.Writer) error
	// Close gives the session up; needed if Run is never called.
	Close() error
}

// LogOptions select log lines.
type LogOptions struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: open
	Timestamps     bool      // RFC3339Nano and a blank before each line
	Details        bool      // attributes before each line
	Follow         bool
	Tail           int // last n lines; < 0: all
}

// ExecStartOptions say how an exec is started.
type ExecStartOptions struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint // height, width
	Stdin       bool     // false: the client sends none
}
