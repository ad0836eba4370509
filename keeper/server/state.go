package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"skiff/keeper/wire"
)

// saved is what a state file holds: enough for a keeper that starts from nothing to find the process again.
type saved struct {
	wire.Process
	Boot string // id of the boot
	// Streams are the inodes of the pipes of stdin, stdout and stderr, 0 for none: the process's own ends lead to them.
	Streams [3]uint64
}

// statePath is the name of a process's state file. Ids hold slashes, and may be long.
func (s *Server) statePath(id string) string {
	name := strings.ReplaceAll(id, "/", "+")
	if len(name) > 140 || strings.ContainsAny(id, "+\x00") {
		sum := sha256.Sum256([]byte(id))
		name = hex.EncodeToString(sum[:])
	}
	return filepath.Join(s.dir, name+".json")
}

// saveState writes the process's state file. It is there for the case that keeper and engine die together, so its failure
// is no reason to end anything.
func (p *proc) saveState() {
	if err := p.writeState(); err != nil {
		p.srv.log.Warn("a process would be lost if keeper and engine died together", "id", p.id, "error", err)
	}
}

func (p *proc) writeState() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.forgotten {
		return nil
	}
	st := saved{Boot: p.srv.boot, Process: wire.Process{
		ID: p.id, PID: p.pid, StartTime: p.start, StartedAt: p.startedAt, Exited: p.exited, Terminal: p.terminal, Log: p.logCfg,
		Slot: p.slot + 1, StdinClosed: p.stdin < 0,
	}}
	if p.exited == nil {
		st.Streams[0] = inode(p.stdin)
		for _, pu := range p.pumps {
			_ = pu.rc.Control(func(fd uintptr) { st.Streams[pu.stream] = inode(int(fd)) })
		}
	}
	b, err := json.Marshal(&st)
	if err != nil {
		return err
	}
	path := p.srv.statePath(p.id)
	temp := path + ".new" // one writer at a time: p.mu is held
	if err := os.WriteFile(temp, b, 0o600); err != nil {
		return fmt.Errorf("write state of process %s: %w", p.id, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write state of process %s: %w", p.id, err)
	}
	return nil
}

func (p *proc) removeState() { p.srv.removeState(p.id) }

func (s *Server) removeState(id string) {
	_ = os.Remove(s.statePath(id)) // it may never have been written
}

// readStates reads the state files of this boot, and removes all others.
func (s *Server) readStates() ([]saved, error) {
	list, err := filepath.Glob(filepath.Join(s.dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list state files: %w", err)
	}
	var out []saved
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read state file: %w", err)
		}
		var st saved
		if json.Unmarshal(b, &st) != nil || st.Boot != s.boot || st.ID == "" {
			_ = os.Remove(path)
			continue
		}
		out = append(out, st)
	}
	return out, nil
}

// reopenStreams opens the keeper's ends of pipes anew through the process's own ends; -1 where that can't be. A terminal is gone.
func reopenStreams(pid int, inodes [3]uint64) (fds [3]int) {
	fds = [3]int{-1, -1, -1}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		return fds
	}
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		link, err := os.Readlink(path)
		if err != nil {
			continue
		}
		for i, ino := range inodes {
			if ino == 0 || fds[i] >= 0 || link != fmt.Sprintf("pipe:[%d]", ino) {
				continue
			}
			mode := unix.O_RDONLY
			if i == 0 {
				mode = unix.O_WRONLY
			}
			if fd, err := unix.Open(path, mode|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
				fds[i] = fd
			}
		}
	}
	return fds
}

// inode gives the inode of a pipe, 0 for anything else.
func inode(fd int) uint64 {
	var st unix.Stat_t
	if fd < 0 || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return 0
	}
	return st.Ino
}

// bootID tells one boot of the machine from the next.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
