package cgroup

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// write puts a value into a cgroup file, in one system call: each write is a command.
func write(dir, file, value string) error {
	name := dir + "/" + file
	fd, err := retryOpen(name, unix.O_WRONLY)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }() // a cgroup file has nothing to flush
	for {
		if _, err = unix.Write(fd, []byte(value)); err != unix.EINTR {
			break
		}
	}
	switch err {
	case nil:
		return nil
	case unix.EINVAL, unix.ERANGE, unix.ENODEV:
		return errs.New(errs.Invalid, "write %q to %s: %w", value, name, err)
	}
	return fmt.Errorf("write %q to %s: %w", value, name, err)
}

func retryOpen(name string, flags int) (int, error) {
	for {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// read gives a file's text without the newline at its end.
func read(dir, file string) (string, error) {
	b, err := os.ReadFile(dir + "/" + file)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

func readFields(dir, file string) ([]string, error) {
	s, err := read(dir, file)
	return strings.Fields(s), err
}

// readUint reads a number; "max" and -1 are the largest one.
func readUint(dir, file string) (uint64, error) {
	s, err := read(dir, file)
	if err != nil {
		return 0, err
	}
	if s == "max" || s == "-1" {
		return ^uint64(0), nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s/%s: %w", dir, file, err)
	}
	return n, nil
}

// readPairs reads lines of a name and a number. Lines of another form are left out.
func readPairs(dir, file string) (map[string]uint64, error) {
	s, err := read(dir, file)
	if err != nil {
		return nil, err
	}
	out := make(map[string]uint64, 64)
	for line := range strings.SplitSeq(s, "\n") {
		name, num, ok := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(num, 10, 64); ok && err == nil {
			out[name] = n
		}
	}
	return out, nil
}
