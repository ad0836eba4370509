package runtime

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"skiff/runtime/launch"
	"skiff/runtime/seccomp"
)

// BenchmarkLaunch is Docker's default container around `true`, and a further process in it: compiling, opening, and the launch from
// clone to execve. The last ones keep the process's memory from children, as the keeper does; that can't be undone, so they come last.
func BenchmarkLaunch(b *testing.B) {
	b.Run("container/pivot", func(b *testing.B) { benchmarkContainer(b, false, launch.Options{}) })
	b.Run("container/base", func(b *testing.B) { benchmarkContainer(b, true, launch.Options{}) })
	b.Run("exec", func(b *testing.B) { benchmarkExec(b, launch.Options{}) })
	opt := launch.Options{Memory: new(launch.Memory)}
	b.Run("container/base,memory", func(b *testing.B) { benchmarkContainer(b, true, opt) })
	b.Run("exec,memory", func(b *testing.B) { benchmarkExec(b, opt) })
}

func benchmarkContainer(b *testing.B, withBase bool, opt launch.Options) {
	spec := dockerSpec(b, "true")
	spec.Root.Path = rootFS(b)
	net := newNetNS(b)
	var base *os.File
	if withBase {
		base = newBase(b)
	}
	var filters seccomp.Cache
	for b.Loop() {
		a, err := Container(ContainerInput{Spec: spec, NetNS: net, Base: base, Filters: &filters})
		must(b, err)
		p, err := a.Program.Start(a.Files, opt)
		must(b, err)
		a.Close()
		b.StopTimer()
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
		_ = p.PIDFD.Close()
		b.StartTimer()
	}
}

// newNetNS is a network namespace, as the pool has them.
func newNetNS(t testing.TB) *os.File {
	t.Helper()
	var f *os.File
	var err error
	onOtherThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
	})
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func benchmarkExec(b *testing.B, opt launch.Options) {
	spec := dockerSpec(b, "sleep", "1000")
	spec.Root.Path = rootFS(b)
	first, err := launchBox(b, spec, nil)
	must(b, err)
	proc := *spec.Process
	proc.Args = []string{"true"}
	var filters seccomp.Cache
	for b.Loop() {
		a, err := Exec(ExecInput{Process: &proc, Seccomp: spec.Linux.Seccomp, PID: first.proc.PID, PIDFD: first.proc.PIDFD, Filters: &filters})
		must(b, err)
		p, err := a.Program.Start(a.Files, opt)
		must(b, err)
		a.Close()
		b.StopTimer()
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
		_ = p.PIDFD.Close()
		b.StartTimer()
	}
}
