package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"

	"skiff/internal/errs"
	"skiff/keeper"
)

func TestRun(t *testing.T) {
	r := newRig(t)
	t.Run("kept", func(t *testing.T) {
		id, res := r.run(shell("echo out; echo err >&2; exit 7"))
		if res.StatusCode != 7 || res.Err != nil {
			t.Errorf("result %+v", res)
		}
		out, errOut := unframe(t, r.logs(id, everything))
		if out != "out\n" || errOut != "err\n" {
			t.Errorf("logs %q %q", out, errOut)
		}
		in, err := r.Inspect(t.Context(), id, true)
		if err != nil {
			t.Fatal(err)
		}
		if in.State.Status != api.StateExited || in.State.ExitCode != 7 || in.State.Pid != 0 || in.Config.Labels["made"] != "by test" {
			t.Errorf("inspect %+v", in.State)
		}
		if err := r.Start(t.Context(), id[:10], ""); err != nil {
			t.Errorf("second start: %v", err)
		}
	})
	t.Run("rm", func(t *testing.T) {
		opt := shell("exit 3")
		opt.HostConfig.AutoRemove = true
		id, res := r.run(opt)
		if res.StatusCode != 3 {
			t.Errorf("result %+v", res)
		}
		if _, err := r.Inspect(t.Context(), id, false); !errs.Is(err, errs.NotFound) {
			t.Errorf("inspect of a removed container: %v", err)
		}
	})
	t.Run("bridge", func(t *testing.T) {
		opt := shell("ip addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p'; cat /etc/hosts; hostname")
		opt.HostConfig.NetworkMode = ""
		id, res := r.run(opt)
		out, errOut := unframe(t, r.logs(id, everything))
		addr, _, _ := strings.Cut(out, "\n")
		if res.StatusCode != 0 || !strings.Contains(out, addr+"\t"+id[:12]) || !strings.HasSuffix(out, id[:12]+"\n") {
			t.Errorf("result %+v, output %q %q", res, out, errOut)
		}
	})
	t.Run("code of a signal", func(t *testing.T) {
		if _, res := r.run(shell("sh -c 'kill -9 $$; true'; exit $?")); res.StatusCode != 137 {
			t.Errorf("result %+v", res)
		}
	})
}

func TestStartFails(t *testing.T) {
	r := newRig(t)
	for _, tc := range []struct {
		cmd, text string
		code      int
	}{
		{"nonesuch", `exec: "nonesuch": executable file not found in $PATH`, 127},
		{"/bin/nonesuch", "no such file or directory", 127},
		{"/bin/notexec", "permission denied", 126},
		{"/tmp", "is a directory", 126},
	} {
		for _, rm := range []bool{false, true} {
			opt := shell("")
			opt.Config.Cmd, opt.HostConfig.AutoRemove = []string{tc.cmd}, rm
			id := r.create(opt)
			removed, err := r.Wait(t.Context(), id, WaitRemoved)
			if err != nil {
				t.Fatal(err)
			}
			sess, err := r.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
			if err != nil {
				t.Fatal(err)
			}
			err = r.Start(t.Context(), id, "")
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("start %s: %v (%v)", tc.cmd, err, errs.Of(err))
			}
			if err := sess.Run(t.Context(), nil, io.Discard); err != nil {
				t.Errorf("attached client: %v", err)
			}
			in, err := r.Inspect(t.Context(), id, false)
			if rm {
				if res := r.result(removed); res.StatusCode != int64(tc.code) || res.Err == nil || !errs.Is(err, errs.NotFound) {
					t.Errorf("rm: %+v, %v", res, err)
				}
				continue
			}
			if err != nil || in.State.ExitCode != tc.code || in.State.Status != api.StateCreated || !strings.Contains(in.State.Error, tc.text) {
				t.Errorf("inspect: %v %+v", err, in.State)
			}
		}
	}
}

// attachRun attaches, starts, and gives what came out. in is what the client sends.
func (r *rig) attachRun(opt CreateOptions, in io.Reader) (string, error) {
	r.t.Helper()
	id := r.create(opt)
	return r.attachStart(id, AttachOptions{Stdin: in != nil, Stdout: true, Stderr: true, Stream: true}, in)
}

func (r *rig) attachStart(id string, opt AttachOptions, in io.Reader) (string, error) {
	r.t.Helper()
	sess, err := r.Attach(r.t.Context(), id, opt)
	if err != nil {
		r.t.Fatal(err)
	}
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- sess.Run(r.t.Context(), in, &out) }()
	if err := r.Start(r.t.Context(), id, ""); err != nil {
		r.t.Fatal(err)
	}
	select {
	case err := <-done:
		return out.String(), err
	case <-time.After(10 * time.Second):
		r.t.Fatal("the session does not end")
		panic("unreachable")
	}
}

func TestAttach(t *testing.T) {
	r := newRig(t)
	t.Run("stdin once", func(t *testing.T) {
		opt := shell("cat; echo done")
		opt.Config.OpenStdin, opt.Config.StdinOnce = true, true
		big := strings.Repeat("0123456789abcdef\n", 50000)
		out, err := r.attachRun(opt, strings.NewReader(big))
		if got, _ := unframe(t, out); err != nil || got != big+"done\n" {
			t.Errorf("%v, %d bytes", err, len(got))
		}
	})
	t.Run("terminal", func(t *testing.T) {
		opt := shell("tty; stty size; read x; echo got $x")
		opt.Config.Tty, opt.Config.OpenStdin, opt.Config.StdinOnce = true, true, true
		opt.HostConfig.ConsoleSize = [2]uint{33, 99}
		out, err := r.attachRun(opt, strings.NewReader("hello\n"))
		for _, want := range []string{"/dev/pts/0\r\n", "33 99\r\n", "got hello\r\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in %q (%v)", want, out, err)
			}
		}
	})
	t.Run("detach", func(t *testing.T) {
		opt := shell("read x; exit 5")
		opt.Config.Tty, opt.Config.OpenStdin = true, true
		id := r.create(opt)
		if _, err := r.attachStart(id, AttachOptions{Stdin: true, Stdout: true, Stream: true}, strings.NewReader("a\x10b\x10\x11")); !errors.Is(err, ErrDetached) {
			t.Errorf("error %v", err)
		}
		w, _ := r.Wait(t.Context(), id, "")
		sess, err := r.Attach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stream: true, Logs: true})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := sess.Run(t.Context(), strings.NewReader("\n"), &out); err != nil {
			t.Error(err)
		}
		if res := r.result(w); res.StatusCode != 5 {
			t.Errorf("result %+v", res)
		}
	})
	t.Run("two clients", func(t *testing.T) {
		id := r.create(shell("seq 1 2000"))
		second, err := r.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		done := make(chan error, 1)
		go func() { done <- second.Run(t.Context(), nil, &b) }()
		out, err := r.attachStart(id, AttachOptions{Stdout: true, Stream: true}, nil)
		if err := errors.Join(err, <-done); err != nil {
			t.Error(err)
		}
		one, _ := unframe(t, out)
		two, _ := unframe(t, b.String())
		if one != two || !strings.HasSuffix(one, "1999\n2000\n") {
			t.Errorf("%d and %d bytes", len(one), len(two))
		}
	})
	t.Run("given up", func(t *testing.T) {
		id := r.create(shell("true"))
		sess, err := r.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := sess.Run(ctx, nil, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if n := len(r.index.get(id).pending); n != 0 {
			t.Errorf("%d taps wait", n)
		}
	})
}

func TestExec(t *testing.T) {
	r := newRig(t)
	opt := shell("exec sleep 1000")
	opt.Config.Env = []string{"A=1"}
	id := r.create(opt)
	if _, err := r.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"true"}}); !errs.Is(err, errs.Conflict) {
		t.Errorf("exec in a created container: %v", err)
	}
	if err := r.Start(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		req            api.ExecCreateRequest
		in, out, error string
		code           int
	}{
		{req: api.ExecCreateRequest{Cmd: []string{"sh", "-c", "echo $A $B; id -u; exit 4"}, Env: []string{"B=2"}, User: "user", AttachStdout: true}, out: "1 2\n1000\n", code: 4},
		{req: api.ExecCreateRequest{Cmd: []string{"cat"}, AttachStdin: true, AttachStdout: true}, in: "some text", out: "some text"},
		{req: api.ExecCreateRequest{Cmd: []string{"sh", "-c", "stty size; tty"}, Tty: true, AttachStdout: true, ConsoleSize: &[2]uint{12, 34}}, out: "12 34\r\n/dev/pts/0\r\n"},
		{req: api.ExecCreateRequest{Cmd: []string{"nonesuch"}, AttachStdout: true}, error: "executable file not found in $PATH", code: 127},
		{req: api.ExecCreateRequest{Cmd: []string{"/tmp"}, AttachStdout: true}, error: "is a directory", code: 126},
	} {
		eid, err := r.ExecCreate(t.Context(), id, tc.req)
		if err != nil {
			t.Fatal(err)
		}
		sess, err := r.ExecStart(t.Context(), eid, ExecStartOptions{Tty: tc.req.Tty, Stdin: true})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		err = sess.Run(t.Context(), strings.NewReader(tc.in), &b)
		if (err == nil) != (tc.error == "") || err != nil && !strings.Contains(err.Error(), tc.error) {
			t.Errorf("%q: error %v", tc.req.Cmd, err)
		}
		out := b.String()
		if !tc.req.Tty {
			out, _ = unframe(t, out)
		}
		if out != tc.out {
			t.Errorf("%q: output %q, want %q", tc.req.Cmd, out, tc.out)
		}
		in, err := r.ExecInspect(t.Context(), eid)
		if err != nil || in.Running || in.ExitCode == nil || *in.ExitCode != tc.code {
			t.Errorf("%q: inspect %+v %v", tc.req.Cmd, in, err)
		}
		if _, err := r.ExecStart(t.Context(), eid, ExecStartOptions{}); !errs.Is(err, errs.Conflict) {
			t.Errorf("second start: %v", err)
		}
	}
	if r.ended(keeper.Exit{ID: id, Code: 3, At: time.Now()}); !r.running(id) { // of a former run
		t.Error("an end that was told again ended the container")
	}
	top, err := r.Top(t.Context(), id, "")
	if err != nil || len(top.Processes) != 1 || top.Processes[0][7] != "sleep 1000" {
		t.Errorf("top: %v %+v", err, top)
	}
	if err := r.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ExecCreate(t.Context(), id, api.ExecCreateRequest{Cmd: []string{"true"}}); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "is paused") {
		t.Errorf("exec in a paused container: %v", err)
	}
	if err := r.Unpause(t.Context(), id); err != nil {
		t.Error(err)
	}
	started := time.Now()
	if err := r.Stop(t.Context(), id, StopOptions{Timeout: new(int)}); err != nil {
		t.Error(err)
	}
	if err := r.Stop(t.Context(), id, StopOptions{}); !errs.Is(err, errs.NotModified) {
		t.Errorf("stop of a stopped container: %v", err)
	}
	if d := time.Since(started); d > 2*time.Second {
		t.Errorf("the stop took %v", d)
	}
}

// running waits until all that is known was taken in.
func (r *rig) running(id string) bool {
	r.t.Helper()
	o := r.index.get(id)
	if err := o.queue.do(r.t.Context(), func(context.Context) error { return nil }); err != nil {
		r.t.Fatal(err)
	}
	return o.status().alive()
}

func TestAdopt(t *testing.T) {
	r := newRig(t)
	opt := shell("read x; echo got $x; exit 9")
	opt.Config.OpenStdin = true
	opt.HostConfig.NetworkMode = "bridge"
	id := r.create(opt)
	rm := shell("exit 1")
	rm.HostConfig.AutoRemove = true
	rmID := r.create(rm)
	if err := r.Start(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	long := r.create(shell("exec sleep 1000"))
	if err := r.Start(t.Context(), long, ""); err != nil {
		t.Fatal(err)
	}
	eid, err := r.ExecCreate(t.Context(), long, api.ExecCreateRequest{Cmd: []string{"sleep", "2000"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ExecStart(t.Context(), eid, ExecStartOptions{Detach: true}); err != nil {
		t.Fatal(err)
	}
	before, _ := r.Inspect(t.Context(), id, false)
	r.restart()
	after, err := r.Inspect(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	if *before.State != *after.State || before.NetworkSettings.Networks["bridge"].IPAddress != after.NetworkSettings.Networks["bridge"].IPAddress {
		t.Errorf("before %+v, after %+v", before.State, after.State)
	}
	if e, err := r.ExecInspect(t.Context(), eid); err != nil || !e.Running || e.Pid == 0 {
		t.Errorf("exec: %v %+v", err, e)
	}
	if in, err := r.Inspect(t.Context(), rmID, false); err != nil || in.State.Status != api.StateCreated {
		t.Errorf("--rm container: %v", err)
	}
	w, err := r.Wait(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	sess, err := r.Attach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := sess.Run(t.Context(), strings.NewReader("me\n"), &b); err != nil {
		t.Error(err)
	}
	if out, _ := unframe(t, b.String()); out != "got me\n" {
		t.Errorf("output %q", out)
	}
	if res := r.result(w); res.StatusCode != 9 {
		t.Errorf("result %+v", res)
	}
}

// Many clients at once, each of whom gets what he asked for.
func TestCrowd(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for c := range 12 {
		wg.Go(func() {
			for i := range 6 {
				code := (c + i) % 5
				opt := shell(fmt.Sprintf("read x; echo $x; exit %d", code))
				opt.Config.OpenStdin, opt.Config.StdinOnce = true, true
				opt.HostConfig.AutoRemove = i%2 == 0
				if c%2 == 0 {
					opt.HostConfig.NetworkMode = "bridge"
				}
				id, _, err := r.Create(t.Context(), opt)
				if err != nil {
					t.Error(err)
					return
				}
				cond := WaitNextExit
				if opt.HostConfig.AutoRemove {
					cond = WaitRemoved
				}
				w, err := r.Wait(t.Context(), id, cond)
				if err != nil {
					t.Error(err)
					return
				}
				sess, err := r.Attach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true})
				if err != nil {
					t.Error(err)
					return
				}
				var out bytes.Buffer
				ran := make(chan error, 1)
				go func() { ran <- sess.Run(t.Context(), strings.NewReader(id+"\n"), &out) }()
				if err := r.Start(t.Context(), id, ""); err != nil {
					t.Error(err)
					return
				}
				if _, err := r.List(t.Context(), ListOptions{All: true}); err != nil {
					t.Error(err)
				}
				if err := <-ran; err != nil {
					t.Error(err)
				}
				if res := <-w; res.StatusCode != int64(code) {
					t.Errorf("result %+v, want %d", res, code)
				}
				if got, _ := unframe(t, out.String()); got != id+"\n" {
					t.Errorf("output %q", got)
				}
			}
		})
	}
	wg.Wait()
}
