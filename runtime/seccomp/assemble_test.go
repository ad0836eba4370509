package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

func TestRefusals(t *testing.T) {
	n, big := uint(5), uint(70000)
	many := []specs.LinuxSyscall{}
	for i := range 1000 {
		many = append(many, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: uint(i % 6), Value: uint64(i) << 33, Op: specs.OpNotEqual}}})
	}
	call := func(c specs.LinuxSyscall) specs.LinuxSeccomp {
		return specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{c}}
	}
	for _, c := range []struct {
		name  string
		p     specs.LinuxSeccomp
		class errs.Class
		text  string
	}{
		{"no action", specs.LinuxSeccomp{}, errs.Invalid, `unknown action ""`},
		{"notify", call(specs.LinuxSyscall{Names: []string{"mount"}, Action: specs.ActNotify}), errs.NotImplemented, "SCMP_ACT_NOTIFY"},
		{"notify for a call that is not there", call(specs.LinuxSyscall{Names: []string{"nope"}, Action: specs.ActNotify}), errs.NotImplemented, "SCMP_ACT_NOTIFY"},
		{"listener", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x"}, errs.NotImplemented, "listener"},
		{"operator", call(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "SCMP_CMP_X"}}}), errs.Invalid, "operator"},
		{"index", call(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}), errs.Invalid, "index 6"},
		{"errno of allow", call(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActAllow, ErrnoRet: &n}), errs.Invalid, "errnoRet 5"},
		{"errno too big", call(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: &big}), errs.Invalid, "70000"},
		{"arch", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_Z80"}}, errs.Invalid, "Z80"},
		{"flag", specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}}, errs.Invalid, `flag "X"`},
		{"too long", specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: many}, errs.Invalid, "4096"},
	} {
		_, err := Assemble(&c.p)
		if !errs.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		flags []specs.LinuxSeccompFlag
		want  uint
	}{
		{nil, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{[]specs.LinuxSeccompFlag{}, 0},
		{[]specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"}, unix.SECCOMP_FILTER_FLAG_LOG},
	} {
		f, err := Assemble(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: c.flags})
		if err != nil || f.Flags != c.want {
			t.Errorf("%v: %v, %v", c.flags, f, err)
		}
	}
}

func TestBytes(t *testing.T) {
	f := &Filter{Insns: []unix.SockFilter{{Code: 0x1234, Jt: 5, Jf: 6, K: 0x789abcde}}}
	b := f.Bytes()
	if len(b) != 8 || binary.NativeEndian.Uint16(b) != 0x1234 || b[2] != 5 || b[3] != 6 || binary.NativeEndian.Uint32(b[4:]) != 0x789abcde {
		t.Errorf("%x", b)
	}
}

func TestCache(t *testing.T) {
	var c Cache
	p, err := Default(nil)
	if err != nil {
		t.Fatal(err)
	}
	q, _ := Default(nil)
	a, err := c.Assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := c.Assemble(q); a != b {
		t.Error("equal profiles are assembled twice")
	}
	q.Flags = []specs.LinuxSeccompFlag{}
	if b, _ := c.Assemble(q); a == b {
		t.Error("other flags, same filter")
	}
	for i := range 3 * cacheSize {
		n := uint(i)
		if _, err := c.Assemble(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &n}); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.filters) > cacheSize {
		t.Errorf("%d filters kept", len(c.filters))
	}
}

func TestProfiles(t *testing.T) {
	var p Profiles
	a, err := p.Get("", []string{"CAP_CHOWN", "CAP_KILL"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := p.Get("builtin", []string{"CAP_KILL", "CAP_CHOWN"}); err != nil || b != a {
		t.Errorf("the default profile was made again: %v", err)
	}
	if b, err := p.Get("unconfined", nil); err != nil || b != nil {
		t.Errorf("unconfined: %v %v", b, err)
	}
	b, err := p.Get(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mount","action":"SCMP_ACT_ERRNO"},{"names":["reboot"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_BOOT"]}}]}`, []string{"CAP_SYS_BOOT"})
	if err != nil || len(b.Syscalls) != 1 || b.Syscalls[0].Names[0] != "mount" {
		t.Errorf("custom: %+v %v", b, err)
	}
	if _, err := p.Get("{", nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("broken JSON: %v", err)
	}
}

func FuzzCustom(f *testing.F) {
	f.Add(`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_LT"}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Custom(text, nil)
		if err != nil || p == nil {
			return
		}
		if fl, err := Assemble(p); err == nil && (len(fl.Insns) == 0 || len(fl.Insns) > maxInsns) {
			t.Fatal("bad length")
		}
	})
}

// TestKernel loads the default filter in a child process and asks the kernel.
func TestKernel(t *testing.T) {
	if os.Getenv("SKIFF_SECCOMP_CHILD") != "" {
		child()
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKernel$")
	cmd.Env = append(os.Environ(), "SKIFF_SECCOMP_CHILD=1")
	out, err := cmd.CombinedOutput()
	want := "mount: operation not permitted\nclone3: function not implemented\nunborn: function not implemented\nvsock: operation not permitted\n" +
		"inet: ok\ngetpid: ok\nmode: 2\n"
	if err != nil || string(out) != want {
		t.Errorf("child: %v, said:\n%s", err, out)
	}
}

func child() {
	runtime.LockOSThread()
	p, err := Default(nil)
	if err == nil {
		err = loadFilter(p)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	say := func(name string, errno unix.Errno) {
		if errno == 0 {
			fmt.Printf("%s: ok\n", name)
			return
		}
		fmt.Printf("%s: %v\n", name, errno)
	}
	try := func(name string, nr, a, b uintptr) {
		r, _, errno := unix.RawSyscall(nr, a, b, 0)
		if name == "inet" && errno == 0 {
			_ = unix.Close(int(r))
		}
		say(name, errno)
	}
	try("mount", unix.SYS_MOUNT, 0, 0)
	try("clone3", unix.SYS_CLONE3, 0, 0)
	try("unborn", 3000, 0, 0)
	try("vsock", unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM)
	try("inet", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM)
	try("getpid", unix.SYS_GETPID, 0, 0)
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	if err != nil {
		fmt.Println(err)
	}
	fmt.Printf("mode: %d\n", mode)
	os.Exit(0)
}

func loadFilter(p *specs.LinuxSeccomp) error {
	f, err := Assemble(p)
	if err != nil {
		return err
	}
	b := f.Bytes()
	prog := unix.SockFprog{Len: uint16(len(f.Insns)), Filter: (*unix.SockFilter)(unsafe.Pointer(&b[0]))}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const setModeFilter = 1
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, uintptr(f.Flags)|unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return errors.Join(errors.New("seccomp"), errno)
	}
	return nil
}

func BenchmarkDefault(b *testing.B) {
	for b.Loop() {
		if _, err := Default([]string{"CAP_CHOWN", "CAP_SYS_CHROOT"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAssemble(b *testing.B) {
	p, _ := Default(nil)
	for b.Loop() {
		if _, err := Assemble(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCached(b *testing.B) {
	var c Cache
	p, _ := Default(nil)
	for b.Loop() {
		if _, err := c.Assemble(p); err != nil {
			b.Fatal(err)
		}
	}
}
