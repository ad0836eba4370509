package container

import (
	"fmt"
	"io"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/container"
)

// BenchmarkLife is create, start, wait and remove, and how the time is spent.
func BenchmarkLife(b *testing.B) {
	for _, mode := range []string{"none", "bridge"} {
		for _, rm := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/rm=%v", mode, rm), func(b *testing.B) {
				r := newRig(b)
				below := r.timed()
				for b.Loop() {
					opt := shell("")
					opt.Config.Cmd = []string{"true"}
					opt.HostConfig.NetworkMode, opt.HostConfig.AutoRemove = api.NetworkMode(mode), rm
					whole := time.Now()
					t := whole
					lap := func(what string) {
						below.since(what, t)
						t = time.Now()
					}
					id := r.create(opt)
					lap("create")
					cond := WaitNextExit
					if rm {
						cond = WaitRemoved
					}
					w, err := r.Wait(b.Context(), id, cond)
					if err != nil {
						b.Fatal(err)
					}
					if err := r.Start(b.Context(), id, ""); err != nil {
						b.Fatal(err)
					}
					lap("start")
					<-w
					lap("wait")
					if !rm {
						if err := r.Remove(b.Context(), id, RemoveOptions{}); err != nil {
							b.Fatal(err)
						}
					}
					lap("remove")
					below.since("all", whole)
				}
				below.report(b)
			})
		}
	}
}

// BenchmarkExec is an exec with attached output.
func BenchmarkExec(b *testing.B) {
	r := newRig(b)
	id := r.create(shell("exec sleep 1000"))
	if err := r.Start(b.Context(), id, ""); err != nil {
		b.Fatal(err)
	}
	below := r.timed()
	defer below.report(b)
	for b.Loop() {
		start := time.Now()
		eid, err := r.ExecCreate(b.Context(), id, api.ExecCreateRequest{Cmd: []string{"true"}, AttachStdout: true, AttachStderr: true})
		if err != nil {
			b.Fatal(err)
		}
		sess, err := r.ExecStart(b.Context(), eid, ExecStartOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := sess.Run(b.Context(), nil, io.Discard); err != nil {
			b.Fatal(err)
		}
		below.since("all", start)
	}
}

// BenchmarkList lists 1,000 containers.
func BenchmarkList(b *testing.B) {
	r := newFake(b)
	for i := range 1000 {
		if _, _, err := r.Create(b.Context(), CreateOptions{Name: fmt.Sprintf("name%d", i), Config: &api.Config{Image: "busybox"}}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		list, err := r.List(b.Context(), ListOptions{All: true})
		if err != nil || len(list) != 1000 {
			b.Fatal(err, len(list))
		}
	}
}
