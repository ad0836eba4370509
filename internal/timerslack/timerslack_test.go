package timerslack

import (
	"runtime"
	"testing"
	"time"
)

func TestSet(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	for _, want := range []time.Duration{Own, Default, 3 * time.Millisecond} {
		if err := Set(want); err != nil {
			t.Fatal(err)
		}
		if got, err := Get(); err != nil || got != want {
			t.Errorf("%v: got %v, %v", want, got, err)
		}
	}
}
