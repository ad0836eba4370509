package client

import (
	"errors"
	"fmt"
	"io/fs"
)

// Error is an error that the daemon answered with.
type Error struct {
	Status  int    // HTTP status
	Message string // the daemon's words
}

// Error gives the text as Docker's client prints it; programs look for this prefix.
func (e *Error) Error() string { return "Error response from daemon: " + e.Message }

// ConnectError says that no daemon could be reached.
type ConnectError struct {
	Host string // as "unix:///run/skiff/skiff.sock"
	Err  error
}

// Error begins with the sentence that scripts look for.
func (e *ConnectError) Error() string {
	if errors.Is(e.Err, fs.ErrPermission) {
		return fmt.Sprintf("permission denied while trying to connect to the Docker daemon socket at %s: %v", e.Host, e.Err)
	}
	return fmt.Sprintf("Cannot connect to the Docker daemon at %s. Is the docker daemon running? (%v)", e.Host, e.Err)
}

// Unwrap gives the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// StatusOf returns the HTTP status of an error that came from the daemon, or 0.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// IsNotFound reports whether the daemon said that an object does not exist.
func IsNotFound(err error) bool { return StatusOf(err) == 404 }
