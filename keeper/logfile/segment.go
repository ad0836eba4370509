package logfile

import (
	"compress/gzip"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// segment is one open file of a log.
type segment struct {
	f     *os.File
	gz    bool
	inode uint64 // of a plain file. As long as the segment is open no other file can have it
	plain *os.File
}

// first tells a file from all others of its log, compressed or not: a hash of its first entry (two files never begin with entries
// of the same time, see Writer.Append). It is 0 if there is none yet.
func (s *segment) first(c codec) uint64 {
	r, err := s.reader(c, 0)
	if err != nil {
		return 0
	}
	e, err := r.next()
	if err != nil || e == nil {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d %d ", e.Time.UnixNano(), e.Stream, len(e.Line))
	h.Write(e.Line[:min(len(e.Line), 256)])
	return h.Sum64()
}

// openSegments opens the files of a log, oldest first. It stops at the file that after is, and doesn't give it (nil: at none).
// It opens the newest first: rotations that happen meanwhile make it meet a file again, but miss none.
func openSegments(path string, c codec, after *segment) ([]*segment, error) {
	nums, _, err := rotated(path)
	if err != nil {
		return nil, err
	}
	highest := 0
	if len(nums) > 0 {
		highest = nums[len(nums)-1]
	}
	var newest []*segment
	known := &known{codec: c, inodes: map[uint64]bool{}, firsts: map[uint64]bool{}}
	for n := 0; ; n++ {
		name := path
		if n > 0 {
			name = rotatedName(path, n)
		}
		s, err := openSegment(name)
		if err != nil {
			for _, s := range newest {
				s.close()
			}
			return nil, err
		}
		switch {
		case s == nil && n > highest: // what was the oldest may have moved up
			slices.Reverse(newest)
			return newest, nil
		case s == nil: // a hole
		case after != nil && known.same(s, after):
			s.close()
			slices.Reverse(newest)
			return newest, nil
		case !known.add(s):
			s.close()
		default:
			newest = append(newest, s)
		}
	}
}

// known are the segments that were met.
type known struct {
	codec          codec
	inodes, firsts map[uint64]bool
}

// add is false if it is known already.
func (k *known) add(s *segment) bool {
	first := s.first(k.codec)
	if !s.gz && k.inodes[s.inode] || first != 0 && k.firsts[first] {
		return false
	}
	if !s.gz {
		k.inodes[s.inode] = true
	}
	if first != 0 {
		k.firsts[first] = true
	}
	return true
}

// same says whether two open segments are the same file, one of them perhaps compressed.
func (k *known) same(a, b *segment) bool {
	if !a.gz && !b.gz {
		return a.inode == b.inode
	}
	first := a.first(k.codec)
	return first != 0 && first == b.first(k.codec)
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
