package server

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"skiff/keeper/logfile"
)

// The ledger is a file in exec-root that is mapped into memory: what a pump is about to do with a chunk is stored there
// before it does it. Stores survive a kill -9, whoever maps the file next reads them. It costs no system call.
//
// Layout: a page with the magic, then procSlots records of one process each, then subSlots records of one subscriber each.
// A process has a record for each stream, in two copies: the one that is not current is written, then the selector is
// switched, so that a record is never seen half-written.
const (
	ledgerMagic = "skiff keeper ledger 1\n"
	headerSize  = 4096
	procSlots   = 8192
	procSize    = 512
	streamSize  = 192
	copySize    = 64
	subSlots    = 8192
	subSize     = 32
	ledgerSize  = headerSize + procSlots*procSize + subSlots*subSize
)

type ledger struct {
	mem []byte
	f   *os.File

	mu       sync.Mutex
	procs    []bool
	subs     []bool
	nextProc int
	nextSub  int
}

// record is the state of one stream's pump.
type record struct {
	active bool   // a chunk is being handled
	moves  bool   // it was moved to the limbo before it was handled (terminals); else it is moved after that
	marked bool   // mark is set
	limbo  int    // number of the limbo pipe
	n      int    // bytes of the chunk, 0: not known yet
	crc    uint32 // of the chunk
	seq    uint64 // of the chunk; the last one's if not active
	mark   logfile.Mark
}

func openLedger(dir string) (*ledger, error) {
	path := filepath.Join(dir, "ledger")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the keeper's ledger: %w", err)
	}
	err = f.Truncate(ledgerSize)
	if err == nil {
		err = unix.Fallocate(int(f.Fd()), 0, 0, headerSize)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("size the keeper's ledger %s: %w", path, err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, ledgerSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("map the keeper's ledger %s: %w", path, err)
	}
	copy(mem, ledgerMagic)
	return &ledger{mem: mem, f: f, procs: make([]bool, procSlots), subs: make([]bool, subSlots)}, nil
}

// room makes sure that the file has blocks for a part of it: a store into a hole would end the keeper (SIGBUS) on a full disk.
func (l *ledger) room(at, n int) bool {
	return unix.Fallocate(int(l.f.Fd()), 0, int64(at), int64(n)) == nil
}

// allocProc finds a free place for a process; -1 if there is none (the process then has no net under it).
func (l *ledger) allocProc() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.procs {
		if n := (l.nextProc + i) % procSlots; !l.procs[n] {
			if !l.room(procAt(n), procSize) {
				return -1
			}
			l.procs[n] = true
			if i > 8 { // stay among few pages
				l.nextProc = n
			}
			clear(l.proc(n))
			return n
		}
	}
	return -1
}

func (l *ledger) freeProc(n int) {
	if n < 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.proc(n))
	l.procs[n] = false
	l.nextProc = min(l.nextProc, n)
}

// takeProc reserves the place that a process of a former keeper has. It is false if the place isn't that process's.
func (l *ledger) takeProc(n, pid int, start uint64) bool {
	if n < 0 || n >= procSlots {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.proc(n)
	if l.procs[n] || !l.room(procAt(n), procSize) || binary.LittleEndian.Uint32(b[procSize-16:]) != uint32(pid) || binary.LittleEndian.Uint64(b[procSize-8:]) != start {
		return false
	}
	l.procs[n] = true
	return true
}

// name says whose place n is.
func (l *ledger) name(n, pid int, start uint64) {
	if n < 0 {
		return
	}
	b := l.proc(n)
	binary.LittleEndian.PutUint32(b[procSize-16:], uint32(pid))
	binary.LittleEndian.PutUint64(b[procSize-8:], start)
}

func (l *ledger) proc(n int) []byte {
	return l.mem[procAt(n):][:procSize]
}

func procAt(n int) int { return headerSize + n*procSize }
func subAt(n int) int  { return headerSize + procSlots*procSize + n*subSize }

// set stores a stream's record.
func (l *ledger) set(slot int, s logfile.Stream, r *record) {
	if slot < 0 {
		return
	}
	b := l.proc(slot)[int(s-1)*streamSize:][:streamSize]
	sel := (*uint64)(unsafe.Pointer(&b[0])) // slots are aligned to 8 bytes
	next := 1 - atomic.LoadUint64(sel)&1
	c := b[8+next*copySize:][:copySize]
	flags := uint32(0)
	for i, f := range []bool{r.active, r.moves, r.marked} {
		if f {
			flags |= 1 << i
		}
	}
	binary.LittleEndian.PutUint32(c[0:], flags)
	binary.LittleEndian.PutUint32(c[4:], uint32(r.limbo))
	binary.LittleEndian.PutUint32(c[8:], uint32(r.n))
	binary.LittleEndian.PutUint32(c[12:], r.crc)
	binary.LittleEndian.PutUint64(c[16:], r.seq)
	binary.LittleEndian.PutUint64(c[24:], r.mark.Inode)
	binary.LittleEndian.PutUint64(c[32:], uint64(r.mark.Offset))
	binary.LittleEndian.PutUint32(c[40:], uint32(r.mark.Done))
	binary.LittleEndian.PutUint32(c[44:], uint32(r.mark.Len))
	atomic.StoreUint64(sel, next)
}

// get reads a stream's record.
func (l *ledger) get(slot int, s logfile.Stream) record {
	if slot < 0 {
		return record{}
	}
	b := l.proc(slot)[int(s-1)*streamSize:][:streamSize]
	sel := atomic.LoadUint64((*uint64)(unsafe.Pointer(&b[0]))) & 1
	c := b[8+sel*copySize:][:copySize]
	flags := binary.LittleEndian.Uint32(c)
	return record{
		active: flags&1 != 0, moves: flags&2 != 0, marked: flags&4 != 0,
		limbo: int(binary.LittleEndian.Uint32(c[4:])),
		n:     int(binary.LittleEndian.Uint32(c[8:])),
		crc:   binary.LittleEndian.Uint32(c[12:]),
		seq:   binary.LittleEndian.Uint64(c[16:]),
		mark: logfile.Mark{
			Inode:  binary.LittleEndian.Uint64(c[24:]),
			Offset: int64(binary.LittleEndian.Uint64(c[32:])),
			Done:   int(binary.LittleEndian.Uint32(c[40:])),
			Len:    int(binary.LittleEndian.Uint32(c[44:])),
		},
	}
}

// allocSub finds a place for a subscriber; -1 if there is none.
func (l *ledger) allocSub(number uint64) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.subs {
		if n := (l.nextSub + i) % subSlots; !l.subs[n] {
			if !l.room(subAt(n), subSize) {
				return -1
			}
			l.subs[n] = true
			if i > 8 {
				l.nextSub = n
			}
			b := l.sub(n)
			clear(b)
			binary.LittleEndian.PutUint64(b[24:], number)
			return n
		}
	}
	return -1
}

// takeSub reserves a subscriber's place; false if it isn't his.
func (l *ledger) takeSub(n int, number uint64) bool {
	if n < 0 || n >= subSlots {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.subs[n] || !l.room(subAt(n), subSize) || binary.LittleEndian.Uint64(l.sub(n)[24:]) != number {
		return false
	}
	l.subs[n] = true
	return true
}

func (l *ledger) freeSub(n int) {
	if n < 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.sub(n))
	l.subs[n] = false
	l.nextSub = min(l.nextSub, n)
}

func (l *ledger) sub(n int) []byte {
	return l.mem[subAt(n):][:subSize]
}

func (l *ledger) subWord(n, word int) *uint64 {
	return (*uint64)(unsafe.Pointer(&l.sub(n)[word*8]))
}

// setDelivered stores that a subscriber was given chunk seq of stream s.
func (l *ledger) setDelivered(n int, s logfile.Stream, seq uint64) {
	if n >= 0 {
		atomic.StoreUint64(l.subWord(n, int(s-1)), seq)
	}
}

func (l *ledger) delivered(n int, s logfile.Stream) uint64 {
	if n < 0 {
		return 0
	}
	return atomic.LoadUint64(l.subWord(n, int(s-1)))
}

// waiting is what waits for a subscriber, as the ledger has it.
type waiting struct {
	behind bool // bytes wait in the keeper's memory: they die with it
	// fill is how many bytes were in the subscriber's pipe just before chunk seq of the stream was written to it.
	fill   int
	stream logfile.Stream
	seq    uint64 // the low 40 bits
}

const lowSeq = 1<<40 - 1

func (l *ledger) setWaiting(n int, w waiting) {
	if n < 0 {
		return
	}
	v := uint64(w.fill)<<1 | uint64(w.stream)<<21 | (w.seq&lowSeq)<<24
	if w.behind {
		v |= 1
	}
	atomic.StoreUint64(l.subWord(n, 2), v)
}

func (l *ledger) waiting(n int) waiting {
	if n < 0 {
		return waiting{}
	}
	v := atomic.LoadUint64(l.subWord(n, 2))
	return waiting{behind: v&1 != 0, fill: int(v >> 1 & (1<<20 - 1)), stream: logfile.Stream(v >> 21 & 7), seq: v >> 24}
}
