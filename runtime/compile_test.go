package runtime

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/runtime/cgroup"
	"skiff/runtime/launch"
)

var update = flag.Bool("update", false, "write the golden files")

// TestCompile compares launch programs with golden files: they are what a security review reads.
func TestCompile(t *testing.T) {
	v1 := []cgroup.Mount{
		{Host: "/sys/fs/cgroup/memory/skiff/x", Name: "memory", Controllers: []string{"memory"}, Options: "memory"},
		{Host: "/sys/fs/cgroup/cpu,cpuacct/skiff/x", Name: "cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}, Options: "cpu,cpuacct"},
		{Host: "/sys/fs/cgroup/unified/skiff/x", Name: "unified", V2: true},
	}
	v2 := []cgroup.Mount{{Host: "/sys/fs/cgroup/skiff/x", V2: true}}
	cgroups := specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}}
	user := func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	}
	for _, c := range []struct {
		name   string
		opt    CompileOptions
		change func(*specs.Spec)
	}{
		{"docker", CompileOptions{Base: true, NetNS: true, CgroupV2: true, Cgroups: v1, Stdio: [3]bool{true, true, true}}, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, cgroups,
				specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "/var/lib/skiff/hosts", Options: []string{"rbind", "rprivate"}})
		}},
		{"pivot", CompileOptions{CgroupV2: true, Cgroups: v2}, func(s *specs.Spec) { s.Mounts = append(s.Mounts, cgroups) }},
		{"terminal", CompileOptions{Base: true, NetNS: true, DevPTS: true, Stdio: [3]bool{true, true, true}}, func(s *specs.Spec) {
			s.Process.Terminal = true
			s.Process.ConsoleSize = &specs.Box{Width: 80, Height: 25}
			s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5, 6}}
		}},
		{"userns", CompileOptions{BindDevices: true}, user},
		{"hooks", CompileOptions{BeforePivot: true, Gate: true}, func(*specs.Spec) {}},
		{"volumes", CompileOptions{Base: true, Files: map[string]bool{"/srv/file": true}}, func(s *specs.Spec) {
			s.Root.Readonly = true
			s.Mounts = append(s.Mounts,
				specs.Mount{Destination: "/data", Type: "bind", Source: "/srv/data", Options: []string{"rbind", "rro", "rslave"}},
				specs.Mount{Destination: "/data/sub/file", Type: "bind", Source: "/srv/file", Options: []string{"bind", "ro", "noexec"}},
				specs.Mount{Destination: "/data/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := dockerSpec(t, "echo", "hello")
			c.change(spec)
			p, err := Compile(spec, c.opt)
			must(t, err)
			golden(t, c.name, p)
		})
	}
	t.Run("exec", func(t *testing.T) {
		spec := dockerSpec(t, "/bin/sh")
		spec.Process.Terminal = true
		joined := uint64(unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
		p, err := CompileExec(spec.Process, spec.Linux.Seccomp, joined, CompileOptions{Cgroups: v1, CgroupV2: true, Stdio: [3]bool{true, true, true}})
		must(t, err)
		golden(t, "exec", p)
	})
}

func golden(t *testing.T, name string, p *launch.Program) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	got := p.String()
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}
