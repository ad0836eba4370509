package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/internal/timerslack"
)

// Process is a child that has executed its program.
type Process struct {
	PID   int      // in the caller's pid namespace
	PIDFD *os.File // the caller closes it
}

// Options are for special callers; the zero value is the normal case.
type Options struct {
	// Cloned, if not nil, is called with the child's pid before its first operation. The child waits for its return;
	// an error ends it.
	Cloned func(pid int) error
	// Memory, if not nil, keeps our memory from the child.
	Memory *Memory
	// Times, if not nil, gets the time after each operation, relative to Start's beginning (0: not executed).
	Times *[]time.Duration
}

// pipes are the two pipes between parent and child.
type pipes struct {
	errR, errW   int
	syncR, syncW int // -1: the child need not wait
}

// Start runs the program: one clone, the operations, execve. files[i] is slot i; they stay the caller's. It returns when
// execve succeeded (or when the program gave up the error pipe, see the package's documentation). The caller must wait for the
// process. Errors of the child's steps are *StepError; a process that failed is already reaped.
func (p *Program) Start(files []*os.File, opt Options) (*Process, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if len(files) != len(p.Slots) {
		return nil, errs.New(errs.Invalid, "launch program: %d files for %d slots", len(files), len(p.Slots))
	}
	fds, done, err := p.descriptors(files)
	defer done()
	if err != nil {
		return nil, err
	}
	im, free, err := p.load(fds)
	if err != nil {
		return nil, err
	}
	defer free()
	if opt.Times != nil {
		release, err := im.clock(opt.Times)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	return p.run(im, fds, opt)
}

// descriptors gives the slots' numbers. They must lie above Keep, where the child puts its own files; those that don't
// are duplicated until done is called.
func (p *Program) descriptors(files []*os.File) (fds []int, done func(), err error) {
	var dups []int
	done = func() {
		for _, fd := range dups {
			_ = unix.Close(fd)
		}
	}
	fds = make([]int, len(files))
	for i, f := range files {
		if f == nil {
			return nil, done, errs.New(errs.Invalid, "launch program: slot %d (%s) is empty", i, p.Slots[i])
		}
		fds[i] = int(f.Fd())
		if fds[i] > p.Keep {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(fds[i]), unix.F_DUPFD_CLOEXEC, p.Keep+1)
		if err != nil {
			return nil, done, fmt.Errorf("duplicate the descriptor of slot %d (%s): %w", i, p.Slots[i], err)
		}
		fds[i] = fd
		dups = append(dups, fd)
	}
	return fds, done, nil
}

// run makes the pipes and the child and waits until it is through.
func (p *Program) run(im *image, fds []int, opt Options) (*Process, error) {
	ps, err := openPipes(p.Clone&unix.CLONE_NEWUSER != 0 || opt.Cloned != nil)
	if err != nil {
		return nil, err
	}
	defer ps.close()
	im.errRead, im.err = uintptr(ps.errR), uintptr(ps.errW)
	if ps.syncR >= 0 {
		im.sync, im.tell = uintptr(ps.syncR), uintptr(ps.syncW)
	}
	// The child is killed when the thread that made it ends, so this goroutine stays on its thread until the child is through.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := p.forkInto(im, fds, opt.Memory)
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(int(im.pidfd))
	proc := &Process{PID: pid, PIDFD: os.NewFile(uintptr(im.pidfd), "pidfd")}
	ps.closeChildEnds()
	if err := p.setUp(ps, pid, opt); err != nil {
		proc.discard()
		return nil, err
	}
	if err := p.await(ps.errR, proc); err != nil {
		proc.discard()
		return nil, err
	}
	return proc, nil
}

// These are kept by the Go runtime for programs that fork by themselves (go.dev/issue/67401). The third of them, for the child, isn't
// needed: the kernel resets the signals (CLONE_CLEAR_SIGHAND), and the child unblocks them.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// fork makes the child.
//
//go:noinline
//go:norace
func fork(im *image, entry uintptr) uintptr {
	beforeFork() // blocks all signals: no handler may run in the child
	r := cloneInto(&im.clone, unsafe.Sizeof(im.clone), im, entry)
	afterFork()
	return r
}

// forkInto clones, in the pid namespace of the program's slot if it has one.
func (p *Program) forkInto(im *image, fds []int, mem *Memory) (pid int, err error) {
	if p.JoinPID >= 0 {
		home, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("open our own pid namespace: %w", err)
		}
		defer func() { _ = unix.Close(home) }()
		if err := unix.Setns(fds[p.JoinPID], unix.CLONE_NEWPID); err != nil {
			return 0, fmt.Errorf("join the pid namespace of slot %d (%s): %w", p.JoinPID, p.Slots[p.JoinPID], err)
		}
		defer func() {
			if back := unix.Setns(home, unix.CLONE_NEWPID); back != nil {
				runtime.LockOSThread() // never given back: the thread ends with its goroutine
			}
		}()
	}
	n, err := lockedFork(im, mem)
	if err != nil {
		return 0, err
	}
	if errno := failed(n); errno != 0 {
		return 0, fmt.Errorf("clone into new namespaces (%s): %w", flagNames(p.Clone, nsFlags), errno)
	}
	return int(n), nil
}

// lockedFork forks while no file is being opened elsewhere in the process, and no other launch changes what children get. The
// child has the kernel's default timer slack, whatever ours is.
func lockedFork(im *image, mem *Memory) (uintptr, error) {
	entry := childEntry()
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	if mem != nil {
		if err := mem.withhold(); err != nil {
			return 0, err
		}
	}
	for _, mem := range [][]byte{im.mem, im.clockMem} {
		if len(mem) == 0 {
			continue
		}
		if err := unix.Madvise(mem, unix.MADV_DOFORK); err != nil { // another launch's withhold may have met it
			return 0, fmt.Errorf("give the new process its memory: %w", err)
		}
	}
	if own, err := timerslack.Get(); err == nil && own != timerslack.Default && timerslack.Set(timerslack.Default) == nil {
		defer func() { _ = timerslack.Set(own) }()
	}
	return fork(im, entry), nil
}

// setUp writes the maps of a new user namespace and lets the child go.
func (p *Program) setUp(ps *pipes, pid int, opt Options) error {
	if ps.syncW < 0 {
		return nil
	}
	if p.Clone&unix.CLONE_NEWUSER != 0 {
		if err := p.writeMaps(pid); err != nil {
			return err
		}
	}
	if opt.Cloned != nil {
		if err := opt.Cloned(pid); err != nil {
			return err
		}
	}
	if _, err := unix.Write(ps.syncW, []byte{1}); err != nil {
		return fmt.Errorf("let the new process go: %w", err)
	}
	return nil
}

func (p *Program) writeMaps(pid int) error {
	if !p.Setgroups {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/setgroups", pid), []byte("deny"), 0); err != nil {
			return fmt.Errorf("forbid setgroups in the new user namespace: %w", err)
		}
	}
	for _, m := range []struct {
		file string
		ids  []IDMap
	}{{"uid_map", p.UIDs}, {"gid_map", p.GIDs}} {
		if len(m.ids) == 0 {
			continue
		}
		var s strings.Builder
		for _, l := range m.ids {
			fmt.Fprintf(&s, "%d %d %d\n", l.Inside, l.Outside, l.Count)
		}
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, m.file), []byte(s.String()), 0); err != nil {
			return fmt.Errorf("write %s of the new user namespace: %w", m.file, err)
		}
	}
	return nil
}

// await reads the child's report after the pipe was closed by execve or death.
func (p *Program) await(fd int, proc *Process) error {
	poll := []unix.PollFd{{Fd: int32(fd)}} // hang-up only: the record before execve must not wake us
	for {
		_, err := unix.Poll(poll, -1)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the new process: %w", err)
		}
	}
	var rec [3 * 8]byte
	n := 0
	for n < len(rec) {
		m, err := unix.Read(fd, rec[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil && n == 0 {
			return fmt.Errorf("read the new process's report: %w", err)
		}
		if m <= 0 {
			break
		}
		n += m
	}
	return p.judge(rec[:n], proc)
}

// judge reads the records: none means that the child died on its way (or gave the pipe up), one without error that it
// got to execve, a last one with an error what failed.
func (p *Program) judge(rec []byte, proc *Process) error {
	if len(rec) >= 8 {
		if step := p.Failure(rec); step != nil {
			return step
		}
		return nil
	}
	if p.givesUpPipe() && proc.alive() {
		return nil
	}
	return &StepError{Index: -1, Name: "launch", Killed: proc.signal()}
}

// givesUpPipe says whether an operation replaces descriptor Keep.
func (p *Program) givesUpPipe() bool {
	for i := range p.Ops {
		op := &p.Ops[i]
		if op.Nr == unix.SYS_DUP3 && len(op.Args) > 1 && op.Args[1] == (Arg{Kind: Imm, Value: uint64(p.Keep)}) {
			return true
		}
	}
	return false
}

func openPipes(sync bool) (*pipes, error) {
	ps := &pipes{syncR: -1, syncW: -1}
	var e, s [2]int
	if err := unix.Pipe2(e[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make the error pipe: %w", err)
	}
	ps.errR, ps.errW = e[0], e[1]
	if sync {
		if err := unix.Pipe2(s[:], unix.O_CLOEXEC); err != nil {
			ps.close()
			return nil, fmt.Errorf("make the pipe to a waiting child: %w", err)
		}
		ps.syncR, ps.syncW = s[0], s[1]
	}
	return ps, nil
}

func (ps *pipes) closeChildEnds() { closeAll(&ps.errW, &ps.syncR) }
func (ps *pipes) close()          { closeAll(&ps.errR, &ps.errW, &ps.syncR, &ps.syncW) }

func closeAll(fds ...*int) {
	for _, fd := range fds {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// alive says whether the process has not ended yet.
func (p *Process) alive() bool {
	fds := []unix.PollFd{{Fd: int32(p.PIDFD.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0
}

// signal waits for an end that is near and gives the signal that caused it, 0 if it was none. The process stays unreaped.
func (p *Process) signal() unix.Signal {
	var info siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, int(p.PIDFD.Fd()), (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if info.code == cldKilled || info.code == cldDumped {
		return unix.Signal(info.status)
	}
	return 0
}

// siginfo is siginfo_t of SIGCHLD on 64-bit machines.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [100]byte
}

// CLD_KILLED and CLD_DUMPED of <asm-generic/siginfo.h>.
const (
	cldKilled = 2
	cldDumped = 3
)

// discard kills and reaps a process that failed.
func (p *Process) discard() {
	fd := int(p.PIDFD.Fd())
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	for {
		if err := unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = p.PIDFD.Close()
}

// Wait waits until the process ended and reaps it. The code is 128+n after signal n.
func (p *Process) Wait() (code int, err error) {
	var info siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, int(p.PIDFD.Fd()), (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, fmt.Errorf("wait for process %d: %w", p.PID, err)
		}
		break
	}
	if info.code == cldKilled || info.code == cldDumped {
		return 128 + int(info.status), nil
	}
	return int(info.status), nil
}

// clock gives the child shared memory for the time after each operation. It is for measurements only: nothing but
// numbers is read from it.
func (im *image) clock(out *[]time.Duration) (release func(), err error) {
	n := 16 * (len(im.ops) + 1)
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("share memory for the times: %w", err)
	}
	im.clockMem = mem
	im.times = unsafe.Slice((*int64)(unsafe.Pointer(&mem[0])), n/8)
	var begin unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &begin); err != nil {
		_ = unix.Munmap(mem)
		return nil, fmt.Errorf("read the clock: %w", err)
	}
	return func() {
		ts := make([]time.Duration, len(im.ops))
		for i := range ts {
			if sec, nsec := im.times[2*i], im.times[2*i+1]; sec != 0 {
				ts[i] = time.Duration(sec*1e9 + nsec - begin.Nano())
			}
		}
		*out = ts
		im.times, im.clockMem = nil, nil
		_ = unix.Munmap(mem)
	}, nil
}
