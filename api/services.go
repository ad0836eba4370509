package api

import (
	"context"
	"io"

	apicontainer "github.com/moby/moby/api/types/container"

	"skiff/container"
)

// Containers is what the API needs of the container manager. Names are names, full ids or unique id prefixes. Errors
// carry a class of package errs.
type Containers interface {
	Create(ctx context.Context, opt container.CreateOptions) (id string, warnings []string, err error)
	Start(ctx context.Context, name string, detachKeys string) error
	Stop(ctx context.Context, name string, opt container.StopOptions) error
	Restart(ctx context.Context, name string, opt container.StopOptions) error
	Kill(ctx context.Context, name, signal string) error
	// Wait registers at once and delivers exactly one result.
	Wait(ctx context.Context, name string, cond container.WaitCondition) (<-chan container.WaitResult, error)
	Attach(ctx context.Context, name string, opt container.AttachOptions) (container.Session, error)
	Resize(ctx context.Context, name string, height, width uint) error
	// Logs returns at once; framed (or raw, if tty) lines are then read from r until it ends. The caller closes r.
	Logs(ctx context.Context, name string, opt container.LogOptions) (r io.ReadCloser, tty bool, err error)
	Top(ctx context.Context, name string, psArgs string) (apicontainer.TopResponse, error)
	Remove(ctx context.Context, name string, opt container.RemoveOptions) error
	List(ctx context.Context, opt container.ListOptions) ([]apicontainer.Summary, error)
	Inspect(ctx context.Context, name string, size bool) (apicontainer.InspectResponse, error)
}

// Execs is what the API needs for /exec.
type Execs interface {
	ExecCreate(ctx context.Context, name string, req apicontainer.ExecCreateRequest) (id string, err error)
	// ExecStart prepares the exec; the process starts in Session.Run, or at once (with a nil Session) if opt.Detach.
	ExecStart(ctx context.Context, id string, opt container.ExecStartOptions) (container.Session, error)
	ExecInspect(ctx context.Context, id string) (apicontainer.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, height, width uint) error
}
