package e2e

import (
	"testing"
	"time"
)

// TestThousandRuns runs a thousand containers in a row and finds the host and the daemon as they were.
func TestThousandRuns(t *testing.T) {
	d := newDaemon(t)
	c := skiff(d)
	for range 100 { // pools and caches fill up
		c.ok(t, "run", "--rm", "busybox", "true")
	}
	time.Sleep(time.Second)
	before := d.Count()
	start := time.Now()
	for range 1000 {
		c.ok(t, "run", "--rm", "busybox", "true")
	}
	t.Logf("1000 runs: %s each", time.Since(start)/1000)
	noLeaks(t, d)
	eventually(t, 20*time.Second, "as many interfaces and namespaces as before", func() bool {
		now := d.Count()
		return len(now.Links) <= len(before.Links)+2 && now.NetNS <= before.NetNS+2
	})
	after := d.Count()
	t.Logf("before %+v\nafter %+v", before, after)
	for _, p := range []string{"skiffd", "skiff-keeper"} {
		if after.FDs[p] > before.FDs[p]+8 {
			t.Errorf("%s: %d descriptors, were %d", p, after.FDs[p], before.FDs[p])
		}
		if after.Threads[p] > before.Threads[p]+6 {
			t.Errorf("%s: %d threads, were %d", p, after.Threads[p], before.Threads[p])
		}
		if after.PSS[p] > before.PSS[p]*3/2+4096 {
			t.Errorf("%s: %d kB, were %d kB", p, after.PSS[p], before.PSS[p])
		}
	}
	if len(after.Cgroups) > len(before.Cgroups) {
		t.Errorf("control groups: %v, were %v", after.Cgroups, before.Cgroups)
	}
}
