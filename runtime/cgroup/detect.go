package cgroup

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Host is what the machine offers: the mounted hierarchies and their controllers. It is read once and never changes.
type Host struct {
	hiers   []hierarchy
	support Support
}

// hierarchy is a mounted hierarchy that can be written.
type hierarchy struct {
	dir         string   // where it is mounted
	controllers []string // "memory" … ; on v2 in the words of v1 ("blkio" for io)
	named       string   // "systemd" of name=systemd
	v2          bool
	always      bool // every group has a folder here; see the package comment for the reasons
}

// Detect reads /proc/self/mountinfo. A machine without cgroups is no error.
func Detect() (Host, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Host{}, fmt.Errorf("find cgroup mounts: %w", err)
	}
	h := Host{hiers: parseMounts(info)}
	for i := range h.hiers {
		if h.hiers[i].v2 {
			b, err := os.ReadFile(filepath.Join(h.hiers[i].dir, "cgroup.controllers"))
			if err != nil {
				return Host{}, fmt.Errorf("read controllers of cgroup v2: %w", err)
			}
			for _, c := range strings.Fields(string(b)) {
				if c == "io" {
					c = "blkio"
				}
				h.hiers[i].controllers = append(h.hiers[i].controllers, c)
			}
		}
	}
	_, err = os.Stat("/run/systemd/system")
	h.choose(err == nil)
	h.support = probe(h)
	return h, nil
}

// parseMounts finds the hierarchies in a mountinfo file (proc(5)). Each one counts once, by its first mount of the
// whole tree, else by its first mount; read-only mounts don't count.
func parseMounts(info []byte) []hierarchy {
	var out []hierarchy
	whole := map[string]bool{}
	for s := bufio.NewScanner(bytes.NewReader(info)); s.Scan(); {
		left, right, ok := strings.Cut(s.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 3 || r[0] != "cgroup" && r[0] != "cgroup2" {
			continue
		}
		if slices.Contains(strings.Split(l[5], ","), "ro") {
			continue
		}
		h := hierarchy{dir: unescape(l[4]), v2: r[0] == "cgroup2"}
		if !h.v2 {
			h.controllers, h.named = parseOptions(r[2])
			if len(h.controllers) == 0 && h.named == "" {
				continue
			}
		}
		same := slices.IndexFunc(out, func(o hierarchy) bool {
			return o.v2 == h.v2 && o.named == h.named && slices.Equal(o.controllers, h.controllers)
		})
		key := fmt.Sprint(h.v2, h.named, h.controllers)
		switch {
		case same < 0:
			out = append(out, h)
		case !whole[key] && l[3] == "/":
			out[same] = h
		}
		whole[key] = whole[key] || l[3] == "/"
	}
	return out
}

// choose decides which hierarchies every group has a folder in.
func (h Host) choose(systemdRuns bool) {
	_, killer := h.v2()
	for i := range h.hiers {
		hi := &h.hiers[i]
		hi.always = hi.v2 || hi.named == "systemd" && systemdRuns
		for _, c := range hi.controllers {
			switch c {
			case "memory", "pids", "cpu", "cpuacct", "blkio", "devices":
				hi.always = true
			case "freezer":
				hi.always = hi.always || !killer
			}
		}
	}
}

// known are the controllers of cgroup v1, to tell them from the other options of a mount.
var known = []string{"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma"}

func parseOptions(opts string) (controllers []string, named string) {
	for o := range strings.SplitSeq(opts, ",") {
		if n, ok := strings.CutPrefix(o, "name="); ok {
			named = n
		} else if slices.Contains(known, o) {
			controllers = append(controllers, o)
		}
	}
	slices.Sort(controllers)
	return controllers, named
}

// unescape undoes mountinfo's octal escapes of blank, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Version is 2 if the limits are cgroup v2's, 1 if they are v1's (also on a hybrid host), 0 without cgroups. It is
// what Docker calls the cgroup version.
func (h Host) Version() int {
	v := 0
	for _, hi := range h.hiers {
		switch {
		case !hi.v2 && len(hi.controllers) > 0:
			return 1
		case hi.v2 && (len(hi.controllers) > 0 || len(h.hiers) == 1):
			v = 2
		}
	}
	return v
}

// Support tells which limits the kernel can give here.
func (h Host) Support() Support { return h.support }

// String is for logs: "hybrid: cpu cpuacct … and v2 without controllers".
func (h Host) String() string {
	if len(h.hiers) == 0 {
		return "no cgroups"
	}
	var b strings.Builder
	for i, hi := range h.hiers {
		if i > 0 {
			b.WriteString("; ")
		}
		switch {
		case hi.v2:
			fmt.Fprintf(&b, "v2 %s %v", hi.dir, hi.controllers)
		default:
			fmt.Fprintf(&b, "v1 %s", hi.dir)
		}
	}
	return b.String()
}

func (h Host) v2() (hierarchy, bool) {
	for _, hi := range h.hiers {
		if hi.v2 {
			return hi, true
		}
	}
	return hierarchy{}, false
}

// has says whether a hierarchy with the controller is mounted.
func (h Host) has(controller string) bool {
	return slices.ContainsFunc(h.hiers, func(hi hierarchy) bool { return slices.Contains(hi.controllers, controller) })
}

// home is where a controller lives.
func (h Host) home(controller string) (hierarchy, bool) {
	for _, hi := range h.hiers {
		if slices.Contains(hi.controllers, controller) {
			return hi, true
		}
	}
	return hierarchy{}, false
}
