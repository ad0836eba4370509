package logfile

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// segment is one open file of a log.
type segment struct {
	f     *os.File
	gz    bool
	inode uint64 // of the file while it was the current one
	plain *os.File
}

// openSegments opens the files of a log, oldest first. It stops at the file whose inode is after, which it doesn't open (0: none).
// It opens the newest first: rotations that happen meanwhile make it meet a file again, but miss none.
func openSegments(path string, after uint64) ([]*segment, error) {
	var segs []*segment
	seen := map[uint64]bool{}
	fail := func(err error) ([]*segment, error) {
		for _, s := range segs {
			s.close()
		}
		return nil, err
	}
	add := func(p string) (stop bool, err error) {
		s, err := openSegment(p)
		if err != nil || s == nil {
			return false, err
		}
		if s.inode == after && after != 0 || seen[s.inode] {
			s.close()
			return s.inode == after && after != 0, nil
		}
		seen[s.inode] = true
		segs = append([]*segment{s}, segs...)
		return false, nil
	}
	stop, err := add(path)
	if err != nil {
		return fail(err)
	}
	if stop {
		return nil, nil
	}
	nums, _, err := rotated(path)
	if err != nil {
		return fail(err)
	}
	for _, n := range nums {
		stop, err := add(rotatedName(path, n))
		if err != nil {
			return fail(err)
		}
		if stop {
			break
		}
	}
	return segs, nil
}

// openSegment opens path, or path.gz; nil if there is neither.
func openSegment(path string) (*segment, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.Open(path + gzipSuffix)
	}
	if errors.Is(err, fs.ErrNotExist) { // between the two of them?
		f, err = os.Open(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log file: %w", err)
	}
	s := &segment{f: f, gz: strings.HasSuffix(f.Name(), gzipSuffix)}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("look at log file %s: %w", f.Name(), err)
	}
	s.inode = st.Ino
	if s.gz {
		if z, err := gzip.NewReader(f); err == nil {
			var p packed
			if json.Unmarshal([]byte(z.Comment), &p) == nil && p.Inode != 0 {
				s.inode = p.Inode
			}
		}
	}
	return s, nil
}

func (s *segment) close() {
	s.f.Close()
	if s.plain != nil {
		s.plain.Close()
	}
}

// reader reads the segment from off on.
func (s *segment) reader(c codec, off int64) (*forward, error) {
	if s.gz && s.plain == nil {
		if off > 0 {
			if _, err := s.random(); err != nil {
				return nil, err
			}
			return newForward(s.plain, off, c), nil
		}
		if _, err := s.f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		z, err := gzip.NewReader(s.f)
		if err != nil {
			return nil, fmt.Errorf("inflate log file %s: %w", s.f.Name(), err)
		}
		return newStream(z, c), nil
	}
	if s.plain != nil {
		return newForward(s.plain, off, c), nil
	}
	return newForward(s.f, off, c), nil
}

// random gives a file with the inflated bytes for reading in any order.
func (s *segment) random() (*os.File, error) {
	if !s.gz {
		return s.f, nil
	}
	if s.plain != nil {
		return s.plain, nil
	}
	if _, err := s.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(s.f)
	if err != nil {
		return nil, fmt.Errorf("inflate log file %s: %w", s.f.Name(), err)
	}
	t, err := os.CreateTemp("", "skiff-log-*")
	if err != nil {
		return nil, fmt.Errorf("inflate log file %s: %w", s.f.Name(), err)
	}
	_ = os.Remove(t.Name()) // it lives as long as it is open
	if _, err := io.Copy(t, z); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Close()
		return nil, fmt.Errorf("inflate log file %s: %w", s.f.Name(), err)
	}
	s.plain = t
	return t, nil
}
