package runtime

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/runtime/cgroup"
	"skiff/runtime/launch"
)

// TestSpecifications runs a script in containers that differ from Docker's default in one thing.
func TestSpecifications(t *testing.T) {
	dir := rootFS(t)
	host := t.TempDir()
	must(t, os.WriteFile(host+"/file", []byte("from the host\n"), 0o644))
	must(t, os.Mkdir(host+"/sub", 0o755))
	must(t, os.Chmod(host, 0o755))
	bind := func(opts ...string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: host, Options: append([]string{"rbind"}, opts...)})
		}
	}
	for _, c := range []struct {
		name, script, want string
		change             func(*specs.Spec)
	}{
		{"user", "id; pwd; grep CapEff /proc/self/status; echo ok >/dev/stdout; touch /x 2>&1", "uid=1000(user) gid=1000 groups=5\n/tmp\nCapEff:\t0000000000000000\nok\ntouch: /x: Permission denied\n", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5}}
			s.Process.Cwd = "/tmp"
		}},
		{"home of the user", "echo $HOME", "/home/user\n", func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000} }},
		{"home of nobody", "echo $HOME", "/\n", func(s *specs.Spec) { s.Process.User = specs.User{UID: 4711} }},
		{"ambient", "grep -E 'Cap(Eff|Amb)' /proc/self/status", "CapEff:\t0000000000000400\nCapAmb:\t0000000000000400\n", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000}
			one := []string{"CAP_NET_BIND_SERVICE"}
			s.Process.Capabilities.Inheritable, s.Process.Capabilities.Ambient = one, one
		}},
		{"umask", "umask", "0077\n", func(s *specs.Spec) { mask := uint32(0o77); s.Process.User.Umask = &mask }},
		{"no new privileges", "grep NoNewPrivs /proc/self/status; grep Seccomp: /proc/self/status", "NoNewPrivs:\t1\nSeccomp:\t2\n", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
		{"cwd is made", "pwd", "/srv/deep/folder\n", func(s *specs.Spec) { s.Process.Cwd = "/srv/deep/folder" }},
		{"read-only root", "touch /x; touch /dev/shm/x && echo ok", "touch: /x: Read-only file system\nok\n", func(s *specs.Spec) { s.Root.Readonly = true; s.Process.Cwd = "/made/before" }},
		{"bind", "cat /data/file; touch /data/x && rm /data/x && echo writable", "from the host\nwritable\n", bind()},
		{"bind ro", "cat /data/file; touch /data/x", "from the host\ntouch: /data/x: Read-only file system\n", bind("ro")},
		{"bind rro", "touch /data/x; grep -c ' /data .* ro,' /proc/mounts", "touch: /data/x: Read-only file system\n1\n", bind("rro")},
		{"bind flags", "grep ' /data ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1-5", "ro,nosuid,nodev,noexec,noatime\n", bind("ro", "nosuid", "nodev", "noexec", "noatime")},
		{"bind file", "cat /etc/hosts; ls -l /etc/hosts | cut -c1", "from the host\n-\n", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: host + "/file", Options: []string{"bind"}})
		}},
		{"bind in bind", "cat /data/sub/deep/x/file", "from the host\n", func(s *specs.Spec) {
			bind()(s)
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data/sub/deep/x", Type: "bind", Source: host, Options: []string{"bind"}})
		}},
		{"tmpfs in bind", "touch /data/sub/t/x; grep -c ' /data/sub/t tmpfs' /proc/mounts", "1\n", func(s *specs.Spec) {
			bind()(s)
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data/sub/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}})
		}},
		{"limits", "ulimit -n; ulimit -c", "512\n0\n", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 512, Hard: 1024}, {Type: "RLIMIT_CORE"}}
		}},
		{"limit too high", "echo runs", "runs\n", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 30, Hard: 1 << 30}}
		}},
		{"sysctl", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni", "79\n99\n", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "79", "kernel.shmmni": "99"}
		}},
		{"oom", "cat /proc/self/oom_score_adj", "321\n", func(s *specs.Spec) { n := 321; s.Process.OOMScoreAdj = &n }},
		{"device", "stat -c '%a %u %t:%T' /dev/fuse /dev/other/x; head -c2 /dev/zero | wc -c", "660 7 a:e5\n666 0 1:5\n2\n", func(s *specs.Spec) {
			mode, uid := os.FileMode(0o660), uint32(7)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &uid}, {Path: "/dev/other/x", Type: "c", Major: 1, Minor: 5}}
		}},
		{"domain name", "cat /proc/sys/kernel/domainname", "example.org\n", func(s *specs.Spec) { s.Domainname = "example.org" }},
		{"time", "cut -d. -f1 /proc/uptime | head -c5", "10000", func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1_000_000_000}}
		}},
		{"cgroup namespace", "grep -c . /proc/self/cgroup >/dev/null && echo ok", "ok\n", func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}},
		{"no /dev tmpfs", "wc -c </proc/keys; ls /dev/null", "0\n/dev/null\n", func(s *specs.Spec) { s.Mounts = s.Mounts[:1] }},
		{"unconfined", "unshare -Urm echo nested", "nested\n", func(s *specs.Spec) { s.Linux.Seccomp = nil; s.Linux.MaskedPaths = nil }},
		{"personality", "uname -m", "i686\n", func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }},
		{"scheduler", "echo ok", "ok\n", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := dockerSpec(t, "sh", "-c", c.script)
			spec.Root.Path = dir
			c.change(spec)
			for _, base := range []*os.File{nil, newBase(t)} {
				if text, _ := run(t, spec, func(in *ContainerInput) { in.Base = base }); text != c.want {
					t.Errorf("base %t: got %q, want %q", base != nil, text, c.want)
				}
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func chownAll(t testing.TB, dir string, id int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, id, id)
	}))
}

// TestHostMountNamespace is a container without a mount namespace: what it mounts appears below its root's path only.
func TestHostMountNamespace(t *testing.T) {
	dir := rootFS(t)
	spec := dockerSpec(t, "sh", "-c", "cut -d' ' -f2 /proc/mounts | grep -E '^/(proc|dev|sys)$' | tr '\\n' ' '; ls /dev/null")
	spec.Root.Path = dir
	spec.Linux.Namespaces = spec.Linux.Namespaces[1:]
	text, code := run(t, spec, nil)
	if want := "/proc /dev /sys /dev/null\n"; text != want || code != 0 {
		t.Errorf("code %d, got %q", code, text)
	}
	must(t, unix.Unmount(dir, unix.MNT_DETACH))
	if left, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(left), dir) {
		t.Error("mounts are left on the host")
	}
}

// TestKeepOrder looks for a bind mount between others in the container's mount table.
func TestKeepOrder(t *testing.T) {
	spec := dockerSpec(t, "sh", "-c", "cut -d' ' -f2 /proc/mounts | grep -E '^/(data|sys)$'")
	spec.Root.Path = rootFS(t)
	spec.Mounts = slices.Insert(spec.Mounts, 4, specs.Mount{Destination: "/data", Type: "bind", Source: t.TempDir(), Options: []string{"bind"}})
	if text, _ := run(t, spec, func(in *ContainerInput) { in.KeepOrder = true }); text != "/sys\n/data\n" {
		t.Errorf("got %q", text)
	}
}

func TestUserNamespaceContainer(t *testing.T) {
	dir := rootFS(t)
	for p := dir; p != "/tmp"; p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o755))
	}
	chownAll(t, dir, 100000)
	spec := dockerSpec(t, "sh", "-c", "id -u; cut -c1-40 /proc/self/uid_map | tr -s ' '; head -c1 /dev/zero | wc -c; hostname; grep -c ' /proc proc' /proc/mounts; touch /dev/shm/x && echo ok")
	spec.Root.Path = dir
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	spec.Linux.GIDMappings = spec.Linux.UIDMappings
	text, code := run(t, spec, nil)
	if want := "0\n 0 100000 65536\n1\nbox\n1\nok\n"; text != want || code != 0 {
		t.Errorf("code %d, got %q, want %q", code, text, want)
	}
}

// TestHostileImages makes images whose links want to steer mounts out of the root file system.
func TestHostileImages(t *testing.T) {
	outside := t.TempDir()
	src := t.TempDir()
	must(t, os.WriteFile(src+"/file", []byte("content"), 0o644))
	for _, c := range []struct{ name, link, to, dest, inside string }{
		{"absolute", "/data", outside, "/data", outside},
		{"absolute, missing", "/data", outside + "/made/here", "/data", outside + "/made/here"},
		{"dots", "/data", "../../../../../../../.." + outside, "/data/x", outside + "/x"},
		{"chain", "/data", "/proc/self/../../var/x", "/data", "/var/x"},
		{"through descriptors", "/data", "/proc/self/fd/5", "/data/x/y", ""},
		{"of the root", "/data", "/proc/1/root", "/data/x", ""},
		{"fake proc", "/data", "/proc", "/data", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := rootFS(t)
			must(t, os.Symlink(c.to, dir+c.link))
			spec := dockerSpec(t, "cat", c.inside+"/file")
			spec.Root.Path = dir
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: c.dest, Type: "bind", Source: src, Options: []string{"bind"}})
			b, err := launchBox(t, spec, nil)
			if err == nil {
				text, _ := b.end(t)
				if c.inside == "" || text != "content" {
					t.Errorf("got %q", text)
				}
			} else if c.inside != "" {
				t.Error(err)
			}
			if left, _ := os.ReadDir(outside); len(left) > 0 {
				t.Errorf("%v appeared outside", left)
			}
		})
	}
	t.Run("proc is a link", func(t *testing.T) {
		dir := rootFS(t)
		must(t, os.Remove(dir+"/proc"))
		must(t, os.Symlink("/tmp", dir+"/proc"))
		spec := dockerSpec(t, "true")
		spec.Root.Path = dir
		if _, err := launchBox(t, spec, nil); err == nil || !strings.Contains(err.Error(), "must be mounted on ordinary directory") {
			t.Errorf("error %v", err)
		}
	})
}

func TestInvalidSpecifications(t *testing.T) {
	dir := rootFS(t)
	for _, c := range []struct {
		name, want string
		change     func(*specs.Spec)
	}{
		{"no source", "mount source of /data: open_tree /nowhere/here: no such file or directory", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: "/nowhere/here"})
		}},
		{"no root", "root file system: stat /nowhere/root: no such file or directory", func(s *specs.Spec) { s.Root.Path = "/nowhere/root" }},
		{"unknown type", "mount nofs on /data: no such device", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "nofs", Source: "x"})
		}},
		{"file as cwd", "chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory", func(s *specs.Spec) { s.Process.Cwd = "/etc/passwd" }},
		{"host sysctl", `sysctl "vm.swappiness" is not in a separate kernel namespace`, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }},
		{"limit", `unknown resource limit "RLIMIT_X"`, func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }},
		{"no arguments", "the process has no arguments", func(s *specs.Spec) { s.Process.Args = nil }},
		{"NUL", `argument or environment "a\x00b" contains a NUL`, func(s *specs.Spec) { s.Process.Args = []string{"a\x00b"} }},
	} {
		spec := dockerSpec(t, "true")
		spec.Root.Path = dir
		c.change(spec)
		if _, err := launchBox(t, spec, nil); err == nil || err.Error() != c.want {
			t.Errorf("%s: error %v, want %s", c.name, err, c.want)
		}
	}
}

func TestCgroups(t *testing.T) {
	host, err := cgroup.Detect()
	must(t, err)
	cg, _, err := host.Create(fmt.Sprintf("/skiff-runtime-test-%d", os.Getpid()), nil)
	must(t, err)
	t.Cleanup(func() { must(t, cg.Remove(context.Background())) })
	for _, private := range []bool{false, true} {
		spec := dockerSpec(t, "sh", "-c", "grep -c skiff-runtime-test /proc/self/cgroup; cat /sys/fs/cgroup/pids/cgroup.procs | tr '\\n' ' '; mkdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x 2>&1 | grep -c 'Read-only'; ls /sys/fs/cgroup")
		spec.Root.Path = rootFS(t)
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}})
		if private {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}
		text, code := run(t, spec, func(in *ContainerInput) { in.Cgroup = cg })
		t.Logf("private %t: code %d\n%s", private, code, text)
		if lines := strings.Split(text, "\n"); len(lines) < 3 || (lines[0] == "0") != private || !strings.HasPrefix(lines[1], "1 ") || !strings.HasSuffix(lines[1], "2") {
			t.Errorf("private %t: got %q", private, text)
		}
	}
}

func TestTerminal(t *testing.T) {
	master, slave, devpts, err := NewPTY(81, 25)
	must(t, err)
	defer func() { _ = master.Close() }()
	spec := dockerSpec(t, "sh", "-c", "tty; stty size; ls /dev/pts; test -e /dev/console && echo console; echo to >/dev/tty; stat -c %u:%g /dev/pts/0")
	spec.Root.Path = rootFS(t)
	spec.Process.Terminal = true
	spec.Process.User.UID = 1000
	a, err := Container(ContainerInput{Spec: spec, Stdio: Stdio{slave, slave, slave}, DevPTS: devpts})
	must(t, err)
	p, err := a.Program.Start(a.Files, launch.Options{})
	a.Close()
	_, _ = slave.Close(), devpts.Close()
	must(t, err)
	defer func() { _ = p.PIDFD.Close() }()
	text, _ := io.ReadAll(master) // ends with EIO
	if _, err := p.Wait(); err != nil {
		t.Error(err)
	}
	if want := "/dev/pts/0\r\n25 81\r\n0     ptmx\r\nconsole\r\nto\r\n1000:5\r\n"; string(text) != want {
		t.Errorf("got %q, want %q", text, want)
	}
}

func TestExec(t *testing.T) {
	dir := rootFS(t)
	for _, user := range []bool{false, true} {
		spec := dockerSpec(t, "sleep", "100")
		spec.Root.Path = dir
		if user {
			for p := dir; p != "/tmp"; p = filepath.Dir(p) {
				must(t, os.Chmod(p, 0o755))
			}
			chownAll(t, dir, 100000)
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			spec.Linux.GIDMappings = spec.Linux.UIDMappings
		}
		b, err := launchBox(t, spec, nil)
		must(t, err)
		proc := *spec.Process
		proc.Args = []string{"sh", "-c", "hostname; pwd; id -u; echo $HOME; grep -E 'CapEff|Seccomp:' /proc/self/status; ps | grep -c '[s]leep 100'; set -- /proc/self/fd/*; echo $#"}
		proc.Cwd, proc.User = "/tmp", specs.User{UID: 1000, GID: 1000}
		text, code := execIn(t, b, &proc, spec.Linux.Seccomp)
		want := "box\n/tmp\n1000\n/home/user\nCapEff:\t0000000000000000\nSeccomp:\t2\n1\n4\n"
		if text != want || code != 0 {
			t.Errorf("user namespace %t: code %d, got %q", user, code, text)
		}
	}
}

func execIn(t testing.TB, b *box, proc *specs.Process, filter *specs.LinuxSeccomp) (string, int) {
	t.Helper()
	e, err := tryExec(t, b, proc, filter)
	must(t, err)
	return e.end(t)
}

func tryExec(t testing.TB, b *box, proc *specs.Process, filter *specs.LinuxSeccomp) (*box, error) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	defer func() { _ = w.Close() }()
	a, err := Exec(ExecInput{Process: proc, Seccomp: filter, PID: b.proc.PID, PIDFD: b.proc.PIDFD, Stdio: Stdio{Out: w, Err: w}})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	p, err := a.Program.Start(a.Files, launch.Options{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = p.PIDFD.Close() })
	return &box{proc: p, out: r}, nil
}

func TestExecErrors(t *testing.T) {
	spec := dockerSpec(t, "sleep", "100")
	spec.Root.Path = rootFS(t)
	b, err := launchBox(t, spec, nil)
	must(t, err)
	for _, c := range []struct{ arg, cwd, want string }{
		{"nope", "/", `exec: "nope": executable file not found in $PATH`},
		{"/etc", "/", `exec: "/etc": is a directory`},
		{"true", "/nope", `chdir to cwd ("/nope") set in config.json failed: no such file or directory`},
	} {
		proc := *spec.Process
		proc.Args, proc.Cwd = []string{c.arg}, c.cwd
		if _, err := tryExec(t, b, &proc, nil); err == nil || err.Error() != c.want {
			t.Errorf("error %v, want %s", err, c.want)
		}
	}
	must(t, unix.PidfdSendSignal(int(b.proc.PIDFD.Fd()), unix.SIGKILL, nil, 0))
	if _, err := b.proc.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := tryExec(t, b, spec.Process, nil); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("in a dead container: %v", err)
	}
}

func TestJoinNamespaces(t *testing.T) {
	dir := rootFS(t)
	spec := dockerSpec(t, "sleep", "100")
	spec.Root.Path = dir
	first, err := launchBox(t, spec, nil)
	must(t, err)
	second := dockerSpec(t, "sh", "-c", "ps | grep -c '[s]leep 100'; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; hostname")
	second.Root.Path, second.Hostname = dir, ""
	var want strings.Builder
	want.WriteString("1\n")
	second.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace} {
		file := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net"}[kind]
		if file == "" {
			file = string(kind)
		}
		p := fmt.Sprintf("/proc/%d/ns/%s", first.proc.PID, file)
		second.Linux.Namespaces = append(second.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: p})
		if file == "net" || file == "ipc" {
			link, err := os.Readlink(p)
			must(t, err)
			want.WriteString(link + "\n")
		}
	}
	want.WriteString("box\n")
	if text, _ := run(t, second, nil); text != want.String() {
		t.Errorf("got %q, want %q", text, want.String())
	}
}

// TestBindOfAnotherContainer shares /dev/shm of another container (--ipc container:…).
func TestBindOfAnotherContainer(t *testing.T) {
	dir := rootFS(t)
	first := dockerSpec(t, "sh", "-c", "echo shared >/dev/shm/x; echo; sleep 100")
	first.Root.Path = dir
	b, err := launchBox(t, first, nil)
	must(t, err)
	if _, err := b.out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	second := dockerSpec(t, "cat", "/dev/shm/x")
	second.Root.Path = dir
	second.Mounts[5] = specs.Mount{Destination: "/dev/shm", Type: "bind", Source: fmt.Sprintf("/proc/%d/root/dev/shm", b.proc.PID), Options: []string{"rbind"}}
	if text, _ := run(t, second, nil); text != "shared\n" {
		t.Errorf("got %q", text)
	}
}

func TestGateAndPauses(t *testing.T) {
	spec := dockerSpec(t, "echo", "hello")
	spec.Root.Path = rootFS(t)
	var near, far [4]*os.File
	for i := range near {
		var err error
		near[i], far[i], err = os.Pipe()
		must(t, err)
		defer func() { _, _ = near[i].Close(), far[i].Close() }()
	}
	seen := make(chan int, 1)
	go func() { // plays the hooks: 0 is told, 1 is waited for
		var b [1]byte
		n, _ := near[0].Read(b[:])
		seen <- n
		_, _ = far[1].Write(b[:])
	}()
	b, err := launchBox(t, spec, func(in *ContainerInput) {
		in.BeforePivot = &Pause{Tell: far[0], Wait: near[1]}
		in.Gate = &Gate{Wait: near[2], Errors: far[3]}
	})
	must(t, err)
	if n := <-seen; n != 1 {
		t.Error("the hooks were not told")
	}
	must(t, b.out.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
	if n, err := b.out.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("the process did not wait at the gate")
	}
	must(t, b.out.SetReadDeadline(time.Time{}))
	_, err = far[2].Write([]byte{1})
	must(t, err)
	if text, code := b.end(t); text != "hello\n" || code != 0 {
		t.Errorf("got %q, code %d", text, code)
	}
}
