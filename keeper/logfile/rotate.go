package logfile

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	gzipSuffix = ".gz"
	tempSuffix = ".packing"
)

// rotatedName is the path of the rotated file i >= 1, plain.
func rotatedName(path string, i int) string { return path + "." + strconv.Itoa(i) }

// rotated lists the numbers of a log's rotated files in rising order (newest first), with the path of each. Where a plain file and
// a compressed one have the same number, the plain one counts.
func rotated(path string) (nums []int, paths map[int]string, err error) {
	dir, base := filepath.Split(path)
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("list rotated log files: %w", err)
	}
	paths = make(map[int]string)
	highest := 0
	for _, e := range list {
		rest, ok := strings.CutPrefix(e.Name(), base+".")
		if !ok {
			continue
		}
		digits, gz := strings.CutSuffix(rest, gzipSuffix)
		n, err := strconv.Atoi(digits)
		if err != nil || n < 1 || strconv.Itoa(n) != digits || gz && paths[n] != "" {
			continue
		}
		paths[n] = filepath.Join(dir, e.Name())
		highest = max(highest, n)
	}
	for n := 1; n <= highest; n++ {
		if paths[n] != "" {
			nums = append(nums, n)
		}
	}
	return nums, paths, nil
}

// rotate moves the current file to Path.1 and begins a new one. The caller holds w.mu.
func (w *Writer) rotate() error {
	keep := max(w.cfg.MaxFiles, 1)
	nums, paths, err := rotated(w.cfg.Path)
	if err != nil {
		return err
	}
	for i := len(nums) - 1; i >= 0; i-- { // too many, after MaxFiles was lowered; the last of them is replaced below
		if nums[i] >= keep {
			remove(w.cfg.Path, nums[i])
		}
	}
	free := 1 // the first number that no file has: older files stay where they are
	for free < keep && paths[free] != "" {
		free++
	}
	if free >= keep {
		free = keep - 1
		remove(w.cfg.Path, free)
	}
	for n := free; n > 1; n-- {
		from := paths[n-1]
		to := rotatedName(w.cfg.Path, n)
		if strings.HasSuffix(from, gzipSuffix) {
			to += gzipSuffix
		}
		if !strings.HasSuffix(from, gzipSuffix) {
			_ = os.Remove(from + gzipSuffix) // a compressed twin would take its number and be read twice
		}
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("rotate log file: %w", err)
		}
	}
	if keep == 1 {
		err = os.Remove(w.cfg.Path) // those who follow it still have it open
	} else {
		err = os.Rename(w.cfg.Path, rotatedName(w.cfg.Path, 1))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate log file: %w", err)
	}
	if err := w.reopen(); err != nil {
		return err
	}
	w.pack()
	return nil
}

func remove(path string, n int) {
	if n < 1 {
		return
	}
	_ = os.Remove(rotatedName(path, n))
	_ = os.Remove(rotatedName(path, n) + gzipSuffix)
}

// tidy removes what a killed compression left behind and goes on with what is still to be compressed.
func (w *Writer) tidy() {
	if w.cfg.MaxFiles < 2 {
		return
	}
	nums, paths, err := rotated(w.cfg.Path)
	if err != nil || len(nums) == 0 {
		return
	}
	for _, n := range nums {
		if !strings.HasSuffix(paths[n], gzipSuffix) {
			_ = os.Remove(paths[n] + gzipSuffix)
		}
	}
	_ = os.Remove(w.cfg.Path + tempSuffix)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pack()
}

// pack starts the compression of rotated files, unless it runs already. The caller holds w.mu.
func (w *Writer) pack() {
	if !w.cfg.Compress || w.packing != nil {
		return
	}
	done := make(chan struct{})
	w.packing = done
	go func() {
		defer close(done)
		for w.packOne() {
		}
		w.mu.Lock()
		w.packing = nil
		w.mu.Unlock()
	}()
}

// packOne compresses the oldest plain rotated file. It is false if there is none, or it failed: the next rotation tries
// again.
func (w *Writer) packOne() bool {
	nums, paths, err := rotated(w.cfg.Path)
	if err != nil {
		return false
	}
	for i := len(nums) - 1; i >= 0; i-- {
		if p := paths[nums[i]]; !strings.HasSuffix(p, gzipSuffix) {
			return w.packFile(p) == nil
		}
	}
	return false
}

func (w *Writer) packFile(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil {
		return err
	}
	temp := w.cfg.Path + tempSuffix
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer out.Close()
	if err = w.gzip(out, in); err == nil {
		err = out.Sync() // the plain file goes away for it
	}
	if err == nil {
		err = w.replace(temp, st.Ino)
	}
	if err != nil {
		_ = os.Remove(temp)
	}
	return err
}

func (w *Writer) gzip(out io.Writer, in io.Reader) error {
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-w.stop:
			return os.ErrClosed
		default:
		}
		n, err := in.Read(buf)
		if _, werr := z.Write(buf[:n]); werr != nil {
			return werr
		}
		if err == io.EOF {
			return z.Close()
		}
		if err != nil {
			return err
		}
	}
}

// replace puts the compressed file in the place of the plain one, which rotations may have renamed meanwhile.
func (w *Writer) replace(temp string, inode uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return os.ErrClosed
	}
	nums, paths, err := rotated(w.cfg.Path)
	if err != nil {
		return err
	}
	for _, n := range nums {
		var st unix.Stat_t
		if unix.Stat(paths[n], &st) != nil || st.Ino != inode {
			continue
		}
		if err := os.Rename(temp, rotatedName(w.cfg.Path, n)+gzipSuffix); err != nil {
			return err
		}
		return os.Remove(paths[n])
	}
	return fmt.Errorf("log file with inode %d was removed: %w", inode, fs.ErrNotExist) // by a rotation: nothing is lost
}
