package container

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

const (
	rtMin = 34 // the C library keeps 32 and 33 for itself
	rtMax = 64
)

// parseSignal reads a number ("9"), a name ("KILL", "sigkill"), or a real-time signal ("RTMIN+3", "SIGRTMAX-2").
func parseSignal(s string) (unix.Signal, error) {
	invalid := errs.New(errs.Invalid, "invalid signal: %s", s)
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > rtMax {
			return 0, invalid
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	base, sign, offset := 0, 1, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		base, offset = rtMin, name[len("RTMIN"):]
	case strings.HasPrefix(name, "RTMAX"):
		base, sign, offset = rtMax, -1, name[len("RTMAX"):]
	default:
		switch name {
		case "CLD":
			return unix.SIGCHLD, nil
		case "UNUSED":
			return unix.SIGSYS, nil
		}
		if n := unix.SignalNum("SIG" + name); n != 0 {
			return n, nil
		}
		return 0, invalid
	}
	n := 0
	if offset != "" {
		want := byte('+')
		if sign < 0 {
			want = '-'
		}
		v, err := strconv.Atoi(offset[1:])
		if offset[0] != want || err != nil || v < 0 || v > rtMax-rtMin {
			return 0, invalid
		}
		n = v
	}
	return unix.Signal(base + sign*n), nil
}

// stopSignal is how a container is asked to end: what the caller or the container says, else SIGTERM.
func stopSignal(asked, configured string) (unix.Signal, error) {
	for _, s := range []string{asked, configured} {
		if s != "" {
			return parseSignal(s)
		}
	}
	return unix.SIGTERM, nil
}
