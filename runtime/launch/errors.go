package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// StepError says which step of a program failed.
type StepError struct {
	Index  int         // of the operation; len(Ops) or more is execve; -1: the child died before it could tell
	Name   string      // the operation's name, or argv[0] for execve
	Errno  unix.Errno  // 0 if the child died
	Killed unix.Signal // the signal the child died of, if it died
	// Exec says that all operations are done and execve failed. Search says that Name was looked for in PATH.
	Exec, Search bool
}

// Failure reads what a child wrote to the file that it tells its errors to: records of 8 bytes, the index of the step
// and the errno, the last one counting. It is nil if execve succeeded. A child that died before it got to execve writes no record at all.
func (p *Program) Failure(records []byte) *StepError {
	if len(records) < 8 {
		return &StepError{Index: -1, Name: "launch"}
	}
	last := records[len(records)-len(records)%8-8:]
	at, errno := int(binary.NativeEndian.Uint32(last)), unix.Errno(binary.NativeEndian.Uint32(last[4:]))
	if errno == 0 {
		return nil
	}
	return p.stepError(at, errno)
}

// stepError makes the error of a report.
func (p *Program) stepError(at int, errno unix.Errno) *StepError {
	switch {
	case at < len(p.Ops):
		return &StepError{Index: at, Name: p.Ops[at].Name, Errno: errno}
	default:
		return &StepError{Index: at, Name: p.Exec.Name, Errno: errno, Exec: true, Search: p.Exec.Search}
	}
}

// Error gives the cause in runc's words, which Docker's command line turns into exit codes: "executable file not found"
// and "no such file or directory" into 127, "permission denied" and "is a directory" into 126.
func (e *StepError) Error() string {
	switch {
	case e.Index < 0 && e.Killed == unix.SIGKILL:
		return "the new process was killed before it could execute anything (is the memory limit too low?)"
	case e.Index < 0:
		return fmt.Sprintf("the new process ended before it could execute anything (signal %d)", int(e.Killed))
	case e.Exec && e.Search && e.Errno == unix.ENOENT:
		return fmt.Sprintf("exec: %q: executable file not found in $PATH", e.Name)
	case e.Exec && e.Errno == unix.ENOENT:
		return fmt.Sprintf("exec: %q: stat %s: no such file or directory", e.Name, e.Name)
	case e.Exec && (e.Errno == unix.EACCES || e.Errno == unix.EISDIR || e.Errno == unix.ENOTDIR || e.Errno == unix.ELOOP):
		return fmt.Sprintf("exec: %q: %s", e.Name, e.Errno.Error())
	case e.Exec:
		return fmt.Sprintf("exec %s: %s", e.Name, e.Errno.Error())
	}
	return e.Name + ": " + e.Errno.Error()
}

// Unwrap gives the errno, so that errors.Is(err, unix.ENOENT) works.
func (e *StepError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// ExitCode is the code that `docker run` gives for this error: 127 for a command that is not there, 126 for one that can't
// be invoked, 125 for all else.
func (e *StepError) ExitCode() int {
	text := e.Error()
	for _, s := range []string{"executable file not found", "no such file or directory"} {
		if strings.Contains(text, s) {
			return 127
		}
	}
	for _, s := range []string{"permission denied", "is a directory"} {
		if strings.Contains(text, s) {
			return 126
		}
	}
	return 125
}

// CreateMessage is what dockerd answers when a container's first process can't be started for the reason err. Docker's
// clients know the words.
func CreateMessage(err error) string {
	return "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: " +
		"unable to start container process: " + during(err) + err.Error() + ": unknown"
}

// ExecMessage is what dockerd answers when a further process can't be started for the reason err.
func ExecMessage(err error) string {
	return "OCI runtime exec failed: exec failed: unable to start container process: " + err.Error() + ": unknown"
}

// during says that it went wrong inside the container.
func during(err error) string {
	var step *StepError
	if errors.As(err, &step) {
		return "error during container init: "
	}
	return ""
}
