//go:build amd64 || arm64

package launch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Everything in this file runs in the child, after clone: no allocation, no growth of the stack, no lock, no write barrier, no
// variable of the package. Memory outside of the image may be missing altogether (see Shrink).

// cloneInto makes the child, on a stack of its own, where it calls the function at entry (child) with im. In the parent it gives
// the pid or -errno.
//
//go:noescape
func cloneInto(args *cloneArgs, size uintptr, im *image, entry uintptr) uintptr

// childEntry is the address of child's code, for cloneInto.
func childEntry() uintptr {
	f := child
	return **(**uintptr)(unsafe.Pointer(&f)) // a func value points to a word that holds the address
}

// sys is a raw system call: it gives the result or -errno. It is ours so that the child's code lies together: each page of the
// program's text that the child touches is a page fault (10 µs on the reference machine).
//
//go:noescape
func sys(nr, a1, a2, a3, a4, a5, a6 uintptr) uintptr

// failed gives the errno of a result, 0 if it is none.
//
//go:nosplit
//go:norace
func failed(r uintptr) syscall.Errno {
	if r > ^uintptr(4095) {
		return syscall.Errno(-r)
	}
	return 0
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

// arg is an argument of a call, from its register if it stands for one.
//
//go:nosplit
//go:norace
func arg(im *image, c *call, i uint) uintptr {
	if c.regs&(1<<i) != 0 {
		return im.regs[c.args[i]]
	}
	return c.args[i]
}

// step makes one call and says how many of the next ones to leave out.
//
//go:nosplit
//go:norace
func step(im *image, i uintptr) (skip uintptr, errno syscall.Errno) {
	c := &im.ops[i]
	var r uintptr
	if c.regs == 0 {
		r = sys(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
	} else {
		r = sys(c.nr, arg(im, c, 0), arg(im, c, 1), arg(im, c, 2), arg(im, c, 3), arg(im, c, 4), arg(im, c, 5))
	}
	if im.times != nil {
		sys(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&im.times[2*i])), 0, 0, 0, 0)
	}
	skip = uintptr(c.skipOK)
	if errno = failed(r); errno != 0 {
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
	sys(unix.SYS_CLOSE, im.errRead, 0, 0, 0, 0, 0)
	sys(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	// The parent may have died before that: nobody has the error pipe's other end then.
	im.scratch[0] = uint64(uint32(im.err)) // struct pollfd: fd, no events
	sys(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&im.scratch[0])), 1, uintptr(unsafe.Pointer(&im.scratch[4])), 0, 0, 0)
	if im.scratch[0] != uint64(uint32(im.err)) {
		exit()
	}
	im.scratch[0] = 0
	for i := 0; i < len(im.ignored); i++ { // CLONE_CLEAR_SIGHAND leaves ignored signals ignored
		sys(unix.SYS_RT_SIGACTION, im.ignored[i], uintptr(unsafe.Pointer(&im.scratch[8])), 0, 8, 0, 0)
	}
	sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&im.scratch[0])), 0, 8, 0, 0)
	if im.undump {
		sys(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0, 0)
	}
	sys(unix.SYS_UMASK, 0, 0, 0, 0, 0, 0)
	if im.sync != none {
		sys(unix.SYS_CLOSE, im.tell, 0, 0, 0, 0, 0)
		if sys(unix.SYS_READ, im.sync, uintptr(unsafe.Pointer(&im.scratch[0])), 1, 0, 0, 0) != 1 {
			exit() // the parent could not set us up, and knows it
		}
		sys(unix.SYS_CLOSE, im.sync, 0, 0, 0, 0, 0)
	}
	if im.err != im.keep {
		if failed(sys(unix.SYS_DUP3, im.err, im.keep, unix.O_CLOEXEC, 0, 0, 0)) != 0 {
			exit()
		}
		sys(unix.SYS_CLOSE, im.err, 0, 0, 0, 0, 0)
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
	sys(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0, 0, 0, 0, 0)
	for i := uintptr(0); i < uintptr(len(im.paths)); i++ {
		errno := failed(sys(unix.SYS_EXECVE, im.paths[i], im.argv, im.envp, 0, 0, 0))
		if errno == syscall.EACCES && isFolder(im.paths[i]) {
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
func isFolder(path uintptr) bool {
	const cwd = ^uintptr(99) // AT_FDCWD
	return failed(sys(unix.SYS_OPENAT, cwd, path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, 0, 0)) == 0
}

//go:nosplit
//go:norace
func tell(im *image, at uintptr, errno syscall.Errno) {
	im.report[0], im.report[1] = uint32(at), uint32(errno)
	sys(unix.SYS_WRITE, im.keep, uintptr(unsafe.Pointer(&im.report[0])), 8, 0, 0, 0)
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
		sys(unix.SYS_EXIT_GROUP, 127, 0, 0, 0, 0, 0)
	}
}
