package cli

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// missingFlags lists the flags that are not used, under either of their names.
func missingFlags(c *command, used map[string]bool) []string {
	var out []string
	c.flags.VisitAll(func(f *pflag.Flag) {
		if !used[f.Name] && (f.Shorthand == "" || !used[f.Shorthand]) && !f.Hidden && f.Name != "name" && f.Name != "cidfile" &&
			f.Name != "quiet" && f.Name != "disable-content-trust" && f.Name != "pull" && f.Name != "platform" {
			out = append(out, f.Name)
		}
	})
	return out
}

// dockerFlags are the flags of docker 28's commands (`docker COMMAND --help`).
var dockerFlags = map[string]string{
	"run": "add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-count cpu-percent " +
		"cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule " +
		"device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust dns dns-option dns-search domainname entrypoint " +
		"env env-file expose gpus group-add health-cmd health-interval health-retries health-start-interval health-start-period health-timeout " +
		"hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver " +
		"log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name network network-alias no-healthcheck " +
		"oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only restart rm runtime " +
		"security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user userns uts volume " +
		"volume-driver volumes-from workdir",
	"exec":    "detach detach-keys env env-file interactive privileged tty user workdir",
	"ps":      "all filter format last latest no-trunc quiet size",
	"images":  "all digests filter format no-trunc quiet tree",
	"pull":    "all-tags disable-content-trust platform quiet",
	"start":   "attach detach-keys interactive",
	"stop":    "signal timeout",
	"restart": "signal timeout",
	"kill":    "signal",
	"attach":  "detach-keys no-stdin sig-proxy",
	"logs":    "details follow since tail timestamps until",
	"inspect": "format size type",
	"rm":      "force link volumes",
	"rmi":     "force no-prune platform",
	"load":    "input platform quiet",
	"save":    "output platform",
	"import":  "change message platform",
	"version": "format",
	"info":    "format",
	"events":  "filter format since until",
	"history": "format human no-trunc platform quiet",
}

// TestDockerFlags holds that docker's commands have docker's flags.
func TestDockerFlags(t *testing.T) {
	for name, flags := range dockerFlags {
		s := lookup("", name)
		if s == nil {
			t.Errorf("no command %s", name)
			continue
		}
		c := (&App{Getenv: func(string) string { return "" }}).command(s, name)
		c.flags.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !hasWord(flags, f.Name) {
				t.Errorf("%s --%s is not docker's", name, f.Name)
			}
		})
		for _, f := range strings.Fields(flags) {
			if c.flags.Lookup(f) == nil {
				t.Errorf("%s --%s is missing", name, f)
			}
		}
	}
}
