package container

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"skiff/internal/errs"
	"skiff/keeper"
)

const (
	// An exec that has ended can be inspected for execMemory, unless execsKept newer ones of its container push it out.
	execMemory = 5 * time.Minute
	execsKept  = 200
	// resizePatience is how long a resize waits for an exec that is being started.
	resizePatience = 10 * time.Second
)

// exec is a further process in a container. Its lock is held for moments only.
type exec struct {
	id        string
	container string
	o         *object
	req       api.ExecCreateRequest
	keys      []byte
	created   time.Time
	started   chan struct{} // closed when it runs, or failed to
	ended     chan struct{} // closed when its end was noted

	mu       sync.Mutex
	claimed  bool // somebody starts it
	running  bool
	pid      int
	exitCode *int
	endedAt  time.Time
	stdin    *os.File
	master   *os.File
}

func newExec(id string, o *object, req api.ExecCreateRequest) *exec {
	return &exec{
		id: id, container: o.id, o: o, req: req, created: time.Now(),
		started: make(chan struct{}), ended: make(chan struct{}),
	}
}

// text is how events show the command.
func (e *exec) text() string { return strings.Join(e.req.Cmd, " ") }

// ExecCreate implements api.Execs.
func (m *Manager) ExecCreate(_ context.Context, name string, req api.ExecCreateRequest) (string, error) {
	o, err := m.index.find(name)
	if err != nil {
		return "", err
	}
	if err := canExec(o); err != nil {
		return "", err
	}
	keys, err := parseDetachKeys(req.DetachKeys)
	if err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", errs.New(errs.Invalid, "No exec command specified")
	}
	if err := checkEnv(req.Env); err != nil {
		return "", err
	}
	e := newExec(newID(), o, req)
	e.keys = keys
	m.addExec(o, e)
	m.publish(o, events.ActionExecCreate+": "+events.Action(e.text()), "execID", e.id)
	return e.id, nil
}

// canExec tells why no process can be started in a container now.
func canExec(o *object) error {
	switch s := o.status(); {
	case s.Phase == api.StatePaused:
		return errs.New(errs.Conflict, "container %s is paused, unpause the container before exec", o.id)
	case !s.alive():
		return errs.New(errs.Conflict, "container %s is not running", o.id)
	}
	return nil
}

// addExec registers an exec, and forgets those of the container that ended long ago or were never started.
func (m *Manager) addExec(o *object, e *exec) {
	old := time.Now().Add(-execMemory)
	var drop []string
	o.mu.Lock()
	excess := len(o.execs) - execsKept
	o.execs = slices.DeleteFunc(o.execs, func(x *exec) bool {
		if !x.forgettable(old) && (excess <= 0 || !x.over()) {
			return false
		}
		excess--
		drop = append(drop, x.id)
		return true
	})
	o.execs = append(o.execs, e)
	o.mu.Unlock()
	m.index.removeExecs(drop)
	m.index.addExec(e)
	for _, id := range drop {
		m.warn("drop the record of an exec", o.id, m.store.dropExec(id))
	}
}

func (e *exec) forgettable(before time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exitCode != nil {
		return e.endedAt.Before(before)
	}
	return !e.claimed && e.created.Before(before)
}

// over says that the exec has ended.
func (e *exec) over() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.exitCode != nil
}

// dropExecs forgets all execs of a container that was removed.
func (m *Manager) dropExecs(o *object) {
	o.mu.Lock()
	execs := o.execs
	o.execs = nil
	o.mu.Unlock()
	m.index.removeExecs(execIDs(execs))
}

func execIDs(execs []*exec) []string {
	ids := make([]string, 0, len(execs))
	for _, e := range execs {
		ids = append(ids, e.id)
	}
	return ids
}

// startedExecs are the ids of the container's execs that have a record.
func (o *object) startedExecs() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return execIDs(o.execs)
}

// claim makes the caller the one who starts the exec.
func (e *exec) claim() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.exitCode != nil:
		return errs.New(errs.Conflict, "Error: Exec command %s has already run", e.id)
	case e.claimed:
		return errs.New(errs.Conflict, "Error: Exec command %s is already running", e.id)
	}
	e.claimed = true
	return nil
}

func (e *exec) unclaim() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.claimed = false
}

// launchExec starts the process. t is the client's side, nil if there is none.
func (m *Manager) launchExec(ctx context.Context, e *exec, t *tap, size *[2]uint) error {
	l := e.o.handles()
	if err := canExec(e.o); err != nil {
		return m.execFailed(e, err)
	}
	if l == nil {
		return m.execFailed(e, errs.New(errs.Conflict, "container %s is not running", e.o.id))
	}
	if size == nil {
		if size = e.req.ConsoleSize; size == nil {
			size = &[2]uint{}
		}
	}
	stdin, stdout, stderr := false, false, false
	if t != nil {
		stdin, stdout, stderr = e.req.AttachStdin, t.stdout, t.stderr
	}
	s, err := m.execStreams(e, l, stdin, stdout, stderr, *size)
	if err != nil {
		return m.execFailed(e, err)
	}
	defer s.close()
	p, err := m.compileAndLaunch(ctx, e, t, l, s)
	if err != nil {
		if aerr := canExec(e.o); aerr != nil {
			err = aerr // it ended meanwhile
		}
		return m.execFailed(e, err)
	}
	closeFile(p.PIDFD)
	e.runs(p, s)
	d := e.o.def()
	m.warn("record an exec", d.ID, m.store.exec(e.id, execRecord{Container: d.ID, Request: e.req}))
	m.publish(e.o, events.ActionExecStart+": "+events.Action(e.text()), "execID", e.id)
	close(e.started)
	return nil
}

func (m *Manager) execStreams(e *exec, l *live, stdin, stdout, stderr bool, size [2]uint) (*streams, error) {
	if !e.req.Tty {
		return pipeStreams(stdin, stdout, stderr)
	}
	t, err := m.cfg.Runtime.ExecTerminal(l.pid, size[0], size[1])
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	return terminalStreams(t, stdin)
}

func (m *Manager) compileAndLaunch(ctx context.Context, e *exec, t *tap, l *live, s *streams) (keeper.Process, error) {
	d := e.o.def()
	program, err := m.cfg.Runtime.Exec(ctx, ExecProcess{
		ContainerID: d.ID, Config: d.Config, HostConfig: d.HostConfig, Request: e.req,
		PID: l.pid, PIDFD: l.pidfd, Group: l.group, Stdio: s.child,
	})
	if err != nil {
		return keeper.Process{}, err
	}
	defer program.Close()
	r := keeper.LaunchRequest{
		ID: execProcessID(d.ID, e.id), Program: program.Binary, Files: program.Files,
		Stdin: s.in, Stdout: s.out, Stderr: s.err, Terminal: e.req.Tty,
	}
	if t != nil {
		if sub, ok := t.subscriber(); ok {
			r.Subscribers = []keeper.Subscriber{sub}
		}
	}
	p, err := m.cfg.Keeper.Launch(ctx, r)
	s.closeChild()
	return p, err
}

// runs notes a process that was started. It may have ended already.
func (e *exec) runs(p keeper.Process, s *streams) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.exitCode != nil {
		return
	}
	e.running, e.pid = true, p.PID
	e.stdin, e.master = s.keep()
}

// execFailed notes a start that failed.
func (m *Manager) execFailed(e *exec, err error) error {
	code, err := execError(err)
	e.mu.Lock()
	e.exitCode, e.endedAt = &code, time.Now()
	e.mu.Unlock()
	close(e.started)
	close(e.ended)
	return err
}

// execEnded takes the end of an exec's process in.
func (m *Manager) execEnded(container, id string, x keeper.Exit) {
	e, err := m.index.findExec(id)
	if err == nil && e.container == container {
		code := x.Code
		if code < 0 {
			code = codeUnknown
		}
		e.mu.Lock()
		known := e.exitCode != nil
		if !known {
			e.exitCode, e.endedAt, e.running, e.pid = &code, time.Now(), false, 0
			closeFile(e.stdin)
			if e.master != e.stdin {
				closeFile(e.master)
			}
			e.stdin, e.master = nil, nil
		}
		e.mu.Unlock()
		if !known {
			if e.o.status().alive() {
				m.warn("record the end of an exec", container, m.store.exec(id, execRecord{Container: container, Request: e.req, ExitCode: &code}))
			}
			m.publish(e.o, events.ActionExecDie, "execID", id, "exitCode", strconv.Itoa(code))
			close(e.ended)
		}
	}
	m.forgetProcess(x.ID)
}

// ExecInspect implements api.Execs.
func (m *Manager) ExecInspect(_ context.Context, id string) (api.ExecInspectResponse, error) {
	e, err := m.index.findExec(id)
	if err != nil {
		return api.ExecInspectResponse{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	privileged := e.req.Privileged
	r := api.ExecInspectResponse{
		ID: e.id, Running: e.running, ExitCode: e.exitCode, Pid: e.pid, ContainerID: e.container,
		OpenStdin: e.req.AttachStdin, OpenStdout: e.req.AttachStdout, OpenStderr: e.req.AttachStderr,
		CanRemove: e.exitCode != nil, DetachKeys: []byte(e.req.DetachKeys),
		ProcessConfig: &api.ExecProcessConfig{
			Tty: e.req.Tty, Entrypoint: e.req.Cmd[0], Arguments: e.req.Cmd[1:], Privileged: &privileged, User: e.req.User,
		},
	}
	return r, nil
}
