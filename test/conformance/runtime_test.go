package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const (
	suiteModule  = "github.com/opencontainers/runtime-tools"
	suiteVersion = "v0.9.0"
	// oneTest bounds a test program; the suite itself waits up to 10 s for some states.
	oneTest = 3 * time.Minute
)

// failure says how many checks of a test program may fail, and why. All tells that the program gives up before its checks.
type failure struct {
	checks int
	all    bool
	why    string
}

// known are the failures that are the suite's or the machine's. docs/runtime-conformance.md tells them in full.
var known = map[string]failure{
	"delete":                         {checks: 2, why: "the suite wants delete to refuse a created container; the specification's later versions leave it open, and runc and containerd rely on it"},
	"hooks":                          {all: true, why: "the suite expects other texts than its own hooks write"},
	"hooks_stdin":                    {checks: 2, why: "the suite wants the status created for prestart, the specification says creating"},
	"linux_cgroups_blkio":            {all: true, why: "the kernel has no blkio.leaf_weight and no device 8:0"},
	"linux_cgroups_relative_blkio":   {checks: 1, why: "the same"},
	"linux_cgroups_hugetlb":          {all: true, why: "the suite knows no hugetlb of cgroup v2, the machine has no other"},
	"linux_cgroups_relative_hugetlb": {checks: 1, why: "the same"},
	"linux_cgroups_memory":           {checks: 12, why: "the kernel has no limits for kernel memory any more"},
	"linux_cgroups_relative_memory":  {checks: 2, why: "the same"},
	"linux_cgroups_network":          {checks: 32, why: "the kernel has no net_cls and net_prio"},
	"linux_cgroups_relative_network": {checks: 1, why: "the same"},
	"linux_rootfs_propagation":       {checks: 4, why: "without CAP_SYS_RESOURCE: its containers ask for all capabilities. The propagation itself is right"},
	"misc_props":                     {checks: 1, why: "the suite forgets to copy its own program into the bundle"},
	"pidfile":                        {checks: 1, why: "the suite wants to kill a container whose process (true) has ended"},
	"prestart":                       {all: true, why: "the suite wants prestart hooks at start, the specification says create"},
	"process_capabilities":           {checks: 5, why: "without CAP_SYS_RESOURCE: what we don't have can't be given"},
	"process_capabilities_fail":      {all: true, why: "the suite wants an error for an unknown capability, newer specifications a warning"},
	"process_rlimits":                {checks: 1, why: "the suite is a Go program, and Go raises RLIMIT_NOFILE"},
	"start":                          {checks: 1, why: "the suite creates a container without a process and wants it to start; skiff-runtime refuses to create it, as runc does"},
}

func TestRuntimeTools(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if testing.Short() {
		t.Skip("takes minutes")
	}
	suite := buildSuite(t)
	rt := runtimeUnderTest(t)
	programs, err := filepath.Glob(filepath.Join(suite, "validation", "*"))
	if err != nil || len(programs) < 50 {
		t.Fatalf("the suite has only %d programs (%v)", len(programs), err)
	}
	t.Cleanup(func() { // the parents of relative cgroup paths, which no runtime removes
		for _, below := range []string{"testdir/cgrouptest", "testdir"} {
			left, _ := filepath.Glob("/sys/fs/cgroup/*/" + below)
			for _, dir := range left {
				_ = os.Remove(dir) // with somebody in it, it stays
			}
		}
	})
	serial := make(chan struct{}, 1) // tests of cgroups use the same paths
	for _, p := range programs {
		name := filepath.Base(p)
		t.Run(name, func(t *testing.T) {
			if name != "poststart" { // it compares when a shell and a hook write a line: nothing else of ours may delay one of them
				t.Parallel()
			}
			if strings.Contains(name, "cgroup") || strings.Contains(name, "resources") {
				serial <- struct{}{}
				defer func() { <-serial }()
			}
			judge(t, name, runProgram(t, suite, p, rt))
		})
	}
}

// result is what a test program said.
type result struct {
	ok, notOK int
	complaint bool // it gave up, or told an error outside its checks
	output    string
}

func judge(t *testing.T, name string, r result) {
	t.Helper()
	if os.Getenv("CONFORMANCE") == "print" {
		fmt.Printf("| %s | %d | %d | %t |\n", name, r.ok, r.notOK, r.complaint)
		return
	}
	k := known[name]
	switch {
	case r.notOK > k.checks && !k.all, r.complaint && !k.all && k.checks == 0:
		t.Errorf("%d checks failed, %d are known to (%s)\n%s", r.notOK, k.checks, k.why, r.output)
	case r.notOK > 0 || r.complaint:
		t.Logf("known: %s", k.why)
	}
}

func runProgram(t *testing.T, suite, program, rt string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), oneTest)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir = suite // it looks for its root file system there
	cmd.Env = append(os.Environ(), "RUNTIME="+rt)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var r result
	for line := range strings.Lines(out.String()) {
		switch {
		case strings.HasPrefix(line, "ok"):
			r.ok++
		case strings.HasPrefix(line, "not ok") && !strings.Contains(line, "# TODO"):
			r.notOK++
		}
	}
	r.complaint = err != nil || r.ok+r.notOK == 0 && strings.Contains(out.String(), `"error"`)
	r.output = out.String() + errOut.String()
	return r
}

// runtimeUnderTest is a script that runs the runtime with a root folder of its own.
func runtimeUnderTest(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("RUNTIME")
	if bin == "" {
		var err error
		if bin, err = filepath.Abs("../../bin/skiff-runtime"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skip("no runtime to test (make all): ", err)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "runtime")
	text := fmt.Sprintf("#!/bin/sh\nexec %q --root %q \"$@\"\n", bin, filepath.Join(dir, "root"))
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return script
}

// buildSuite builds the suite once. It skips the test where the module can't be had.
func buildSuite(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("../../.cache/conformance", "runtime-tools-"+suiteVersion))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "runtimetest")); err == nil {
		return dir
	}
	src := suiteSource(t)
	tmp := dir + ".new"
	must(t, os.RemoveAll(tmp))
	must(t, os.MkdirAll(filepath.Join(tmp, "validation"), 0o755))
	for _, b := range [][]string{{"build", "-o", filepath.Join(tmp, "validation") + "/", "./validation/..."}, {"build", "-o", tmp + "/", "./cmd/runtimetest"}} {
		cmd := exec.Command("go", b...)
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			if bytes.Contains(out, []byte("proxy")) || bytes.Contains(out, []byte("dial tcp")) {
				t.Skipf("the suite's dependencies can't be had: %s", out)
			}
			t.Fatalf("build the suite: %v\n%s", err, out)
		}
	}
	root := "rootfs-" + runtime.GOARCH + ".tar.gz"
	data, err := os.ReadFile(filepath.Join(src, root))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(tmp, root), data, 0o644))
	must(t, os.RemoveAll(dir))
	must(t, os.Rename(tmp, dir))
	return dir
}

// suiteSource copies the module's source and makes it buildable.
func suiteSource(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", suiteModule+"@"+suiteVersion)
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if jerr := json.Unmarshal(out, &m); jerr != nil || m.Dir == "" {
		t.Skipf("the module %s can't be had: %v %s", suiteModule, errors.Join(err, jerr), m.Error)
	}
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(m.Dir)))
	must(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chmod(p, 0o755))
	}))
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("testdata/runtime-tools", name+".txt"))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
