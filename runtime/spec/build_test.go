package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
	"skiff/runtime/seccomp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func ptr[T any](v T) *T { return &v }

// testKernel can do everything, whatever the machine can.
func testKernel() Kernel {
	return Kernel{
		CPUs: 2, CPUList: "0-1", MemoryNodes: "0", CgroupVersion: 1, RecursiveRO: true,
		Cgroup: cgroup.Support{
			Any: true, Memory: true, Swap: true, Reservation: true, Swappiness: true, OOMDisable: true, Shares: true, CFS: true,
			Realtime: true, Burst: true, CPUIdle: true, Cpuset: true, Pids: true, Weight: true, WeightDevice: true, Throttle: true,
			Hugetlb: true, NetClass: true, NetPrio: true, RDMA: true, Unified: true,
		},
		Caps: append(slices.Clone(defaultCaps), "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_TIME"),
	}
}

const testPasswd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/usr/sbin:/bin/false
bob:x:1000:1001:Bob:/home/bob:/bin/sh
homeless:x:1002:1002:::
`

const testGroup = `root:x:0:
adm:x:4:bob,root
users:x:100:bob
bob:x:1001:
`

// testRoot is a root folder with accounts.
func testRoot(t testing.TB) *os.File {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"passwd": testPasswd, "group": testGroup} {
		if err := os.MkdirAll(dir+"/etc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return open(t, dir)
}

func open(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func testInput(t testing.TB) Input {
	return Input{
		ID:         "0123456789ab",
		Config:     &container.Config{Hostname: "0123456789ab", Cmd: []string{"/bin/sh"}, Env: []string{"A=b"}},
		HostConfig: &container.HostConfig{NetworkMode: "bridge", IpcMode: "private", ShmSize: 64 << 20},
		Kernel:     testKernel(), Profiles: &seccomp.Profiles{}, Root: testRoot(t), NetNS: true,
		Hosts: "/h/hosts", Hostname: "/h/hostname", ResolvConf: "/h/resolv.conf", InitPath: "/usr/bin/skiff-init",
	}
}

func TestGolden(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"plain": func(*Input) {},
		"tty-user-limits": func(in *Input) {
			in.Config.Tty, in.Config.User, in.Config.WorkingDir = true, "bob", "/srv"
			in.Config.Entrypoint, in.Config.Domainname = []string{"/entry"}, "example.org"
			in.Init = true
			h := in.HostConfig
			h.ConsoleSize, h.GroupAdd, h.Umask = [2]uint{25, 80}, []string{"users", "77"}, ptr(uint32(0o27))
			h.ReadonlyRootfs, h.SecurityOpt, h.OomScoreAdj = true, []string{"no-new-privileges", "seccomp=unconfined"}, 500
			h.Resources = container.Resources{
				Memory: 64 << 20, MemorySwap: 128 << 20, MemoryReservation: 32 << 20, MemorySwappiness: ptr(int64(5)), OomKillDisable: ptr(true),
				NanoCPUs: 1.5e9, CPUShares: 512, CpusetCpus: "0-1", PidsLimit: ptr(int64(99)), BlkioWeight: 100,
				Ulimits: []*container.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}},
			}
			h.Sysctls = map[string]string{"kernel.shmmax": "1000", "net.core.somaxconn": "5"}
			h.CapAdd, h.CapDrop = []string{"net_admin"}, []string{"CAP_MKNOD", "chown"}
			h.CgroupParent, h.CgroupnsMode = "mine", "private"
		},
		"mounts": func(in *Input) {
			h := in.HostConfig
			h.Binds = []string{"/src/a:/dst/a:ro,z", "/src/b:/etc/hosts", "/src/c:/dst/a/inner:rshared"}
			h.Mounts = []mount.Mount{
				{Type: mount.TypeBind, Source: "/src/d", Target: "/d/", ReadOnly: true, BindOptions: &mount.BindOptions{ReadOnlyNonRecursive: true, NonRecursive: true, Propagation: "rslave"}},
				{Type: mount.TypeTmpfs, Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 3 << 20, Mode: 0o1777, Options: [][]string{{"exec"}}}},
			}
			h.Tmpfs = map[string]string{"/run": "rw,exec,size=1m", "/tmp": ""}
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{"/proc/sys/"}
		},
		"shared": func(in *Input) {
			h := in.HostConfig
			h.NetworkMode, h.IpcMode, h.PidMode = "container:a", "container:b", "container:c"
			in.JoinNet, in.JoinIPC, in.JoinPID, in.NetNS = 11, 12, 13, false
			h.UTSMode, h.CgroupnsMode = "host", "host"
		},
		"host": func(in *Input) {
			h := in.HostConfig
			h.NetworkMode, h.IpcMode, h.PidMode = "host", "host", "host"
			in.Kernel.CgroupVersion = 2
			in.Init = true // has no effect in another's pid namespace
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := testInput(t)
			change(&in)
			s, warn, err := Build(in)
			if err != nil || len(warn) > 0 {
				t.Fatal(err, warn)
			}
			if p := s.Linux.Seccomp; p != nil {
				if p.DefaultAction != specs.ActErrno || len(p.Syscalls) < 10 {
					t.Errorf("seccomp: %+v", p)
				}
				s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "the default profile"}
			}
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetIndent("", " ")
			enc.SetEscapeHTML(false)
			if err := enc.Encode(s); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPrivileged(t *testing.T) {
	in := testInput(t)
	in.HostConfig.Privileged = true
	in.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/other", CgroupPermissions: "r"}}
	s, warn, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(warn) != 1 || warn[0] != "custom r permissions for device /dev/null are ignored in privileged mode" {
		t.Errorf("warnings: %v", warn)
	}
	l := s.Linux
	if l.Seccomp != nil || len(l.MaskedPaths)+len(l.ReadonlyPaths) > 0 {
		t.Errorf("protected: %v %v %v", l.Seccomp, l.MaskedPaths, l.ReadonlyPaths)
	}
	if !slices.Equal(s.Process.Capabilities.Bounding, in.Kernel.Caps) {
		t.Errorf("capabilities: %v", s.Process.Capabilities.Bounding)
	}
	if len(l.Resources.Devices) != 1 || !l.Resources.Devices[0].Allow {
		t.Errorf("rules: %+v", l.Resources.Devices)
	}
	for _, p := range []string{"/dev/null", "/dev/zero", "/dev/other"} {
		if !slices.ContainsFunc(l.Devices, func(d specs.LinuxDevice) bool { return d.Path == p }) {
			t.Errorf("%s is missing", p)
		}
	}
	for _, m := range s.Mounts {
		if strings.HasPrefix(m.Destination, "/sys") && slices.Contains(m.Options, "ro") {
			t.Errorf("%s is read-only", m.Destination)
		}
	}
	in.HostConfig.SecurityOpt = []string{"seccomp=" + `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["acct"],"action":"SCMP_ACT_ERRNO"}]}`}
	if s, _, err = Build(in); err != nil || s.Linux.Seccomp == nil {
		t.Errorf("a named profile holds for a privileged container: %v", err)
	}
}

func TestDevices(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/dev/zero", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		m    container.DeviceMapping
		want string // path type major:minor access, or the error
	}{
		{container.DeviceMapping{PathOnHost: "/dev/null", PathInContainer: "/dev/n", CgroupPermissions: "rw"}, "/dev/n c 1:3 rw"},
		{container.DeviceMapping{PathOnHost: dir + "/link", PathInContainer: "/dev/z"}, "/dev/z c 1:5 rwm"},
		{container.DeviceMapping{PathOnHost: "/no/such"}, `error gathering device information while adding custom device "/no/such": no such file or directory`},
		{container.DeviceMapping{PathOnHost: dir + "/file"}, `error gathering device information while adding custom device "` + dir + `/file": not a device node`},
		{container.DeviceMapping{PathOnHost: dir}, "not a device node"},
		{container.DeviceMapping{PathOnHost: "/dev/null", CgroupPermissions: "x"}, `invalid device mode "x"`},
		{container.DeviceMapping{PathOnHost: "/dev/null", PathInContainer: "null"}, "must be absolute"},
	} {
		in := testInput(t)
		in.HostConfig.Devices = []container.DeviceMapping{c.m}
		s, _, err := Build(in)
		if err != nil {
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v", c.m, err)
			}
			continue
		}
		d, r := s.Linux.Devices[0], s.Linux.Resources.Devices
		last := r[len(r)-1]
		got := d.Path + " " + d.Type + " " + itoa(d.Major) + ":" + itoa(d.Minor) + " " + last.Access
		if got != c.want || *last.Major != d.Major || *last.Minor != d.Minor || !last.Allow {
			t.Errorf("%+v: %s", c.m, got)
		}
	}
	for rule, ok := range map[string]bool{"c 1:3 rwm": true, "a *:* m": true, "a": true, "b 8:* r": true, "c 1:3": false, " c 1:3 r": false, "c 1:3 rwmm": false, "u 1:3 r": false, "c 99999999999999999999:1 r": false} {
		in := testInput(t)
		in.HostConfig.DeviceCgroupRules = []string{rule}
		_, _, err := Build(in)
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "device cgroup rule format: '"+rule+"'") {
			t.Errorf("%q: %v", rule, err)
		}
	}
}

func itoa(n int64) string { b, _ := json.Marshal(n); return string(b) }

func TestEnvironment(t *testing.T) {
	c := &container.Config{Hostname: "h"}
	for _, x := range []struct {
		tty      bool
		settings []string
		want     string
	}{
		{false, nil, defaultPath + " HOSTNAME=h HOME=/root"},
		{true, []string{"A=1", "PATH=/x", "A=2", "TERM"}, "PATH=/x HOSTNAME=h A=2 HOME=/root"},
		{false, []string{"HOME=", "HOSTNAME"}, defaultPath + " HOME=/root"},
		{false, []string{"HOME=/h", "X="}, defaultPath + " HOSTNAME=h HOME=/h X="},
	} {
		if got := strings.Join(environment(c, x.tty, x.settings, "/root"), " "); got != x.want {
			t.Errorf("%v: %s", x.settings, got)
		}
	}
}

func TestExec(t *testing.T) {
	root := testRoot(t)
	base := func() ExecInput {
		return ExecInput{
			Config:     &container.Config{Hostname: "h", User: "bob", WorkingDir: "/w", Env: []string{"A=1"}},
			HostConfig: &container.HostConfig{CapDrop: []string{"ALL"}, CapAdd: []string{"KILL"}, OomScoreAdj: 7, Resources: container.Resources{Ulimits: []*container.Ulimit{{Name: "core", Soft: 0, Hard: 0}}}},
			Request:    container.ExecCreateRequest{Cmd: []string{"id"}, Env: []string{"A=2"}}, Kernel: testKernel(), Root: root,
		}
	}
	p, err := ExecProcess(base())
	if err != nil {
		t.Fatal(err)
	}
	caps := []string{"CAP_KILL"}
	want := &specs.Process{
		User: specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{1001, 4, 100}}, Args: []string{"id"}, Cwd: "/w",
		Env:          []string{defaultPath, "HOSTNAME=h", "A=2", "HOME=/home/bob"},
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}}, OOMScoreAdj: ptr(7),
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
	in := base()
	in.Request = container.ExecCreateRequest{Cmd: []string{"sh"}, User: "0", Tty: true, ConsoleSize: &[2]uint{3, 4}, Privileged: true, WorkingDir: "/x"}
	if p, err = ExecProcess(in); err != nil {
		t.Fatal(err)
	}
	if p.User.UID != 0 || !p.Terminal || p.ConsoleSize.Width != 4 || p.Cwd != "/x" || len(p.Capabilities.Permitted) != len(in.Kernel.Caps) ||
		!slices.Contains(p.Env, "TERM=xterm") || !slices.Contains(p.Env, "HOME=/root") {
		t.Errorf("%+v", p)
	}
	in = base()
	in.Request.Cmd = nil
	if _, err := ExecProcess(in); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
	in = base()
	in.Request.WorkingDir = "rel"
	if _, err := ExecProcess(in); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

func TestCapabilities(t *testing.T) {
	k := testKernel()
	for _, c := range []struct {
		add, drop []string
		want      string
	}{
		{[]string{"ALL"}, nil, strings.Join(k.Caps, " ")},
		{[]string{"all"}, []string{"ALL"}, strings.Join(k.Caps, " ")}, // as dockerd has it
		{nil, []string{"all"}, ""},
		{[]string{"Kill", "CAP_KILL", "sys_time"}, []string{"ALL"}, "CAP_KILL CAP_SYS_TIME"},
		{[]string{"ALL"}, []string{"SYS_TIME", "SYS_ADMIN", "NET_ADMIN"}, strings.Join(defaultCaps, " ")},
		{[]string{"NOPE"}, nil, `invalid CapAdd: unknown capability: "CAP_NOPE"`},
		{nil, []string{"cap_nope"}, `invalid CapDrop: unknown capability: "CAP_NOPE"`},
		{[]string{"SYS_RESOURCE"}, nil, `invalid CapAdd: capability not supported by your kernel or not available in the current environment: "CAP_SYS_RESOURCE"`},
		{nil, []string{"SYS_RESOURCE"}, strings.Join(defaultCaps, " ")},
	} {
		got, err := capabilities(c.add, c.drop, false, &k)
		text := strings.Join(got, " ")
		if err != nil {
			text = err.Error()
		}
		if text != c.want {
			t.Errorf("+%v -%v: %s", c.add, c.drop, text)
		}
	}
	k.Caps = []string{"CAP_CHOWN"} // what we don't have we can't hand on
	if got, err := capabilities(nil, nil, false, &k); err != nil || len(got) != 1 {
		t.Errorf("%v %v", got, err)
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	h := &container.HostConfig{Binds: []string{dir + "/a/b:/x"}, Mounts: []mount.Mount{{Type: mount.TypeBind, Source: dir + "/c", Target: "/c", BindOptions: &mount.BindOptions{CreateMountpoint: true}}}}
	if err := MakeBindSources(h); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/a/b", "/c"} {
		if st, err := os.Stat(dir + p); err != nil || !st.IsDir() {
			t.Errorf("%s: %v", p, err)
		}
	}
	h.Mounts[0].BindOptions, h.Mounts[0].Source = nil, dir+"/none"
	if err := MakeBindSources(h); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/none"); err == nil {
		t.Error("a strict source was made")
	}
}

// A specification built for this machine, from what it really can.
func TestOnThisMachine(t *testing.T) {
	host, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	k, err := DetectKernel(host)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", k)
	in := testInput(t)
	in.Kernel = k
	if _, err := Validate(in.Config, in.HostConfig, k); err != nil {
		t.Error(err)
	}
	if _, _, err := Build(in); err != nil {
		t.Error(err)
	}
}

func BenchmarkBuild(b *testing.B) {
	in := testInput(b)
	for b.Loop() {
		if _, _, err := Build(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	in := testInput(b)
	for b.Loop() {
		if _, err := Validate(in.Config, in.HostConfig, in.Kernel); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExecProcess(b *testing.B) {
	in := testInput(b)
	e := ExecInput{Config: in.Config, HostConfig: in.HostConfig, Kernel: in.Kernel, Root: in.Root, Request: container.ExecCreateRequest{Cmd: []string{"true"}}}
	for b.Loop() {
		if _, err := ExecProcess(e); err != nil {
			b.Fatal(err)
		}
	}
}
