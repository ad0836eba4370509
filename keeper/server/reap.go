package server

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"skiff/keeper/wire"
)

// siginfo is siginfo_t of SIGCHLD on 64-bit machines.
type siginfo struct {
	_, _, code, _ int32
	pid           int32
	_             uint32
	status        int32
	_             [100]byte
}

// CLD_EXITED of <asm-generic/siginfo.h>; the other codes that WEXITED gives are deaths by signal.
const cldExited = 1

// reap collects the exit status of a process whose pidfd is readable. A process that isn't our child (its parent was a
// keeper that died) is asked about through its pidfd.
func (p *proc) reap() *wire.Exit {
	e := &wire.Exit{ID: p.id, At: time.Now(), Code: -1}
	if status, ok := exitStatus(p.pidfd(), p.pid, p.start); ok {
		if status.Signaled() {
			e.Signal = int(status.Signal())
			e.Code = 128 + e.Signal
		} else {
			e.Code = status.ExitStatus()
		}
	}
	return e
}

// exitStatus gives the wait status of an ended process.
func exitStatus(pidfd, pid int, start uint64) (unix.WaitStatus, bool) {
	var info siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED, nil)
		switch err {
		case nil:
			if info.code == cldExited {
				return unix.WaitStatus(info.status << 8), true
			}
			return unix.WaitStatus(info.status), true
		case unix.EINTR:
			continue
		}
		break
	}
	// Not our child. Its parent may be slow to collect it: only then the kernel tells the status.
	for wait := time.Millisecond; wait < 2*time.Second; wait *= 2 {
		in := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		err := unix.IoctlPidfdInfo(pidfd, &in)
		if err == nil && in.Mask&unix.PIDFD_INFO_EXIT != 0 {
			return unix.WaitStatus(in.Exit_code), true
		}
		status, state := zombieStatus(pid, start)
		switch {
		case state == 'Z':
			return status, true
		case state == 0 && err != nil: // collected, and the kernel (before 6.15) doesn't remember
			return 0, false
		}
		time.Sleep(wait)
	}
	return 0, false
}

// procStat reads fields of /proc/PID/stat: the state, the start time (field 22), the exit status (52). See proc_pid_stat(5).
func procStat(pid int) (state byte, start uint64, status int, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // f[0] is field 3
	if len(f) < 50 {
		return 0, 0, 0, fmt.Errorf("look at process %d: /proc/%d/stat has %d fields", pid, pid, len(f))
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	status, _ = strconv.Atoi(f[49])
	return f[0][0], start, status, err
}

// zombieStatus looks for the status of a process that nobody has collected. state is 0 if there is no such process.
func zombieStatus(pid int, start uint64) (status unix.WaitStatus, state byte) {
	state, s, code, err := procStat(pid)
	if err != nil || s != start {
		return 0, 0
	}
	return unix.WaitStatus(code), state
}

// collectOrphans reaps processes that became our children because their parents died (the keeper is a subreaper). The own children,
// and those that a launch is about to deal with, are left alone: a zombie is an orphan if it is unknown twice in a row.
func (s *Server) collectOrphans(wake <-chan os.Signal) {
	const pause = 2 * time.Second
	suspect := 0
	for range wake {
		for {
			time.Sleep(pause)
			var info siginfo
			err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
			pid := int(info.pid)
			if err != nil || pid == 0 {
				break
			}
			if s.knows(pid) {
				suspect = 0
				continue
			}
			if pid == suspect {
				_ = unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG, nil)
				suspect = 0
				continue
			}
			suspect = pid
		}
	}
}
