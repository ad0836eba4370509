package runtime

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/runtime/launch"
	"skiff/runtime/seccomp"
)

// dockerCaps is Docker's default set.
var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// dockerSpec is what Docker asks for by default, without cgroups.
func dockerSpec(t testing.TB, args ...string) *specs.Spec {
	t.Helper()
	filter, err := seccomp.Default(dockerCaps)
	if err != nil {
		t.Fatal(err)
	}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "/rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/",
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box"},
			Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps},
		},
		Hostname: "box",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.UTSNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
			},
			Seccomp: filter,
			MaskedPaths: []string{
				"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// rootFS makes a folder with busybox and little else.
func rootFS(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "tmp", "proc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		t.Skip("needs a static busybox: ", err)
	}
	if err := os.WriteFile(dir+"/bin/busybox", data, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/usr/bin/busybox", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		if name != "busybox" {
			if err := os.Symlink("busybox", dir+"/bin/"+name); err != nil {
				t.Fatal(err)
			}
		}
	}
	passwd := "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
	if err := os.WriteFile(dir+"/etc/passwd", []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// box is a container of a test.
type box struct {
	proc *launch.Process
	out  *os.File
}

func launchBox(t testing.TB, spec *specs.Spec, change func(*ContainerInput)) (*box, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	defer func() { _ = w.Close() }()
	in := ContainerInput{Spec: spec, Stdio: Stdio{Out: w, Err: w}}
	if change != nil {
		change(&in)
	}
	a, err := Container(in)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	p, err := a.Program.Start(a.Files, launch.Options{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0)
		_ = p.PIDFD.Close()
	})
	return &box{proc: p, out: r}, nil
}

// run runs a container to its end.
func run(t testing.TB, spec *specs.Spec, change func(*ContainerInput)) (string, int) {
	t.Helper()
	b, err := launchBox(t, spec, change)
	if err != nil {
		t.Fatal(err)
	}
	return b.end(t)
}

func (b *box) end(t testing.TB) (string, int) {
	t.Helper()
	text, err := io.ReadAll(b.out)
	if err != nil {
		t.Fatal(err)
	}
	code, err := b.proc.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return string(text), code
}

func TestContainer(t *testing.T) {
	t.Run("pivot", func(t *testing.T) { testContainer(t, nil) })
	t.Run("base", func(t *testing.T) { testContainer(t, newBase(t)) })
}

func newBase(t testing.TB) *os.File {
	t.Helper()
	f, err := NewBase()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// testContainer looks at everything that Docker's default container has.
func testContainer(t *testing.T, base *os.File) {
	t.Helper()
	spec := dockerSpec(t, "sh", "-c", `
echo "$$ $(hostname) $HOME $PWD $(umask)"
grep -E '^(Cap(Prm|Eff|Bnd|Inh|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\t\n' ' '; echo
ls /dev | tr '\n' ' '; echo
cut -d' ' -f2,3 /proc/mounts | tr '\n' ','; echo
ls /proc/acpi/* /sys/firmware/* 2>/dev/null | wc -l
wc -c </proc/keys
echo x >/proc/sys/kernel/shmmax
mkdir /sys/x
set -- /proc/self/fd/*; echo $#
stat -c %a%t%T /dev/null
stat -c %a /dev/shm
ls -d /../bin
cat /proc/net/dev | wc -l
touch /new && echo written
`)
	spec.Root.Path = rootFS(t)
	text, code := run(t, spec, func(in *ContainerInput) { in.Base = base })
	want := `1 box /root / 0022
CapInh: 0000000000000000 CapPrm: 00000000a80425fb CapEff: 00000000a80425fb CapBnd: 00000000a80425fb CapAmb: 0000000000000000 NoNewPrivs: 0 Seccomp: 2 
core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 
/ ROOT,/proc proc,/dev tmpfs,/dev/pts devpts,/sys sysfs,/dev/mqueue mqueue,/dev/shm tmpfs,MASKS,/proc/bus proc,/proc/fs proc,/proc/irq proc,/proc/sys proc,/proc/sysrq-trigger proc,
0
0
sh: can't create /proc/sys/kernel/shmmax: Read-only file system
mkdir: can't create directory '/sys/x': Read-only file system
4
66613
1777
/../bin
3
written
`
	text = maskLine.ReplaceAllString(text, "/ ROOT,$1,MASKS,")
	text = strings.Replace(text, "/proc/sys proc,\n", "/proc/sys proc,/proc/sysrq-trigger proc,\n", 1) // a kernel without it
	if diff := cmp.Diff(want, text); diff != "" || code != 0 {
		t.Errorf("code %d\n%s", code, diff)
	}
}

// maskLine finds the root's type and the masks of what this kernel has.
var maskLine = regexp.MustCompile(`(?m)^/ \w+,(.*?/dev/shm tmpfs),(?:/(?:proc|sys)/\S+ tmpfs,)+`)

func TestStepErrorsOfContainers(t *testing.T) {
	dir := rootFS(t)
	for _, c := range []struct {
		args string
		code int
	}{{"nope", 127}, {"/nope", 127}, {"/etc", 126}, {"/etc/passwd", 126}} {
		spec := dockerSpec(t, c.args)
		spec.Root.Path = dir
		_, err := launchBox(t, spec, nil)
		var step *launch.StepError
		if !errors.As(err, &step) || step.ExitCode() != c.code {
			t.Errorf("%s: %v", c.args, err)
		}
	}
}
