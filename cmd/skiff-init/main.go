// Command skiff-init is the first process of a container that was started with --init: it starts the command, passes
// signals on to it, reaps what is orphaned, and ends with the command's exit code (128+n for signal n). It is mounted
// into containers, so it is static, small, and depends on nothing in them.
//
//	skiff-init [--] COMMAND [ARG...]
package main

import (
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unsafe"
)

// Exit codes of a command that could not be started, as a shell has them.
const (
	exitUsage      = 1
	exitCantInvoke = 126
	exitNotFound   = 127
	exitSignal     = 128
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		say("usage: skiff-init [--] COMMAND [ARG...]")
		return exitUsage
	}
	// Before the command starts, so that no signal and no child's end is missed. What tells of our own faults
	// (SIGSEGV …) is left to the runtime.
	signals := make(chan os.Signal, 128)
	signal.Notify(signals)
	signal.Reset(syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGABRT, syscall.SIGTRAP, syscall.SIGSYS)
	pid, err := start(args)
	if err != nil {
		say("exec " + args[0] + ": " + err.Error())
		if errors.Is(err, syscall.ENOENT) {
			return exitNotFound
		}
		return exitCantInvoke
	}
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			if code, ended := reap(pid); ended {
				return code
			}
		case syscall.SIGURG: // the Go runtime sends it to itself all the time
		case syscall.SIGTTIN, syscall.SIGTTOU: // ours, as a background process of the terminal
		default:
			if n, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(pid, n) // ESRCH: it has just ended
			}
		}
	}
	return exitUsage // the channel is never closed
}

// start runs the command in a process group of its own; on a terminal that group is in the foreground, so that the
// terminal's signals reach it directly.
func start(args []string) (int, error) {
	file, err := lookup(args[0], os.Getenv("PATH"))
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: ownTerminal()},
	}
	return syscall.ForkExec(file, args, attr)
}

// ownTerminal says whether stdin is the terminal of our session: only then it has a foreground group for us to set.
func ownTerminal() bool {
	var group int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group)))
	return errno == 0
}

// lookup finds a command as execvp does: the first executable file in the path, or else the most telling error.
func lookup(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	found := error(syscall.ENOENT)
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		var st syscall.Stat_t
		if syscall.Stat(file, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
			continue
		}
		const execute = 1
		if err := syscall.Access(file, execute); err != nil {
			found = err
			continue
		}
		return file, nil
	}
	return "", found
}

// reap takes all ended children away, and tells the exit code if the command was among them.
func reap(command int) (code int, ended bool) {
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil || pid <= 0: // no child left, or none that has ended
			return code, ended
		case pid == command && st.Signaled():
			code, ended = exitSignal+int(st.Signal()), true
		case pid == command:
			code, ended = st.ExitStatus(), true
		}
	}
}

func say(text string) { _, _ = os.Stderr.WriteString("skiff-init: " + text + "\n") }
