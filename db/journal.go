package db

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The journal is a header and frames. A frame is the length of its body, the CRC-32C of what follows (both 32 bits), the
// offset up to which the file was synced when the frame was made (64 bits, all little endian), and the body: operations,
// each a kind byte and then bucket, key and (for a put) value, with uvarint lengths.

const (
	journalMagic  = "skiffdb\x01"
	journalHeader = int64(len(journalMagic))
	frameHeader   = 16
	maxFrame      = 64 << 20
	opPut         = 1
	opDelete      = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type op struct {
	bucket, key string
	value       []byte // nil: delete
}

type journal struct {
	f      *os.File
	size   int64 // where the next frame goes
	synced int64 // up to here the file survives the machine, as far as we know
	// room is up to where the file has blocks, so that there is a spare for changes that must go on on a full disk; -1 if the file
	// system can't promise that.
	room int64
}

const (
	spareRoom = 256 << 10 // bytes kept for changes that don't need room (Batch.NeedsRoom)
	roomStep  = 512 << 10 // what is asked for at a time
)

func journalPath(path string) string { return path + "-journal" }

// openJournal opens or creates a journal and reads its frames. Incomplete frames at the end are what a crash leaves of
// commits that were not acknowledged; they are cut off. A bad frame that was synced before a good one is damage.
func openJournal(path string) (*journal, [][]op, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	fail := func(err error) (*journal, [][]op, error) {
		f.Close()
		return nil, nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return fail(err)
	}
	if int64(len(data)) < journalHeader {
		if !bytes.HasPrefix([]byte(journalMagic), data) {
			return fail(errors.New("the file is damaged or no journal"))
		}
		if _, err := f.WriteAt([]byte(journalMagic), 0); err != nil {
			return fail(err)
		}
		j := &journal{f: f, size: journalHeader, synced: journalHeader}
		_ = j.makeRoom(0)
		return j, nil, nil
	}
	if string(data[:journalHeader]) != journalMagic {
		return fail(errors.New("the file is damaged or no journal"))
	}
	frames, good, err := parseFrames(data[journalHeader:])
	if err != nil {
		return fail(err)
	}
	j := &journal{f: f, size: journalHeader + int64(good), synced: journalHeader}
	if good < len(data)-int(journalHeader) {
		if err := f.Truncate(j.size); err != nil {
			return fail(err)
		}
	}
	_ = j.makeRoom(0) // without, a full disk is met later
	return j, frames, nil
}

// parseFrames returns the frames and the length of the part that holds them.
func parseFrames(data []byte) (frames [][]op, good int, err error) {
	for good < len(data) {
		fr := parseFrame(data[good:])
		if !fr.ok {
			if damaged(data[good:], journalHeader+int64(good)) {
				return nil, good, fmt.Errorf("the file is damaged at byte %d", journalHeader+int64(good))
			}
			return frames, good, nil
		}
		frames = append(frames, fr.ops)
		good += fr.size
	}
	return frames, good, nil
}

// damaged tells whether a frame after the bad one that data begins with (at offset at of the file) was written when the
// bad one was safe already. The kernel may write the pages of frames that were not synced in any order.
func damaged(data []byte, at int64) bool {
	for n := parseFrame(data).size; n > 0 && n < len(data); {
		fr := parseFrame(data[n:])
		if fr.ok && fr.synced > at {
			return true
		}
		if fr.size == 0 {
			return false
		}
		n += fr.size
	}
	return false
}

type frame struct {
	ops    []op
	synced int64
	size   int // also of one that is complete but damaged; 0 if it is not complete
	ok     bool
}

func parseFrame(data []byte) (fr frame) {
	if len(data) < frameHeader {
		return fr
	}
	size := binary.LittleEndian.Uint32(data)
	if size == 0 || size > maxFrame || int(size) > len(data)-frameHeader {
		return fr
	}
	fr.size = frameHeader + int(size)
	if crc32.Checksum(data[8:fr.size], castagnoli) != binary.LittleEndian.Uint32(data[4:]) {
		return fr
	}
	fr.synced = int64(binary.LittleEndian.Uint64(data[8:]))
	fr.ops, fr.ok = parseOps(data[frameHeader:fr.size])
	return fr
}

func parseOps(body []byte) (ops []op, ok bool) {
	for len(body) > 0 {
		o := op{}
		kind := body[0]
		body = body[1:]
		var bucket, key, value []byte
		if bucket, body, ok = cutBytes(body); !ok {
			return nil, false
		}
		if key, body, ok = cutBytes(body); !ok {
			return nil, false
		}
		o.bucket, o.key = string(bucket), string(key)
		switch kind {
		case opPut:
			if value, body, ok = cutBytes(body); !ok {
				return nil, false
			}
			o.value = append([]byte{}, value...)
		case opDelete:
		default:
			return nil, false
		}
		ops = append(ops, o)
	}
	return ops, true
}

func cutBytes(b []byte) (field, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	return b[w : w+int(n)], b[w+int(n):], true
}

// appendFrame adds a frame with the operations to buf.
func appendFrame(buf []byte, synced int64, ops []op) []byte {
	start := len(buf)
	buf = append(buf, make([]byte, frameHeader)...)
	for _, o := range ops {
		kind := byte(opPut)
		if o.value == nil {
			kind = opDelete
		}
		buf = append(buf, kind)
		buf = append(binary.AppendUvarint(buf, uint64(len(o.bucket))), o.bucket...)
		buf = append(binary.AppendUvarint(buf, uint64(len(o.key))), o.key...)
		if o.value != nil {
			buf = append(binary.AppendUvarint(buf, uint64(len(o.value))), o.value...)
		}
	}
	binary.LittleEndian.PutUint32(buf[start:], uint32(len(buf)-start-frameHeader))
	binary.LittleEndian.PutUint64(buf[start+8:], uint64(synced))
	binary.LittleEndian.PutUint32(buf[start+4:], crc32.Checksum(buf[start+8:], castagnoli))
	return buf
}

// makeRoom sees to it that n bytes can be written and the spare is there after them. An error says that only the spare is left.
func (j *journal) makeRoom(n int) error {
	want := j.size + int64(n) + spareRoom
	if j.room < 0 || j.room >= want {
		return nil
	}
	var err error
	for _, end := range []int64{want + roomStep, want} {
		for {
			err = unix.Fallocate(int(j.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, end)
			if err != unix.EINTR {
				break
			}
		}
		if err == nil {
			j.room = end
			return nil
		}
	}
	if !outOfSpace(err) {
		j.room = -1
		return nil
	}
	return fmt.Errorf("make room in journal %s: %w", j.f.Name(), err)
}

func outOfSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// cut ends the file at j.size. That gives its spare blocks back, so they are asked for again.
func (j *journal) cut() error {
	if err := j.f.Truncate(j.size); err != nil {
		return err
	}
	j.room = min(j.room, 0)
	_ = j.makeRoom(0)
	return nil
}

// write appends whole frames. What is left of a failed write is cut off again; if that fails too, broken is true.
func (j *journal) write(frames []byte) (broken bool, err error) {
	if _, err := j.f.WriteAt(frames, j.size); err != nil {
		err = fmt.Errorf("write journal %s: %w", j.f.Name(), err)
		if terr := j.cut(); terr != nil {
			return true, errors.Join(err, terr)
		}
		return false, err
	}
	j.size += int64(len(frames))
	return false, nil
}

func (j *journal) sync() error {
	for {
		err := unix.Fdatasync(int(j.f.Fd()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("fdatasync journal %s: %w", j.f.Name(), err)
		}
		j.synced = j.size
		return nil
	}
}

func (j *journal) reset() error {
	j.size, j.synced = journalHeader, journalHeader
	if err := j.cut(); err != nil {
		return fmt.Errorf("empty journal %s: %w", j.f.Name(), err)
	}
	return nil
}

func (j *journal) close() error { return j.f.Close() }
