// Package timerslack sets how late the kernel may end a thread's sleeps (prctl(2), PR_SET_TIMERSLACK). Go's runtime wakes a watching
// thread every 20 µs while the program does anything; with a larger slack it comes rarely enough not to be felt
// (docs/decisions/0021). New threads and programs inherit the value of the thread that makes them.
package timerslack

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Default is what the kernel gives to the first process.
	Default = 50 * time.Microsecond
	// Own is that of our programs.
	Own = time.Millisecond
)

// Set sets the slack of the calling thread, to which the caller's goroutine should be locked.
func Set(d time.Duration) error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(d.Nanoseconds()), 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack to %v: %w", d, err)
	}
	return nil
}

// Get gives the slack of the calling thread.
func Get() (time.Duration, error) {
	n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("read the timer slack: %w", err)
	}
	return time.Duration(n), nil
}
