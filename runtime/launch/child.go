package launch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// image is a program made ready for the child: every pointer resolved, no Go structure that could want the runtime. It
// lives on the heap (which does not move) and is read and written by the child only, in its copy of the memory.
type image struct {
	clone   cloneArgs
	ops     []call
	regs    []uintptr
	paths   []uintptr // candidates of execve
	argv    uintptr
	envp    uintptr
	search  bool
	undump  bool
	keep    uintptr // the error pipe's place
	errRead uintptr // the parent's end of the error pipe
	err     uintptr // the child's end
	sync    uintptr // read end of the maps' pipe, or none
	tell    uintptr // its write end, the parent's
	report  [2]uint32
	scratch [32]uint64 // poll, a byte read, sigaction (all zero: SIG_DFL)
	ignored []uintptr  // signals that may be ignored
	data    []uint64   // keeps what the pointers point to
	times   []int64    // shared memory for the time after each operation, or nil
}

// none is an absent descriptor.
const none = ^uintptr(0)

// call is an operation in the child's form.
type call struct {
	nr     uintptr
	args   [6]uintptr
	regs   uint8 // bit i: args[i] is the number of a register
	allows uint8
	save   int16
	skipOK uint16
	allow  [maxAllow]tolerated
}

type tolerated struct{ errno, skip uint16 }

// cloneArgs is struct clone_args of clone3(2), up to cgroup.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// These are kept by the Go runtime for programs that fork by themselves (go.dev/issue/67401).

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// fork makes the child, which never returns from here.
//
//go:noinline
//go:norace
func fork(im *image) (pid uintptr, errno syscall.Errno) {
	beforeFork()
	pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&im.clone)), unsafe.Sizeof(im.clone), 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	child(im) // which resets the signals by itself, so syscall.runtime_AfterForkInChild is not needed
	return 0, 0
}

// child runs the program.
//
//go:nosplit
//go:norace
func child(im *image) {
	prepare(im)
	n := uintptr(len(im.ops))
	for i := uintptr(0); i < n; i++ {
		skip, errno := step(im, i)
		if errno != 0 {
			fail(im, i, errno)
		}
		i += skip
	}
	execute(im)
}

// step makes one call and says how many of the next ones to leave out.
//
//go:nosplit
//go:norace
func step(im *image, i uintptr) (skip uintptr, errno syscall.Errno) {
	c := &im.ops[i]
	if c.regs != 0 {
		for j := 0; j < 6; j++ {
			if c.regs&(1<<j) != 0 {
				c.args[j] = im.regs[c.args[j]]
			}
		}
	}
	r, _, errno := syscall.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
	if im.times != nil {
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&im.times[2*i])), 0)
	}
	skip = uintptr(c.skipOK)
	if errno != 0 {
		r = none
		allowed := false
		for j := 0; j < int(c.allows); j++ {
			if syscall.Errno(c.allow[j].errno) == errno {
				skip, allowed = uintptr(c.allow[j].skip), true
				break
			}
		}
		if !allowed {
			return 0, errno
		}
	}
	if c.save >= 0 {
		im.regs[c.save] = r
	}
	return skip, 0
}

// prepare is what every child does first.
//
//go:nosplit
//go:norace
func prepare(im *image) {
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, im.errRead, 0, 0)
	_, _, _ = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	// The parent may have died before that: nobody has the error pipe's other end then.
	im.scratch[0] = uint64(uint32(im.err)) // struct pollfd: fd, no events
	_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&im.scratch[0])), 1, uintptr(unsafe.Pointer(&im.scratch[4])), 0, 0, 0)
	if im.scratch[0] != uint64(uint32(im.err)) {
		exit()
	}
	im.scratch[0] = 0
	for i := 0; i < len(im.ignored); i++ { // CLONE_CLEAR_SIGHAND leaves ignored signals ignored
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGACTION, im.ignored[i], uintptr(unsafe.Pointer(&im.scratch[8])), 0, 8, 0, 0)
	}
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&im.scratch[0])), 0, 8, 0, 0)
	if im.undump {
		_, _, _ = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0)
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_UMASK, 0, 0, 0)
	if im.sync != none {
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, im.tell, 0, 0)
		n, _, _ := syscall.RawSyscall(unix.SYS_READ, im.sync, uintptr(unsafe.Pointer(&im.scratch[0])), 1)
		if n != 1 {
			exit() // the parent could not set us up, and knows it
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, im.sync, 0, 0)
	}
	if im.err != im.keep {
		if _, _, errno := syscall.RawSyscall(unix.SYS_DUP3, im.err, im.keep, unix.O_CLOEXEC); errno != 0 {
			exit()
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, im.err, 0, 0)
	}
}

// execute ends the program. A record without error tells the parent that only execve is left: when the pipe is closed
// without one, the child was killed on the way.
//
//go:nosplit
//go:norace
func execute(im *image) {
	n := uintptr(len(im.ops))
	tell(im, n, 0)
	_, _, _ = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0, 0)
	for i := uintptr(0); i < uintptr(len(im.paths)); i++ {
		_, _, errno := syscall.RawSyscall(unix.SYS_EXECVE, im.paths[i], im.argv, im.envp)
		if errno == syscall.EACCES && isFolder(im, im.paths[i]) {
			errno = syscall.EISDIR
		}
		if im.search {
			switch errno {
			case syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES, syscall.EISDIR, syscall.ENAMETOOLONG, syscall.ELOOP:
				continue
			}
		}
		fail(im, n+i, errno)
	}
	fail(im, n, syscall.ENOENT)
}

// isFolder tells the two reasons of EACCES apart.
//
//go:nosplit
//go:norace
func isFolder(_ *image, path uintptr) bool {
	const cwd = ^uintptr(99) // AT_FDCWD
	_, _, errno := syscall.RawSyscall6(unix.SYS_OPENAT, cwd, path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, 0, 0)
	return errno == 0
}

//go:nosplit
//go:norace
func tell(im *image, at uintptr, errno syscall.Errno) {
	im.report[0], im.report[1] = uint32(at), uint32(errno)
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, im.keep, uintptr(unsafe.Pointer(&im.report[0])), 8)
}

//go:nosplit
//go:norace
func fail(im *image, at uintptr, errno syscall.Errno) {
	tell(im, at, errno)
	exit()
}

//go:nosplit
//go:norace
func exit() {
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}
