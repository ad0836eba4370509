package wire

import (
	"errors"
	"fmt"
	"time"

	"skiff/internal/errs"
	"skiff/keeper/logfile"
)

// Op names what a message asks or tells.
type Op string

// Requests of the engine, then pushes of the keeper.
const (
	OpHello      Op = "hello"       // first message on every connection; the reply holds the keeper's Config
	OpAdopt      Op = "adopt"       // hands a process of a dead keeper to this one
	OpAdopted    Op = "adopted"     // all was handed over: pumps may run
	OpLaunch     Op = "launch"      // starts a process
	OpSubscribe  Op = "subscribe"   // adds a subscriber
	OpCloseStdin Op = "close-stdin" // closes the keeper's copy of a process's stdin
	OpList       Op = "list"        // tells all processes
	OpForget     Op = "forget"      // drops an ended process
	OpStash      Op = "stash"       // keeps files by name
	OpStashed    Op = "stashed"     // gives them all back
	OpUnstash    Op = "unstash"     // drops one name's files
	OpPing       Op = "ping"

	OpExit   Op = "exit"   // push: a process ended
	OpUnsubs Op = "unsubs" // push: a subscriber is done, its file may be closed
)

// Message is the header of every message. Only the fields that its Op needs are set.
type Message struct {
	Seq   uint64 `json:",omitempty"` // number of the request; 0 for pushes
	Op    Op     `json:",omitempty"`
	Reply bool   `json:",omitempty"`
	More  bool   `json:",omitempty"` // another message with the same number follows
	Err   *Error `json:",omitempty"`

	ID         string      `json:",omitempty"` // the process or stash name that is meant
	Config     *Config     `json:",omitempty"`
	Engine     *File       `json:",omitempty"` // OpAdopted: the engine's own pidfd
	EnginePID  int         `json:",omitempty"`
	Launch     *Launch     `json:",omitempty"`
	Subscriber *Subscriber `json:",omitempty"`
	Process    *Process    `json:",omitempty"`
	Processes  []Process   `json:",omitempty"`
	Exit       *Exit       `json:",omitempty"`
	Stash      []Stashed   `json:",omitempty"`
	Limbo      []Pipe      `json:",omitempty"` // bytes on their way out of a container's stream, see package server
}

// File is an index into a message's files, plus one, so that the zero value means no file.
type File int

// Config is what a keeper was started with. The engine holds a copy, to start the keeper's successor with.
type Config struct {
	ExecRoot string   `json:",omitempty"` // absolute folder for state files, ledger and spill files
	Keeper   string   `json:",omitempty"` // absolute path of the keeper's program
	Engine   []string `json:",omitempty"` // argv of the engine; Engine[0] is its absolute path. Empty: nothing to restart
	Env      []string `json:",omitempty"` // the engine's environment
	Dir      string   `json:",omitempty"` // the engine's working folder
	PID      int      `json:",omitempty"` // the keeper's
	Debug    bool     `json:",omitempty"` // it logs more
}

// Launch is the wire form of keeper.LaunchRequest; the payload is the program.
type Launch struct {
	Files                 []File         `json:",omitempty"`
	Stdin, Stdout, Stderr File           `json:",omitempty"`
	Terminal              bool           `json:",omitempty"`
	Log                   logfile.Config `json:",omitzero"`
	Subscribers           []Subscriber   `json:",omitempty"`
}

// Subscriber is the wire form of keeper.Subscriber. Number is chosen by the engine and unique for its life.
type Subscriber struct {
	Number         uint64
	W              File
	Pipe           Pipe // where what is about to be written to W passes through; the engine holds a duplicate
	Stdout, Stderr bool `json:",omitempty"`
	Slot           int  `json:",omitempty"` // place in the ledger plus one; known after the reply
}

// Process is the wire form of keeper.State, and with the fields below all that a successor needs to adopt it.
type Process struct {
	ID                    string
	PID                   int
	PIDFD                 File `json:",omitempty"`
	StartTime             uint64
	StartedAt             time.Time
	Exited                *Exit `json:",omitempty"`
	Stdin, Stdout, Stderr File  `json:",omitempty"`
	Terminal              bool  `json:",omitempty"`

	Log         logfile.Config `json:",omitzero"`
	Slot        int            `json:",omitempty"` // place in the ledger plus one; 0: none
	Subscribers []Subscriber   `json:",omitempty"`
	StdinClosed bool           `json:",omitempty"`
}

// Exit is the wire form of keeper.Exit.
type Exit struct {
	ID     string
	At     time.Time
	Code   int
	Signal int `json:",omitempty"`
}

// Stashed is a named list of files.
type Stashed struct {
	Name  string
	Files []File
}

// Pipe is both ends of a pipe.
type Pipe struct{ R, W File }

// Error is an error on the wire: its text and class, and the failed step of a launch.
type Error struct {
	Text  string
	Class errs.Class `json:",omitempty"`
	// Step is the launch step that failed, nil for other errors.
	Step *Step `json:",omitempty"`
}

// Step is the wire form of launch.StepError.
type Step struct {
	Index        int
	Name         string `json:",omitempty"`
	Errno        int    `json:",omitempty"`
	Killed       int    `json:",omitempty"`
	Exec, Search bool   `json:",omitempty"`
}

// FromError gives err its wire form; nil stays nil.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	var we *Error
	if errors.As(err, &we) {
		return we
	}
	return &Error{Text: err.Error(), Class: errs.Of(err)}
}

// Error is the text.
func (e *Error) Error() string { return e.Text }

// Classed is the error as its receiver should return it: with its class.
func (e *Error) Classed() error {
	if e == nil {
		return nil
	}
	return errs.As(e.Class, e)
}

// Files collects the files of a message that is being built.
type Files []int

// Add appends a descriptor and returns its index; a negative descriptor is no file.
func (f *Files) Add(fd int) File {
	if fd < 0 {
		return 0
	}
	*f = append(*f, fd)
	return File(len(*f))
}

// Take hands out the descriptor that x means and removes it from the list, so that CloseAll leaves it alone. It is -1
// if there is none.
func (f Files) Take(x File) int {
	if x <= 0 || int(x) > len(f) {
		return -1
	}
	fd := f[x-1]
	f[x-1] = -1
	return fd
}

// String is for logs.
func (m *Message) String() string { return fmt.Sprintf("%s %d %s", m.Op, m.Seq, m.ID) }
