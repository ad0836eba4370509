package kit

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Tag is what the daemon derives its network and cgroup names from: 6 hex digits of its exec root's sha256.
func (d *Daemon) Tag() string {
	h := sha256.Sum256([]byte(d.ExecRoot))
	return hex.EncodeToString(h[:])[:6]
}

// Cgroups lists this daemon's control groups in all hierarchies, parents first.
func (d *Daemon) Cgroups() []string {
	var found []string
	filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(path, "skiff-"+d.Tag()) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// Links lists this daemon's network interfaces on the host.
func (d *Daemon) Links() []string {
	var found []string
	entries, _ := os.ReadDir("/sys/class/net")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "sk"+d.Tag()) {
			found = append(found, e.Name())
		}
	}
	return found
}

// Mounts lists the host's mounts below this daemon's folders.
func (d *Daemon) Mounts() []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	defer f.Close()
	var found []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if strings.Contains(sc.Text(), d.Dir) || strings.Contains(sc.Text(), d.DataRoot) {
			found = append(found, sc.Text())
		}
	}
	return found
}

// Census counts what the daemon holds, for comparing before and after.
type Census struct {
	Links, Mounts, Cgroups []string
	FDs, Threads           map[string]int // by program
	PSS                    map[string]int // kB, by program
	NetNS                  int            // network namespaces on the host that any process or descriptor holds
}

// Count takes a census.
func (d *Daemon) Count() Census {
	c := Census{
		Links: d.Links(), Mounts: d.Mounts(), Cgroups: d.Cgroups(),
		FDs: map[string]int{}, Threads: map[string]int{}, PSS: map[string]int{},
	}
	for _, p := range d.Processes() {
		dir := fmt.Sprintf("/proc/%d/", p.PID)
		fds, _ := os.ReadDir(dir + "fd")
		threads, _ := os.ReadDir(dir + "task")
		c.FDs[p.Name] += len(fds)
		c.Threads[p.Name] += len(threads)
		c.PSS[p.Name] += PSS(p.PID)
	}
	c.NetNS = countNetNS()
	return c
}

// PSS is the proportional set size of a process in kB, 0 if it can't be read.
func PSS(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(b)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kb); n == 1 {
			return kb
		}
	}
	return 0
}

func countNetNS() int {
	var seen []string
	paths, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, p := range append(paths, fds...) {
		if t, err := os.Readlink(p); err == nil && strings.HasPrefix(t, "net:[") && !slices.Contains(seen, t) {
			seen = append(seen, t)
		}
	}
	return len(seen)
}
