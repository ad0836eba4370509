package logfile

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// wait returns true when there may be more to read, false at the log's end.
func (r *Reader) wait(ctx context.Context) (bool, error) {
	if !r.opt.Follow {
		return false, nil
	}
	var until <-chan time.Time
	if !r.opt.Until.IsZero() {
		t := time.NewTimer(time.Until(r.opt.Until))
		defer t.Stop()
		until = t.C
	}
	for {
		ended := false
		select {
		case <-r.opt.Ended: // looked at before the files: what was written before is found
			ended = true
		default:
		}
		if more, err := r.look(); more || err != nil || ended {
			return more, err
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-r.opt.Ended:
		case <-until:
			return false, nil
		case <-r.watch.wake:
		case <-time.After(r.watch.poll):
		}
	}
}

// look says whether the file being read grew, was cut, or has successors.
func (r *Reader) look() (bool, error) {
	if len(r.segs) == 0 {
		var err error
		r.segs, err = openSegments(r.cfg.Path, r.codec, nil)
		return len(r.segs) > 0, err
	}
	var own, now unix.Stat_t
	if err := unix.Fstat(int(r.segs[0].f.Fd()), &own); err != nil {
		return false, err
	}
	end := r.cur.off + int64(len(r.cur.buf))
	if r.segs[0].gz { // it grows no more
		end = own.Size
	}
	if own.Size > end {
		return true, nil
	}
	if own.Size < end { // cut: what is there now is new
		r.cur = nil
		r.limit = [3]position{}
		return own.Size > 0, r.restart()
	}
	if unix.Stat(r.cfg.Path, &now) != nil || now.Ino == own.Ino {
		return false, nil
	}
	// The writer is through with a file when its name is gone; what came since the last look is read first.
	if err := unix.Fstat(int(r.segs[0].f.Fd()), &own); err != nil || own.Size > end {
		return true, err
	}
	next, err := openSegments(r.cfg.Path, r.codec, r.segs[0])
	if err != nil || len(next) == 0 {
		return false, err
	}
	r.segs = append(r.segs[:1], next...)
	return true, nil
}

// restart reads the current segment from its beginning.
func (r *Reader) restart() (err error) {
	r.cur, err = r.segs[0].reader(r.codec, 0)
	return err
}

// watcher wakes a reader when something happens in the log's folder.
type watcher struct {
	wake chan struct{}
	poll time.Duration // look at least this often
	f    *os.File
}

// newWatcher uses inotify, or looks often where that can't be had.
func newWatcher(path string) *watcher {
	w := &watcher{wake: make(chan struct{}, 1), poll: 25 * time.Millisecond}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return w
	}
	mask := uint32(unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_ONLYDIR)
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), mask); err != nil {
		_ = unix.Close(fd)
		return w
	}
	w.f, w.poll = os.NewFile(uintptr(fd), "inotify"), time.Second
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := w.f.Read(buf); err != nil {
				return
			}
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

func (w *watcher) close() {
	if w.f != nil {
		w.f.Close()
	}
}
