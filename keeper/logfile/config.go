package logfile

import (
	"fmt"
	"time"

	"skiff/internal/errs"
)

// The drivers that write files.
const (
	DriverJSON  = "json-file"
	DriverLocal = "local"
	DriverNone  = "none"
)

// Config says where and how output is recorded. Its fields are those of keeper.LogConfig, so that one converts to the other.
type Config struct {
	Driver   string `json:",omitempty"` // "json-file", "local", "" or "none"
	Path     string `json:",omitempty"` // absolute path of the current file
	MaxSize  int64  `json:",omitempty"` // bytes after which the file is rotated; <= 0: never
	MaxFiles int    `json:",omitempty"` // how many files are kept, at least 1
	Compress bool   `json:",omitempty"` // gzip rotated files
	// Attrs are the attributes of each line (labels, env), nil for none.
	Attrs map[string]string `json:",omitempty"`
}

// Enabled says that this configuration records something.
func (c Config) Enabled() bool { return c.Driver != "" && c.Driver != DriverNone }

// Stream is where an entry's bytes were written to.
type Stream uint8

// The streams, by their numbers in Docker's frames.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String is the name as json-file has it.
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Entry is a line or a piece of a line.
type Entry struct {
	Time   time.Time
	Stream Stream
	// Line is the bytes, with the newline if it is there. The reader that gave it may use its memory again for the next.
	Line []byte
	// Partial says that the line goes on in the stream's next entry, or that it never got its newline.
	Partial bool
	// Start says that a line begins here: the place for a timestamp. The reader sets it.
	Start bool
	Attrs map[string]string
}

// codec is one file format.
type codec interface {
	// header begins a new file.
	header(attrs map[string]string) []byte
	// add appends one record to dst.
	add(dst []byte, t time.Time, s Stream, p []byte) []byte
	// next decodes the first record of b. n is its length, 0 if b holds only a part of it. Records that are no entries, and
	// garbage, have a length but ok is false. Strings of bytes in e may point into b or scratch.
	next(b []byte, e *Entry) (n int, ok bool)
	// prev gives the start of the last record in b, which ends with a whole record; -1 if b doesn't hold its start.
	prev(b []byte) int
	// whole gives how many bytes of a file, read by at, are whole records; size is the file's.
	whole(at readerAt, size int64) (int64, error)
}

type readerAt interface {
	ReadAt(p []byte, off int64) (int, error)
}

// newCodec is the format of a driver. attrs are those of new records.
func newCodec(driver string, attrs map[string]string) (codec, error) {
	switch driver {
	case DriverJSON:
		return newJSONCodec(attrs), nil
	case DriverLocal:
		return new(localCodec), nil
	}
	return nil, errs.New(errs.Invalid, "log driver %q writes no file that could be read", driver)
}

func (c Config) check() error {
	if c.Path == "" || c.Path[0] != '/' {
		return fmt.Errorf("log file path %q is not absolute", c.Path)
	}
	return nil
}
