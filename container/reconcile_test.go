package container

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"

	"skiff/db"
	"skiff/internal/errs"
	"skiff/keeper"
	"skiff/network"
)

func TestReconcile(t *testing.T) {
	for _, tc := range []struct {
		name string
		// prepare makes a container and the state in which the daemon was killed; it gives the container's id.
		prepare func(*world) string
		crash   bool // the machine too
		want    api.ContainerState
		code    int
	}{
		{"created", func(w *world) string { return w.make("", false, false) }, false, api.StateCreated, 0},
		{"created, machine crashed", func(w *world) string { return w.make("", false, false) }, true, api.StateCreated, 0},
		{"running", func(w *world) string { return w.make("", false, true) }, false, api.StateRunning, 0},
		{"running, machine crashed", func(w *world) string { return w.make("", false, true) }, true, api.StateExited, 255},
		{"running --rm", func(w *world) string { return w.make("", true, true) }, false, api.StateRunning, 0},
		{"running --rm, machine crashed", func(w *world) string { return w.make("", true, true) }, true, "none", 0},
		{"created --rm", func(w *world) string { return w.make("", true, false) }, false, api.StateCreated, 0},
		{"created --rm, machine crashed", func(w *world) string { return w.make("", true, false) }, true, "none", 0},
		{"paused", func(w *world) string {
			id := w.make("", false, true)
			if err := w.Pause(context.Background(), id); err != nil {
				w.t.Fatal(err)
			}
			return id
		}, false, api.StatePaused, 0},
		{"ended while nobody listened", func(w *world) string {
			id := w.make("", false, true)
			w.deaf()
			w.end(id, 42)
			return id
		}, false, api.StateExited, 42},
		{"ended --rm while nobody listened", func(w *world) string {
			id := w.make("", true, true)
			w.deaf()
			w.end(id, 42)
			return id
		}, false, "none", 0},
		{"the keeper died too", func(w *world) string {
			id := w.make("", false, true)
			w.procs = map[string]*fakeProc{}
			return id
		}, false, api.StateExited, 255},
		{"ended, then the machine crashed", func(w *world) string {
			id := w.make("", false, true)
			w.end(id, 7)
			w.settledExit(id)
			return id
		}, true, api.StateExited, 7},
		{"half started", func(w *world) string { // killed before the keeper was asked
			id := w.make("", false, false)
			w.networks[id], w.groups[id] = true, &fakeGroup{w: w, id: id}
			if err := w.store.starting(id, run{}); err != nil {
				w.t.Fatal(err)
			}
			return id
		}, false, api.StateCreated, 0},
		{"half started --rm", func(w *world) string {
			id := w.make("", true, false)
			if err := w.store.starting(id, run{}); err != nil {
				w.t.Fatal(err)
			}
			return id
		}, false, "none", 0},
		{"started, but nobody was told", func(w *world) string { // killed before the keeper's answer came
			id := w.make("", false, false)
			w.networks[id], w.groups[id] = true, &fakeGroup{w: w, id: id}
			if err := w.store.starting(id, run{Endpoint: &network.Endpoint{ID: "e"}}); err != nil {
				w.t.Fatal(err)
			}
			if _, err := w.cfg.Keeper.Launch(context.Background(), keeper.LaunchRequest{ID: id}); err != nil {
				w.t.Fatal(err)
			}
			return id
		}, false, api.StateRunning, 0},
		{"half created", func(w *world) string { // killed before the record was written
			id := newID()
			w.snapshots[id] = true
			if err := os.MkdirAll(filepath.Join(w.dir, "containers", id), 0o700); err != nil {
				w.t.Fatal(err)
			}
			return id
		}, false, "none", 0},
		{"half removed", func(w *world) string { // killed after the record was removed
			id := w.make("", false, false)
			if err := w.store.forget(w.index.get(id).def()); err != nil {
				w.t.Fatal(err)
			}
			return id
		}, false, "none", 0},
		{"runs without a record", func(w *world) string {
			id := newID()
			w.groups[id] = &fakeGroup{w: w, id: id}
			if _, err := w.cfg.Keeper.Launch(context.Background(), keeper.LaunchRequest{ID: id}); err != nil {
				w.t.Fatal(err)
			}
			return id
		}, false, "none", 0},
		{"ended without a record", func(w *world) string {
			id := newID()
			w.procs[id] = &fakeProc{State: keeper.State{Process: keeper.Process{ID: id}, Exited: &keeper.Exit{ID: id}}}
			return id
		}, false, "none", 0},
		{"without a snapshot", func(w *world) string { // the power went before the folder was on disk
			id := w.make("", false, false)
			delete(w.snapshots, id)
			os.RemoveAll(filepath.Join(w.dir, "containers", id))
			return id
		}, true, api.StateCreated, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newFake(t)
			id := tc.prepare(w)
			if tc.crash {
				w.crash()
			} else {
				w.restart()
			}
			for w.settled(); w.known(id) && !w.running(id); time.Sleep(time.Millisecond) {
				w.settled()
			}
			s := w.state(id)
			if s.Status != tc.want || s.ExitCode != tc.code {
				t.Fatalf("state %s (%d), want %s (%d)", s.Status, s.ExitCode, tc.want, tc.code)
			}
			alive := tc.want == api.StateRunning || tc.want == api.StatePaused
			if w.known(id) != alive || (w.groups[id] != nil) != alive || w.networks[id] != alive || len(w.held) > 0 && !alive {
				t.Errorf("process %v, group %v, network %v, held %v", w.procs[id], w.groups[id], w.networks[id], w.held)
			}
			if tc.want == "none" {
				if _, err := os.Stat(filepath.Join(w.dir, "containers", id)); w.snapshots[id] || err == nil {
					t.Error("the snapshot or folder is left")
				}
				return
			}
			if !alive {
				if err := w.Start(context.Background(), id, ""); err != nil {
					t.Errorf("start: %v", err)
				}
			}
			w.obeysAll()
			if err := w.Remove(context.Background(), id, RemoveOptions{Force: true}); err != nil && !errs.Is(err, errs.NotFound) {
				t.Errorf("remove: %v", err)
			}
		})
	}
}

// known says that the keeper has not forgotten a process, running that it has not ended.
func (w *world) known(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.procs[id] != nil
}

func (w *world) running(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.procs[id] != nil && w.procs[id].Exited == nil
}

// deaf stops the manager from hearing of exits, as if it were dead already.
func (w *world) deaf() {
	w.stop()
	w.done.Wait()
	w.exits = make(chan keeper.Exit, 100)
}

func (w *world) obeysAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.groups {
		g.frozen = false
	}
}

// settledExit waits until an end was taken in.
func (w *world) settledExit(id string) {
	ch := w.index.get(id).wait(context.Background(), WaitNotRunning)
	<-ch
	w.settled()
}

func TestReconcileOfExecs(t *testing.T) {
	w := newFake(t)
	id := w.make("", false, true)
	var ids []string
	for range 3 {
		eid, err := w.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"x"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.ExecStart(t.Context(), eid, ExecStartOptions{Detach: true}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, eid)
	}
	end := func(i, code int) { w.end(execProcessID(id, ids[i]), code) }
	end(0, 3)
	e, _ := w.index.findExec(ids[0])
	<-e.ended
	w.deaf()
	end(1, 4)
	w.restart()
	for i, want := range []int{3, 4, -1} {
		in, err := w.ExecInspect(t.Context(), ids[i])
		if err != nil {
			t.Errorf("exec %d: %v", i, err)
			continue
		}
		if in.Running != (want < 0) || !in.Running && *in.ExitCode != want {
			t.Errorf("exec %d: %+v", i, in)
		}
	}
	end(2, 5)
	e, _ = w.index.findExec(ids[2])
	<-e.ended
	w.settled()
	for _, eid := range ids { // the keeper is told a moment later
		for end := time.Now().Add(5 * time.Second); w.known(execProcessID(id, eid)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the keeper still knows exec %s", eid)
			}
		}
	}
}

// What a database of another schema or a damaged one holds is never taken for nothing.
func TestDamagedRecords(t *testing.T) {
	w := newFake(t)
	w.make("", false, false)
	var b db.Batch
	db.In[string](w.cfg.Durable, "containers").Put(&b, "x", "not a container")
	if err := w.cfg.Durable.Commit(&b, db.Durable); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), w.cfg); err == nil {
		t.Error("no error")
	}
	b = db.Batch{}
	db.In[string](w.cfg.Durable, "containers").Delete(&b, "x")
	if err := w.cfg.Durable.Commit(&b, db.Durable); err != nil {
		t.Fatal(err)
	}
}
