package layer

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// trash deletes folders off the caller's path: a rename makes them vanish at once, one goroutine removes the files. What
// is left when the process ends is removed by the next one.
type trash struct {
	dir  string
	log  *slog.Logger
	seq  atomic.Uint64
	wake chan struct{}
	quit chan struct{}
	done sync.WaitGroup
}

func startTrash(dir string, log *slog.Logger) *trash {
	t := &trash{dir: dir, log: log, wake: make(chan struct{}, 1), quit: make(chan struct{})}
	t.seq.Store(uint64(time.Now().UnixNano())) // names of a predecessor's leftovers are not met again
	t.wake <- struct{}{}
	t.done.Go(t.run)
	return t
}

// take moves the file or folder at path into the trash. A path that is not there is no error.
func (t *trash) take(path string) error {
	err := os.Rename(path, filepath.Join(t.dir, strconv.FormatUint(t.seq.Add(1), 36)))
	if err != nil {
		if isNotExist(err) {
			return nil
		}
		return fmt.Errorf("moving %s to the trash: %w", path, err)
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
	return nil
}

func (t *trash) run() {
	for {
		select {
		case <-t.quit:
			return
		case <-t.wake:
		}
		t.empty()
	}
}

func (t *trash) empty() {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		t.log.Warn("reading the trash", "folder", t.dir, "error", err)
		return
	}
	for _, e := range entries {
		select {
		case <-t.quit:
			return
		default:
		}
		if err := os.RemoveAll(filepath.Join(t.dir, e.Name())); err != nil {
			t.log.Warn("emptying the trash", "entry", e.Name(), "error", err)
		}
	}
}

func (t *trash) stop() {
	close(t.quit)
	t.done.Wait()
}
