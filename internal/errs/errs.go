// Package errs holds the closed set of error classes that the services return and that the API maps to HTTP
// statuses in one table. A class says what the caller may do about the error; the text says what was tried, on which
// object, and why it failed. Text and class survive wrapping with %w.
package errs

import (
	"errors"
	"fmt"
)

// Class is the kind of an error. The zero value is Internal.
type Class int

// The classes, with the HTTP status that the API answers.
const (
	Internal       Class = iota // 500: our fault or the system's
	Invalid                     // 400: the request can't be carried out as it is
	Unauthorized                // 401: credentials are missing or wrong
	Forbidden                   // 403: refused to this caller
	NotFound                    // 404: no such object
	Conflict                    // 409: the object's state or name is in the way
	NotModified                 // 304: already in the state asked for
	NotImplemented              // 501: not there (yet), by name
	Unavailable                 // 503: try again later
	Exhausted                   // 507: no space, no address, no port left
)

type classed struct {
	class Class
	err   error
}

func (e *classed) Error() string { return e.err.Error() }
func (e *classed) Unwrap() error { return e.err }

// New formats an error of the given class; %w wraps as in fmt.Errorf.
func New(class Class, format string, args ...any) error {
	return &classed{class: class, err: fmt.Errorf(format, args...)}
}

// As gives err a class without changing its text. A nil err stays nil.
func As(class Class, err error) error {
	if err == nil {
		return nil
	}
	return &classed{class: class, err: err}
}

// Of returns the class of the outermost classed error in err's chain, Internal if there is none.
func Of(err error) Class {
	var c *classed
	if errors.As(err, &c) {
		return c.class
	}
	return Internal
}

// Is reports whether err is of the given class.
func Is(err error, class Class) bool { return err != nil && Of(err) == class }
