package launch

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Memory makes launches cheap for a process that makes many: its memory is no longer copied to children (MADV_DONTFORK); what
// a launch's child needs is in a mapping of its own. On the reference machine, where each page fault costs 10 µs, it takes a launch
// from 7 to 3 ms, and the parent's page faults after a launch are gone. The zero value is ready; one serves a whole process
// (Options.Memory).
//
// A process that uses it must not fork in other ways without sharing its memory until execve: os/exec is fine as long as it makes
// no new user namespace. It must not be built with -cover, whose counters are in that memory. In a program that is built with cgo it does
// nothing.
type Memory struct {
	once   sync.Once
	err    error
	ranges []span // all but the program's own text and constants
}

type span struct{ lo, hi uintptr }

// withhold keeps what the process has by now from the next children. The caller holds syscall.ForkLock.
func (m *Memory) withhold() error {
	if libc {
		return nil
	}
	m.once.Do(func() { m.ranges, m.err = withholdable() })
	for _, s := range m.ranges {
		// Between mappings there are gaps, which the kernel passes over, and tells (ENOMEM).
		if errno := failed(sys(unix.SYS_MADVISE, s.lo, s.hi-s.lo, unix.MADV_DONTFORK, 0, 0, 0)); errno != 0 && errno != syscall.ENOMEM {
			return fmt.Errorf("keep memory from children: %w", errno)
		}
	}
	return m.err
}

// withholdable finds the address ranges that children can do without: everything up to the kernel's own mappings but what is
// mapped read-only from the program's file.
func withholdable() ([]span, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("look at our own memory: %w", err)
	}
	keep, top := span{lo: math.MaxUint}, uintptr(math.MaxUint)
	entry := childEntry()
	file := ""
	for pass := range 2 { // the first finds the program's file, by the mapping of our own code
		for line := range strings.Lines(string(maps)) {
			f := strings.Fields(line)
			lo, hi, ok := addresses(f)
			switch {
			case !ok:
			case pass == 0 && lo <= entry && entry < hi && len(f) > 5:
				file = f[5]
			case pass == 1 && len(f) > 5 && f[5] == file && f[1][1] != 'w':
				keep.lo, keep.hi = min(keep.lo, lo), max(keep.hi, hi)
			case pass == 1 && len(f) > 5 && f[5][0] == '[' && f[5] != "[heap]":
				top = min(top, lo)
			}
		}
	}
	if keep.hi == 0 || top == math.MaxUint || top <= keep.hi {
		return nil, fmt.Errorf("look at our own memory: unexpected mappings of %q", file)
	}
	ranges := []span{{keep.hi, top}}
	if lowest := uintptr(1 << 16); keep.lo > lowest { // mmap_min_addr
		ranges = append(ranges, span{lowest, keep.lo})
	}
	return ranges, nil
}

// addresses reads the first field of a line of /proc/self/maps.
func addresses(f []string) (lo, hi uintptr, ok bool) {
	if len(f) < 2 || len(f[1]) < 2 {
		return 0, 0, false
	}
	a, b, _ := strings.Cut(f[0], "-")
	l, err1 := strconv.ParseUint(a, 16, 64)
	h, err2 := strconv.ParseUint(b, 16, 64)
	return uintptr(l), uintptr(h), err1 == nil && err2 == nil
}
