package launch

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files")

// sample uses every kind of argument.
func sample(t testing.TB) *Program {
	t.Helper()
	b := NewBuilder()
	b.Clone = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUSER
	b.UIDs, b.GIDs = []IDMap{{0, 1000, 1}}, []IDMap{{0, 1000, 1}}
	in := b.Slot("standard input")
	b.Cgroup = int(b.Slot("cgroup v2").Value)
	b.JoinPID = int(b.Slot("pid namespace").Value)
	b.Do("standard input", unix.SYS_DUP3, in, Int(0), Int(0))
	b.Do("mount proc on /proc", unix.SYS_MOUNT, b.Str("proc"), b.Str("/proc"), b.Str("proc"), Int(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC), Int(0))
	op, fd := b.Open("open the folder", unix.SYS_OPENAT, Int(unix.AT_FDCWD), b.Str("/x"), Int(unix.O_PATH|unix.O_DIRECTORY), Int(0))
	op.Else(1, unix.ENOENT).OK(unix.EACCES)
	b.Close(fd).Then(1)
	b.Do("write", unix.SYS_WRITE, Int(1), b.Bytes([]byte("text")), Int(4))
	filter := b.Bytes(make([]byte, 80))
	prog := b.Words(10, 0)
	b.Point(prog, 1, filter)
	b.Do("load the seccomp filter", unix.SYS_SECCOMP, Int(1), Int(4), prog)
	b.Do("identity", unix.SYS_SETRESUID, Int(1000), Int(1000), Int(int64(-1)))
	b.Exec = Exec{Name: "true", Search: true, Paths: []uint32{uint32(b.Str("/usr/bin/true").Value), uint32(b.Str("/bin/true").Value)}}
	b.Exec.Argv, b.Exec.Envp = b.Table([]string{"true", "one"}), b.Table([]string{"A=b", "PATH=/usr/bin:/bin"})
	p, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExplain(t *testing.T) {
	file := filepath.Join("testdata", "sample.golden")
	got := sample(t).String()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestBinaryForm(t *testing.T) {
	p := sample(t)
	b, err := p.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var q Program
	if err := q.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p.String(), q.String()); diff != "" {
		t.Error(diff)
	}
	again, _ := q.MarshalBinary()
	if string(again) != string(b) {
		t.Error("decoded and encoded again it differs")
	}
	for i := range b {
		if q.UnmarshalBinary(b[:i]) == nil {
			t.Errorf("cut after %d bytes it is accepted", i)
		}
	}
	if q.UnmarshalBinary(append(b, 0)) == nil {
		t.Error("with a byte more it is accepted")
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Program){
		"system call": func(p *Program) { p.Ops[0].Nr = unix.SYS_REBOOT },
		"string":      func(p *Program) { p.Ops[1].Args[0].Value = uint64(len(p.Data)) },
		"string without NUL": func(p *Program) {
			p.Data = append(p.Data, 'x')
			p.Ops[1].Args[0].Value = uint64(len(p.Data) - 1)
		},
		"buffer":       func(p *Program) { p.Ops[4].Args[1].Len = 1 << 30 },
		"buffer wraps": func(p *Program) { p.Ops[4].Args[1].Value = ^uint64(0) },
		"slot":         func(p *Program) { p.Ops[0].Args[0].Value = 3 },
		"register":     func(p *Program) { p.Ops[3].Args[0].Value = 1 },
		"save":         func(p *Program) { p.Ops[3].Save = 1 },
		"skip":         func(p *Program) { p.Ops[len(p.Ops)-1].SkipOK = 1 },
		"skip of error": func(p *Program) {
			p.Ops[len(p.Ops)-1].Else(1, unix.ENOENT)
		},
		"clone flags":    func(p *Program) { p.Clone |= unix.CLONE_VM },
		"cgroup":         func(p *Program) { p.Cgroup = 3 },
		"keep":           func(p *Program) { p.Keep = 2 },
		"relocation":     func(p *Program) { p.Relocs[0].At = uint32(len(p.Data)) },
		"unaligned":      func(p *Program) { p.Relocs[0].At |= 1 },
		"argv":           func(p *Program) { p.Exec.Argv = uint32(len(p.Data)) },
		"argv no table":  func(p *Program) { p.Exec.Argv = 0 },
		"path":           func(p *Program) { p.Exec.Paths[0] = uint32(len(p.Data)) },
		"maps and no ns": func(p *Program) { p.Clone = 0 },
		"argument":       func(p *Program) { p.Ops[0].Args[0].Kind = kinds },
	} {
		p := sample(t)
		change(p)
		if p.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzUnmarshal checks that whatever is accepted can be explained, loaded and encoded again.
func FuzzUnmarshal(f *testing.F) {
	b, _ := sample(f).MarshalBinary()
	f.Add(b)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Program
		if p.UnmarshalBinary(b) != nil {
			return
		}
		_ = p.String()
		_, free, err := p.load(make([]int, len(p.Slots)))
		if err != nil {
			t.Fatal(err)
		}
		free()
		again, _ := p.MarshalBinary()
		var q Program
		if err := q.UnmarshalBinary(again); err != nil {
			t.Fatal(err)
		}
	})
}
