package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"skiff/internal/errs"
)

func TestLifeEvents(t *testing.T) {
	w := newFake(t)
	id := w.make("web", false, true)
	w.end(id, 3)
	w.settled()
	res, err := w.Wait(t.Context(), "web", "")
	if err != nil {
		t.Fatal(err)
	}
	if r := <-res; r.StatusCode != 3 || r.Err != nil {
		t.Errorf("result %+v", r)
	}
	if err := w.Remove(t.Context(), "web", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	want := []events.Action{"create", "start", "die", "destroy"}
	if got := w.actions(id); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	w.settled()
	if len(w.snapshots)+len(w.groups)+len(w.networks)+len(w.procs) > 0 {
		t.Errorf("left: %v %v %v %v", w.snapshots, w.groups, w.networks, w.procs)
	}
}

func TestNamesAndLookup(t *testing.T) {
	w := newFake(t)
	id := w.make("web", false, false)
	for _, name := range []string{"web", "/web", id, id[:12], id[:5]} {
		if w.state(name).Status != api.StateCreated {
			t.Errorf("%s is not found", name)
		}
	}
	_, _, err := w.Create(t.Context(), CreateOptions{Name: "web", Config: &api.Config{Image: "busybox"}})
	want := fmt.Sprintf(`Conflict. The container name "/web" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, id)
	if !errs.Is(err, errs.Conflict) || err.Error() != want {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{"x", "-x", "a b", "ü1", "a/b"} {
		if _, _, err := w.Create(t.Context(), CreateOptions{Name: bad, Config: &api.Config{Image: "busybox"}}); !errs.Is(err, errs.Invalid) {
			t.Errorf("name %q: %v", bad, err)
		}
	}
	if _, _, err := w.Create(t.Context(), CreateOptions{Config: &api.Config{Image: "nonesuch"}}); !errs.Is(err, errs.NotFound) || err.Error() != "No such image: nonesuch" {
		t.Errorf("unknown image: %v", err)
	}
	if err := w.Start(t.Context(), "nonesuch", ""); !errs.Is(err, errs.NotFound) || err.Error() != "No such container: nonesuch" {
		t.Errorf("unknown container: %v", err)
	}
	if err := w.Rename(t.Context(), "web", "shop"); err != nil {
		t.Fatal(err)
	}
	w.make("web", false, false)
	if err := w.Rename(t.Context(), "shop", "web"); !errs.Is(err, errs.Conflict) || !strings.HasPrefix(err.Error(), "Error when allocating new name: Conflict.") {
		t.Errorf("rename to a used name: %v", err)
	}
	random := w.make("", false, false)
	in, _ := w.Inspect(t.Context(), random, false)
	if a, b, ok := strings.Cut(in.Name, "_"); !ok || len(a) < 2 || b == "" || in.Config.Hostname != random[:12] {
		t.Errorf("random name %q, hostname %q", in.Name, in.Config.Hostname)
	}
	w.restart()
	if w.state("shop").Status != api.StateCreated || w.index.get(id).def().Name != "shop" {
		t.Error("the new name did not survive")
	}
}

func TestRefusals(t *testing.T) {
	w := newFake(t)
	run := w.make("run", false, true)
	w.make("new", false, false)
	paused := w.make("paused", false, true)
	if err := w.Pause(t.Context(), "paused"); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, tc := range []struct {
		name  string
		err   error
		class errs.Class
		text  string
	}{
		{"start running", w.Start(ctx, "run", ""), errs.NotModified, ""},
		{"start paused", w.Start(ctx, "paused", ""), errs.Conflict, "cannot start a paused container, try unpause instead"},
		{"stop created", w.Stop(ctx, "new", StopOptions{}), errs.NotModified, ""},
		{"kill created", w.Kill(ctx, "new", "TERM"), errs.Conflict, "cannot kill container: new: container " + w.index.names["new"] + " is not running"},
		{"kill nonsense", w.Kill(ctx, "run", "NONSENSE"), errs.Invalid, "invalid signal: NONSENSE"},
		{"remove running", w.Remove(ctx, "run", RemoveOptions{}), errs.Conflict, `cannot remove container "/run": container is running: stop the container before removing or force remove`},
		{"remove paused", w.Remove(ctx, "paused", RemoveOptions{}), errs.Conflict, `cannot remove container "/paused": container is paused and must be unpaused first`},
		{"pause paused", w.Pause(ctx, "paused"), errs.Conflict, "container " + paused + " is already paused"},
		{"unpause running", w.Unpause(ctx, "run"), errs.Conflict, "container " + run + " is not paused"},
		{"bad detach keys", w.Start(ctx, "new", "ctrl-ü"), errs.Invalid, "Invalid detach keys"},
	} {
		if !errs.Is(tc.err, tc.class) || !strings.Contains(tc.err.Error(), tc.text) {
			t.Errorf("%s: %v (class %v)", tc.name, tc.err, errs.Of(tc.err))
		}
	}
	for _, tc := range []struct {
		host api.HostConfig
		cls  errs.Class
		text string
	}{
		{api.HostConfig{RestartPolicy: api.RestartPolicy{Name: "always"}}, errs.NotImplemented, `restart policy "always"`},
		{api.HostConfig{RestartPolicy: api.RestartPolicy{Name: "always"}, AutoRemove: true}, errs.Invalid, "can't create 'AutoRemove' container with restart policy"},
		{api.HostConfig{RestartPolicy: api.RestartPolicy{Name: "sometimes"}}, errs.Invalid, "unknown policy 'sometimes'"},
		{api.HostConfig{LogConfig: api.LogConfig{Type: "nonesuch"}}, errs.Invalid, "logger: no log driver named 'nonesuch' is registered"},
		{api.HostConfig{LogConfig: api.LogConfig{Type: "syslog"}}, errs.NotImplemented, "log driver syslog"},
		{api.HostConfig{LogConfig: api.LogConfig{Config: map[string]string{"foo": "1"}}}, errs.Invalid, "unknown log opt 'foo' for json-file log driver"},
		{api.HostConfig{LogConfig: api.LogConfig{Config: map[string]string{"max-file": "0"}}}, errs.Invalid, "max-file cannot be less than 1"},
		{api.HostConfig{NetworkMode: "container:nonesuch"}, errs.NotFound, "No such container: nonesuch"},
		{api.HostConfig{Links: []string{"a:b"}}, errs.NotImplemented, "Links"},
		{api.HostConfig{Runtime: "runc"}, errs.Invalid, "unknown or invalid runtime name: runc"},
		{api.HostConfig{ExtraHosts: []string{"a"}}, errs.Invalid, `bad format for add-host: "a"`},
	} {
		_, _, err := w.Create(ctx, CreateOptions{Config: &api.Config{Image: "busybox"}, HostConfig: &tc.host})
		if !errs.Is(err, tc.cls) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%+v: %v", tc.text, err)
		}
	}
	w.obeys = func(unix.Signal) (int, bool) { return 137, true }
}

func TestFailedStartIsUndone(t *testing.T) {
	for name, breakIt := range map[string]func(*world){
		"network": func(w *world) { w.netErr = errs.New(errs.Conflict, "port is taken") },
		"mount":   func(w *world) { w.mountErr = errors.New("no overlayfs") },
		"launch":  func(w *world) { w.launchErr = errors.New("no process") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newFake(t)
			breakIt(w)
			id := w.make("", false, false)
			err := w.Start(t.Context(), id, "")
			if err == nil {
				t.Fatal("no error")
			}
			if s := w.state(id); s.Status != api.StateCreated || s.ExitCode != 128 || s.Error != err.Error() {
				t.Errorf("state %+v", s)
			}
			runs := 0
			w.store.volatile.runs.Each(func(string, run) error { runs++; return nil })
			if len(w.networks)+len(w.groups)+len(w.procs)+runs > 0 {
				t.Errorf("left: %v %v %v, %d records", w.networks, w.groups, w.procs, runs)
			}
			w.netErr, w.mountErr, w.launchErr = nil, nil, nil
			if err := w.Start(t.Context(), id, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWaitConditions(t *testing.T) {
	w := newFake(t)
	id := w.make("", false, false)
	wait := func(cond WaitCondition) <-chan WaitResult {
		ch, err := w.Wait(t.Context(), id, cond)
		if err != nil {
			t.Fatal(err)
		}
		return ch
	}
	open := func(what string, ch <-chan WaitResult) {
		t.Helper()
		select {
		case r := <-ch:
			t.Errorf("%s ended with %+v", what, r)
		default:
		}
	}
	done := func(what string, ch <-chan WaitResult, code int64) {
		t.Helper()
		select {
		case r := <-ch:
			if r.StatusCode != code {
				t.Errorf("%s: %+v, want %d", what, r, code)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s does not end", what)
		}
	}
	done("not-running of a created container", wait(WaitNotRunning), 0)
	next, removed := wait(WaitNextExit), wait(WaitRemoved)
	open("next-exit of a created container", next)
	if err := w.Start(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	not := wait("")
	open("not-running", not)
	w.end(id, 4)
	done("not-running", not, 4)
	done("next-exit", next, 4)
	open("removed", removed)
	again := wait(WaitNextExit)
	if err := w.Start(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	w.end(id, 5)
	done("next-exit of the second run", again, 5)
	last := wait(WaitNextExit)
	w.settled()
	if err := w.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	done("removed", removed, 5)
	done("next-exit at removal", last, 5)
	if _, err := w.Wait(t.Context(), id, "never"); !errs.Is(err, errs.Invalid) {
		t.Errorf("unknown condition: %v", err)
	}
	other := w.make("", false, false)
	ctx, cancel := context.WithCancel(t.Context())
	ch, err := w.Wait(ctx, other, WaitRemoved)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if r := <-ch; !errors.Is(r.Err, context.Canceled) {
		t.Errorf("cancelled wait: %+v", r)
	}
}

func TestStopTimeouts(t *testing.T) {
	seconds := func(n int) *int { return &n }
	for _, tc := range []struct {
		name       string
		configured *int
		asked      *int
		stubborn   bool
		after      time.Duration
		code       int
	}{
		{"obedient", nil, nil, false, 0, 143},
		{"default", nil, nil, true, 10 * time.Second, 137},
		{"configured", seconds(3), nil, true, 3 * time.Second, 137},
		{"asked", seconds(3), seconds(5), true, 5 * time.Second, 137},
		{"at once", nil, seconds(0), true, 0, 137},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFake(t)
				if tc.stubborn {
					w.obeys = func(s unix.Signal) (int, bool) { return 137, s == unix.SIGKILL }
				}
				id, _, err := w.Create(context.Background(), CreateOptions{Config: &api.Config{Image: "busybox", StopTimeout: tc.configured}})
				if err != nil {
					t.Fatal(err)
				}
				if err := w.Start(context.Background(), id, ""); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if err := w.Stop(context.Background(), id, StopOptions{Timeout: tc.asked}); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(start); d != tc.after {
					t.Errorf("took %v, want %v", d, tc.after)
				}
				if s := w.state(id); s.ExitCode != tc.code || s.Status != api.StateExited {
					t.Errorf("state %+v", s)
				}
				w.settled()
			})
		})
	}
}

func TestRestartKeepsAutoRemove(t *testing.T) {
	w := newFake(t)
	id := w.make("", true, true)
	first := w.state(id).Pid
	if err := w.Restart(t.Context(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := w.state(id); !s.Running || s.Pid == first {
		t.Errorf("state %+v", s)
	}
	removed, _ := w.Wait(t.Context(), id, WaitRemoved)
	w.end(id, 6)
	if r := <-removed; r.StatusCode != 6 {
		t.Errorf("result %+v", r)
	}
}

func TestForcedRemoval(t *testing.T) {
	w := newFake(t)
	for _, rm := range []bool{false, true} {
		id := w.make("", rm, true)
		if err := w.Pause(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		sess, err := w.Attach(t.Context(), w.make("", false, false), AttachOptions{Stdout: true, Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
			t.Errorf("rm=%v: %v", rm, err)
		}
		if w.state(id).Status != "none" {
			t.Error("it is still there")
		}
		o := sess.(*attachSession).o
		if err := w.Remove(t.Context(), o.id, RemoveOptions{}); err != nil {
			t.Error(err)
		}
		if err := sess.Run(t.Context(), nil, io.Discard); err != nil { // what waits for a start ends with the container
			t.Error(err)
		}
	}
}

// One container under random commands is always where a simple model says.
func TestLifeModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newFake(t)
		defer func() { w.obeys = func(unix.Signal) (int, bool) { return 137, true } }()
		rm := rapid.Bool().Draw(rt, "rm")
		id := w.make("", rm, false)
		model := api.StateCreated
		ctx := context.Background()
		is := func(states ...api.ContainerState) bool { return slices.Contains(states, model) }
		ended := func() {
			if model = api.StateExited; rm {
				model = "none"
			}
		}
		check := func(rt *rapid.T, what string, err error, want bool) {
			if (err == nil) != want {
				rt.Fatalf("%s in state %s: %v", what, model, err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"start": func(rt *rapid.T) {
				ok := is(api.StateCreated, api.StateExited)
				check(rt, "start", w.Start(ctx, id, ""), ok)
				if ok {
					model = api.StateRunning
				}
			},
			"stop": func(rt *rapid.T) {
				ok := is(api.StateRunning, api.StatePaused)
				check(rt, "stop", w.Stop(ctx, id, StopOptions{}), ok)
				if ok {
					ended()
				}
			},
			"kill": func(rt *rapid.T) {
				ok := is(api.StateRunning, api.StatePaused)
				check(rt, "kill", w.Kill(ctx, id, ""), ok)
				if ok {
					ended()
				}
			},
			"hup": func(rt *rapid.T) { check(rt, "hup", w.Kill(ctx, id, "HUP"), is(api.StateRunning, api.StatePaused)) },
			"end": func(*rapid.T) {
				if is(api.StateRunning, api.StatePaused) {
					ch := w.index.get(id).wait(ctx, WaitNextExit)
					w.end(id, 1)
					<-ch
					ended()
				}
			},
			"pause": func(rt *rapid.T) {
				ok := is(api.StateRunning)
				check(rt, "pause", w.Pause(ctx, id), ok)
				if ok {
					model = api.StatePaused
				}
			},
			"unpause": func(rt *rapid.T) {
				ok := is(api.StatePaused)
				check(rt, "unpause", w.Unpause(ctx, id), ok)
				if ok {
					model = api.StateRunning
				}
			},
			"restart": func(rt *rapid.T) {
				ok := !is("none")
				check(rt, "restart", w.Restart(ctx, id, StopOptions{}), ok)
				if ok {
					model = api.StateRunning
				}
			},
			"remove": func(rt *rapid.T) {
				ok := is(api.StateCreated, api.StateExited)
				check(rt, "remove", w.Remove(ctx, id, RemoveOptions{}), ok)
				if ok {
					model = "none"
				}
			},
			"daemon": func(*rapid.T) { w.restart() },
			"": func(rt *rapid.T) {
				w.settled()
				if got := w.state(id).Status; got != model {
					rt.Fatalf("state %s, want %s", got, model)
				}
				alive := is(api.StateRunning, api.StatePaused)
				if (len(w.procs) > 0) != alive || (len(w.groups) > 0) != alive || (len(w.networks) > 0) != alive || (len(w.snapshots) > 0) == is("none") {
					rt.Fatalf("in state %s: %d processes, %d groups, %d networks, %d snapshots", model, len(w.procs), len(w.groups), len(w.networks), len(w.snapshots))
				}
			},
		})
	})
}
