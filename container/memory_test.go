package container

import (
	"runtime"
	"testing"
)

// An idle container costs the engine little memory.
func TestMemory(t *testing.T) {
	const n, limit = 500, 20 << 10
	w := newFake(t)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	w.make("", false, true) // warm up
	w.settled()
	before, goroutines := heap(), runtime.NumGoroutine()
	for range n {
		w.make("", false, true)
	}
	if _, err := w.List(t.Context(), ListOptions{}); err != nil {
		t.Fatal(err)
	}
	w.settled()
	each := (heap() - before) / n
	t.Logf("%d bytes for each", each)
	if each > limit {
		t.Errorf("%d bytes for each container, at most %d are wanted", each, limit)
	}
	if now := runtime.NumGoroutine(); now > goroutines {
		t.Errorf("%d goroutines, %d before", now, goroutines)
	}
}
