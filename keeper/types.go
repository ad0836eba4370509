package keeper

import (
	"os"
	"time"
)

// LaunchRequest asks the keeper to start one process: a container's first, or an exec's. The keeper owns none of the
// files after Launch returned to the caller: it has its own copies, and the caller keeps (or closes) its own.
type LaunchRequest struct {
	ID      string     // container id, or container id "/" exec id; one live process for each
	Program []byte     // launch.Program in its binary form
	Files   []*os.File // slot i of the program is Files[i]

	// The keeper's ends of the process's streams. Pipes: all three or nil for a stream that is not wanted.
	// Terminal: Stdin and Stdout are the pty's master, Stderr is nil.
	Stdin, Stdout, Stderr *os.File
	Terminal              bool

	Log         LogConfig
	Subscribers []Subscriber // attached before the first byte
}

// LogConfig says where a container's output is recorded. The zero value records nothing.
type LogConfig struct {
	Driver   string `json:",omitempty"` // "json-file", "local", "" or "none"
	Path     string `json:",omitempty"` // absolute path of the current file; rotated ones are Path.1, Path.2 … (.gz if compressed)
	MaxSize  int64  `json:",omitempty"` // bytes after which the file is rotated; <= 0: never
	MaxFiles int    `json:",omitempty"` // how many files are kept, at least 1
	Compress bool   `json:",omitempty"` // gzip rotated files
	// Attrs are the json-file attributes of each line (labels, env), nil for none.
	Attrs map[string]string `json:",omitempty"`
}

// Subscriber gets a process's output from now on, until the process ended or W's other end is closed. With a terminal the
// bytes come raw, else in Docker's frames (8-byte header: stream 1 or 2, three zeros, big-endian length).
type Subscriber struct {
	W              *os.File // a stream socket or pipe
	Stdout, Stderr bool
}

// Process is a started process.
type Process struct {
	ID        string
	PID       int      // in the host's pid namespace
	PIDFD     *os.File // the caller closes it
	StartTime uint64   // clock ticks after boot (field 22 of /proc/PID/stat): with PID, an identity that survives us
	StartedAt time.Time
}

// Exit is the end of a process.
type Exit struct {
	ID string
	At time.Time
	// Code is the exit code, 128+n for a process that signal n ended, or -1 if it can't be known (the keeper was
	// killed and the kernel is too old for PIDFD_GET_INFO).
	Code   int
	Signal int // n, else 0
}

// State is what the keeper knows of one process.
type State struct {
	Process
	Exited *Exit // nil: it runs
	// The keeper's ends of the streams of a running process, as in LaunchRequest; the caller closes them.
	Stdin, Stdout, Stderr *os.File
	Terminal              bool
}
