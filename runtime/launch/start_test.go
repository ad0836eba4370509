package launch

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// command begins a program that executes argv with the given streams (nil: slot of /dev/null).
func command(t testing.TB, out *os.File, argv ...string) (*Builder, []*os.File) {
	t.Helper()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() })
	b := NewBuilder()
	in := b.Slot("null")
	files := []*os.File{null}
	o := in
	if out != nil {
		o = b.Slot("output")
		files = append(files, out)
	}
	b.Do("standard input", unix.SYS_DUP3, in, Int(0), Int(0))
	b.Do("standard output", unix.SYS_DUP3, o, Int(1), Int(0))
	b.Do("standard error", unix.SYS_DUP3, o, Int(2), Int(0))
	b.Exec = Exec{Name: argv[0], Paths: []uint32{uint32(b.Str(argv[0]).Value)}}
	b.Exec.Argv, b.Exec.Envp = b.Table(argv), b.Table([]string{"PATH=/usr/bin:/bin", "A=b"})
	return b, files
}

func start(t testing.TB, b *Builder, files []*os.File, opt Options) (*Process, error) {
	t.Helper()
	p, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	enc, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var q Program
	if err := q.UnmarshalBinary(enc); err != nil {
		t.Fatal(err)
	}
	return q.Start(files, opt)
}

// output runs a program to its end.
func output(t testing.TB, argv []string, more func(*Builder)) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b, files := command(t, w, argv...)
	if more != nil {
		more(b)
	}
	proc, err := start(t, b, files, Options{})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = proc.PIDFD.Close() }()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	code, err := proc.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return string(text), code
}

func TestStart(t *testing.T) {
	text, code := output(t, []string{"/bin/sh", "-c", "echo $A; umask; set -- /proc/self/fd/*; echo $#; exit 7"}, func(b *Builder) {
		b.Do("close all else", unix.SYS_CLOSE_RANGE, Int(b.Keep+1), Int(uint32(1<<32-1)), Int(0))
	})
	if text != "b\n0000\n4\n" || code != 7 {
		t.Errorf("got %q, code %d", text, code)
	}
}

func TestSignalsAreReset(t *testing.T) {
	text, _ := output(t, []string{"/bin/sh", "-c", "while read a b; do case $a in SigBlk:|SigIgn:) echo $b; esac; done </proc/self/status"}, nil)
	if want := strings.Repeat("0000000000000000\n", 2); text != want {
		t.Errorf("signals blocked, ignored:\n%s", text)
	}
}

func TestNamespaces(t *testing.T) {
	text, code := output(t, []string{"/bin/sh", "-c", "echo $$; hostname"}, func(b *Builder) {
		b.Clone = unix.CLONE_NEWPID | unix.CLONE_NEWUTS
		b.Do("host name", unix.SYS_SETHOSTNAME, b.Str("inner"), Int(5))
	})
	if text != "1\ninner\n" || code != 0 {
		t.Errorf("got %q, code %d", text, code)
	}
}

func TestUserNamespace(t *testing.T) {
	text, code := output(t, []string{"/bin/sh", "-c", "id -u; cat /proc/self/uid_map"}, func(b *Builder) {
		b.Clone = unix.CLONE_NEWUSER
		b.UIDs = []IDMap{{0, 100000, 1000}}
		b.GIDs = []IDMap{{0, 100000, 1000}}
		b.Do("become root", unix.SYS_SETRESUID, Int(0), Int(0), Int(0))
	})
	if f := strings.Fields(text); code != 0 || strings.Join(f, " ") != "0 0 100000 1000" {
		t.Errorf("got %q, code %d", text, code)
	}
}

func TestSkips(t *testing.T) {
	text, _ := output(t, []string{"/bin/sh", "-c", "pwd"}, func(b *Builder) {
		b.Do("go", unix.SYS_CHDIR, b.Str("/usr")).Then(1)
		b.Do("not this", unix.SYS_CHDIR, b.Str("/nowhere"))
		b.Do("nor this", unix.SYS_CHDIR, b.Str("/nowhere")).Else(1, unix.ENOENT)
		b.Do("left out", unix.SYS_CHDIR, b.Str("/"))
		_, fd := b.Open("open", unix.SYS_OPENAT, Int(unix.AT_FDCWD), b.Str("bin"), Int(unix.O_PATH|unix.O_CLOEXEC), Int(0))
		b.Do("there", unix.SYS_FCHDIR, fd)
	})
	if text != "/usr/bin\n" {
		t.Errorf("got %q", text)
	}
}

func TestStepErrors(t *testing.T) {
	dir := t.TempDir()
	plain := dir + "/plain"
	if err := os.WriteFile(plain, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	garbage := dir + "/garbage"
	if err := os.WriteFile(garbage, []byte("text"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		code       int
		change     func(*Builder)
	}{
		{"step", "enter /nowhere: no such file or directory", 127, func(b *Builder) { b.Do("enter /nowhere", unix.SYS_CHDIR, b.Str("/nowhere")) }},
		{"missing", `exec: "/nope": stat /nope: no such file or directory`, 127, path("/nope")},
		{"folder", `exec: "/etc": is a directory`, 126, path("/etc")},
		{"plain", `exec: "` + plain + `": permission denied`, 126, path(plain)},
		{"format", "exec " + garbage + ": exec format error", 125, path(garbage)},
		{"search", `exec: "foo": executable file not found in $PATH`, 127, func(b *Builder) {
			b.Exec.Name, b.Exec.Search = "foo", true
			b.Exec.Paths = []uint32{uint32(b.Str("/nowhere/foo").Value), uint32(b.Str("/etc").Value), uint32(b.Str(plain).Value)}
		}},
		{"no path", `exec: "foo": executable file not found in $PATH`, 127, func(b *Builder) {
			b.Exec.Name, b.Exec.Search, b.Exec.Paths = "foo", true, nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, files := command(t, nil, "/bin/true")
			c.change(b)
			_, err := start(t, b, files, Options{})
			var step *StepError
			if !errors.As(err, &step) || err.Error() != c.want || step.ExitCode() != c.code {
				t.Errorf("error %v, want %s, code %d", err, c.want, c.code)
			}
		})
	}
}

func path(s string) func(*Builder) {
	return func(b *Builder) {
		b.Exec.Name = s
		b.Exec.Paths = []uint32{uint32(b.Str(s).Value)}
	}
}

func TestSearchGoesOn(t *testing.T) {
	text, _ := output(t, []string{"/bin/echo", "found"}, func(b *Builder) {
		b.Exec.Search = true
		b.Exec.Paths = []uint32{uint32(b.Str("/nowhere/echo").Value), uint32(b.Str("/etc").Value), uint32(b.Str("/bin/echo").Value)}
	})
	if text != "found\n" {
		t.Errorf("got %q", text)
	}
}

func TestKilledOnTheWay(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	b, files := command(t, nil, "/bin/true")
	gate := b.Slot("gate")
	files = append(files, r)
	b.Do("wait", unix.SYS_READ, gate, b.Bytes(make([]byte, 8)), Int(1))
	_, err = start(t, b, files, Options{Cloned: func(pid int) error {
		time.AfterFunc(20*time.Millisecond, func() { _ = unix.Kill(pid, unix.SIGKILL) })
		return nil
	}})
	var step *StepError
	if !errors.As(err, &step) || step.Index != -1 || step.Killed != unix.SIGKILL {
		t.Errorf("error %v", err)
	}
}

func TestJoinPID(t *testing.T) {
	b, files := command(t, nil, "/bin/sleep", "100")
	b.Clone = unix.CLONE_NEWPID
	first, err := start(t, b, files, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.discard()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b, files = command(t, w, "/bin/sh", "-c", "echo $$")
	b.JoinPID = int(b.Slot("pid namespace").Value)
	second, err := start(t, b, append(files, first.PIDFD), Options{})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(r)
	if _, err := second.Wait(); err != nil {
		t.Error(err)
	}
	_ = second.PIDFD.Close()
	if string(text) != "2\n" {
		t.Errorf("got %q", text)
	}
	// We are where we were.
	if out, _ := output(t, []string{"/bin/sh", "-c", "echo $$"}, nil); out == "1\n" || out == "3\n" {
		t.Errorf("a later child has pid %s", out)
	}
}

func TestManyAtOnce(t *testing.T) {
	errc := make(chan error)
	for range 32 {
		go func() {
			b, files := command(t, nil, "/bin/true")
			b.Clone = unix.CLONE_NEWUTS
			p, err := start(t, b, files, Options{})
			if err == nil {
				_, err = p.Wait()
				_ = p.PIDFD.Close()
			}
			errc <- err
		}()
	}
	for range 32 {
		if err := <-errc; err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkStart is the price of clone, execve and exit of an empty program.
func BenchmarkStart(b *testing.B) {
	for _, c := range []struct {
		name  string
		flags uint64
	}{{"plain", 0}, {"six", unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP}} {
		b.Run(c.name, func(b *testing.B) {
			bl, files := command(b, nil, "/bin/true")
			bl.Clone = c.flags
			p, err := bl.Finish()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				proc, err := p.Start(files, Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				_, _ = proc.Wait()
				_ = proc.PIDFD.Close()
				b.StartTimer()
			}
		})
	}
}

// TestMemory launches from a process whose memory children don't get, in a process of its own.
func TestMemory(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("the counters of -cover are in memory that the child does not have")
	}
	if os.Getenv("LAUNCH_TEST_MEMORY") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestMemory$")
		cmd.Env = append(os.Environ(), "LAUNCH_TEST_MEMORY=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	var mem Memory
	var waste [][]byte
	for range 3 {
		waste = append(waste, make([]byte, 1<<20)) // what comes later isn't given to children either
		done := make(chan struct{})
		for range 8 {
			go func() {
				defer func() { done <- struct{}{} }()
				launchWith(t, &mem)
			}()
		}
		for range 8 {
			<-done
		}
		if out, err := exec.Command("/bin/echo", "os/exec").Output(); err != nil || string(out) != "os/exec\n" {
			t.Errorf("os/exec: %q, %v", out, err)
		}
	}
	runtime.KeepAlive(waste)
}

func launchWith(t *testing.T, mem *Memory) {
	b, files := command(t, nil, "/bin/sh", "-c", "test $(hostname) = inner && exit 3")
	b.Clone = unix.CLONE_NEWUTS | unix.CLONE_NEWUSER
	b.UIDs, b.GIDs = []IDMap{{0, 0, 1}}, []IDMap{{0, 0, 1}}
	b.Do("host name", unix.SYS_SETHOSTNAME, b.Str("inner"), Int(5))
	p, err := start(t, b, files, Options{Memory: mem})
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = p.PIDFD.Close() }()
	if code, err := p.Wait(); code != 3 || err != nil {
		t.Errorf("code %d, error %v", code, err)
	}
}
