package e2e

import (
	"strings"
	"testing"
)

// TestInside looks at the container from inside: what a process there sees and may do.
func TestInside(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		for _, tc := range []struct {
			name  string
			flags []string
			sh    string
			want  string
		}{
			{"default capabilities", nil, "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"},
			{"seccomp filter", nil, "grep '^Seccomp:' /proc/self/status", "Seccomp:\t2"},
			{"seccomp denies", nil, "unshare -U true 2>&1 | grep -o 'Operation not permitted'", "Operation not permitted"},
			{"seccomp unconfined", []string{"--security-opt", "seccomp=unconfined"}, "grep '^Seccomp:' /proc/self/status", "Seccomp:\t0"},
			{"cap-drop", []string{"--cap-drop", "ALL"}, "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"},
			{"cap-add", []string{"--cap-drop", "ALL", "--cap-add", "NET_ADMIN"}, "grep CapEff /proc/self/status", "CapEff:\t0000000000001000"},
			{"no-new-privileges", []string{"--security-opt", "no-new-privileges"}, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"},
			{"the kernel's timer slack, not ours", nil, "cat /proc/self/timerslack_ns", "50000"},
			{"pid 1", nil, "echo $$", "1"},
			{"only own processes", nil, "ls -d /proc/[0-9]*", "/proc/1"},
			{"hostname", []string{"--hostname", "box"}, "hostname; grep -c box /etc/hosts", "box\n1"},
			{"user by name", []string{"-u", "www-data"}, "id -u; id -g", "33\n33"},
			{"user by ids", []string{"-u", "1234:5678"}, "id -u; id -g", "1234\n5678"},
			{"working folder", []string{"-w", "/made/for/me"}, "pwd", "/made/for/me"},
			{"environment", []string{"-e", "A=b c"}, "echo \"$A\"; echo $HOME", "b c\n/root"},
			{"read-only root", []string{"--read-only"}, "touch /x 2>&1 | grep -o 'Read-only file system'", "Read-only file system"},
			{"masked path", nil, "wc -c < /proc/timer_list; ls /sys/firmware | wc -l", "0\n0"},
			{"read-only path", nil, "echo 1 2>/dev/null > /proc/sys/kernel/panic || echo refused", "refused"},
			{"tmpfs", []string{"--tmpfs", "/scratch:size=1m"}, "df -k /scratch | tail -n 1 | awk '{print $2}'", "1024"},
			{"shm", nil, "df -k /dev/shm | tail -n 1 | awk '{print $2}'", "65536"},
			{"devices", nil, "ls -A /dev | tr '\\n' ' '", "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "},
			{"ulimit", []string{"--ulimit", "nofile=100:200"}, "ulimit -n; ulimit -Hn", "100\n200"},
			{"oom score", []string{"--oom-score-adj", "500"}, "cat /proc/self/oom_score_adj", "500"},
			{"sysctl", []string{"--sysctl", "net.ipv4.ip_default_ttl=99"}, "cat /proc/sys/net/ipv4/ip_default_ttl", "99"},
			{"init", []string{"--init"}, "cat /proc/1/cmdline | tr '\\0' ' ' | cut -d' ' -f1", "/sbin/docker-init"},
			{"no network", []string{"--network", "none"}, "ls /sys/class/net", "lo"},
			{"mac address", []string{"--mac-address", "02:42:ac:11:00:99"}, "cat /sys/class/net/eth0/address", "02:42:ac:11:00:99"},
			{"add-host", []string{"--add-host", "there:10.1.2.3"}, "grep there /etc/hosts", "10.1.2.3\tthere"},
			{"dns", []string{"--dns", "10.9.8.7", "--dns-search", "example.org"}, "grep -v -e '^#' -e '^$' /etc/resolv.conf", "nameserver 10.9.8.7\nsearch example.org"},
			{"host's uts", []string{"--uts", "host"}, "readlink /proc/self/ns/uts | grep -c .", "1"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				args := append(append([]string{"run", "--rm"}, tc.flags...), "busybox", "sh", "-c", tc.sh)
				if got := c.ok(t, args...); got != tc.want {
					t.Errorf("%v\n got %q\nwant %q", args, got, tc.want)
				}
			})
		}
	})
}

func TestPrivileged(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		got := c.ok(t, "run", "--rm", "--privileged", "busybox", "sh", "-c",
			"grep '^Seccomp:' /proc/self/status; mkdir /m && mount -t tmpfs none /m && echo mounted; ls /dev | wc -l")
		f := strings.Fields(got)
		if len(f) != 4 || f[1] != "0" || f[2] != "mounted" || len(f[3]) < 2 {
			t.Errorf("privileged: %q", got)
		}
		got = c.ok(t, "run", "--rm", "--device", "/dev/fuse:/dev/myfuse:r", "busybox", "sh", "-c", "ls /dev/myfuse; test -c /dev/myfuse && echo device")
		if got != "/dev/myfuse\ndevice" {
			t.Errorf("device: %q", got)
		}
	})
}

// TestSharedNamespaces joins another container's namespaces.
func TestSharedNamespaces(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		first := c.ok(t, "run", "-d", "--ipc", "shareable", "--hostname", "first", "busybox", "sleep", "100")
		defer c.run(t, "", "rm", "-f", first)
		for _, ns := range []string{"net", "pid", "ipc"} {
			flag := map[string]string{"net": "--network", "pid": "--pid", "ipc": "--ipc"}[ns]
			theirs := c.ok(t, "exec", first, "readlink", "/proc/1/ns/"+ns)
			ours := c.ok(t, "run", "--rm", flag, "container:"+first, "busybox", "readlink", "/proc/self/ns/"+ns)
			if ours != theirs {
				t.Errorf("%s container:…: %s, the other's is %s", flag, ours, theirs)
			}
		}
		c.fails(t, 125, "No such container", "run", "--rm", "--network", "container:nonesuch", "busybox", "true")
		c.fails(t, 125, "conflicting options", "run", "--rm", "--hostname", "x", "--network", "container:"+first, "busybox", "true")
	})
}

// TestLimits lets workloads try to exceed their limits.
func TestLimits(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		name := "oom-" + c.name
		r := c.run(t, "", "run", "--name", name, "--memory", "16m", "busybox", "sh", "-c", "head -c 200m /dev/zero | tail | wc -c")
		defer c.run(t, "", "rm", "-f", name)
		if got := c.ok(t, "inspect", "-f", "{{.State.OOMKilled}} {{.HostConfig.Memory}}", name); got != "true 16777216" {
			t.Errorf("after exceeding the memory limit (exit %d): %s", r.code, got)
		}
		got := c.ok(t, "run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done 2>&1 | grep -c -i -e 'resource' -e \"can't fork\"; true")
		if got == "0" {
			t.Error("nine processes fit a limit of five")
		}
		got = c.ok(t, "run", "--rm", "--cpus", "0.5", "busybox", "sh", "-c",
			"cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; true")
		if !strings.HasPrefix(got, "50000") {
			t.Errorf("--cpus 0.5: %q", got)
		}
		c.fails(t, 125, "Minimum memory limit allowed is 6MB", "run", "--rm", "-m", "1m", "busybox", "true")
		c.fails(t, 125, "range of CPUs is from 0.01", "run", "--rm", "--cpus", "1000", "busybox", "true")
	})
}

// TestRefusedByName has what later issues bring: refused, never ignored.
func TestRefusedByName(t *testing.T) {
	c := skiff(shared.daemon)
	for _, tc := range []struct {
		words string
		flags []string
	}{
		{"restart", []string{"--restart", "always"}},
		{"volume", []string{"-v", "data:/data"}},
		{"runtime", []string{"--runtime", "kata"}},
		{"not found", []string{"--network", "nosuchnetwork"}},
		{"IP address", []string{"--ip", "172.17.0.99"}},
	} {
		args := append(append([]string{"run", "--rm"}, tc.flags...), "busybox", "true")
		c.fails(t, 125, tc.words, args...)
	}
}

func TestBindMounts(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		dir := t.TempDir()
		got := c.ok(t, "run", "--rm", "-v", dir+":/in", "busybox", "sh", "-c", "echo hello > /in/file; cat /in/file")
		if got != "hello" {
			t.Errorf("bind: %q", got)
		}
		got = c.ok(t, "run", "--rm", "-v", dir+":/in:ro", "busybox", "sh", "-c", "cat /in/file; touch /in/x 2>&1 | grep -o 'Read-only'")
		if got != "hello\nRead-only" {
			t.Errorf("read-only bind: %q", got)
		}
		got = c.ok(t, "run", "--rm", "--mount", "type=bind,src="+dir+",dst=/in,readonly", "busybox", "cat", "/in/file")
		if got != "hello" {
			t.Errorf("--mount: %q", got)
		}
		c.fails(t, 125, "bind source path does not exist", "run", "--rm", "--mount", "type=bind,src=/nonesuch,dst=/in", "busybox", "true")
	})
}
