package db

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk: when the disk is full, something new is refused, what was there can be changed and removed, and the database can be
// closed, and opened again, without losing any of that.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skip("a file system of its own needs root: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "x.db")
	d := mustOpen(t, path, Options{})
	things := In[thing](d, "things")
	put := func(key string, needsRoom bool, how Durability) error {
		c := Batch{NeedsRoom: needsRoom}
		things.Put(&c, key, thing{Name: strings.Repeat(key, 50)})
		return d.Commit(&c, how)
	}
	n := 0
	var err error
	for ; n < 10000 && err == nil; n++ {
		err = put(strconv.Itoa(n), true, Relaxed)
		if n == 100 {
			if ferr := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 2<<20), 0o600); !errors.Is(ferr, unix.ENOSPC) {
				t.Fatal(ferr)
			}
		}
	}
	if !errors.Is(err, unix.ENOSPC) || n < 100 {
		t.Fatalf("after %d things: %v", n, err)
	}
	last := strconv.Itoa(n - 1)
	if _, found, _ := things.Get(last); found {
		t.Error("what was refused is there")
	}
	check := func(when string) {
		t.Helper()
		if v, found, err := things.Get("1"); !found || err != nil || !strings.HasPrefix(v.Name, "changed") {
			t.Errorf("%s: what was changed is %v %v %v", when, v, found, err)
		}
		if _, found, err := things.Get("2"); found || err != nil {
			t.Errorf("%s: what was removed is there (%v)", when, err)
		}
		if _, found, err := things.Get("3"); !found || err != nil {
			t.Errorf("%s: something else is gone (%v)", when, err)
		}
	}
	var c Batch
	things.Put(&c, "1", thing{Name: "changed"})
	things.Delete(&c, "2")
	if err := d.Commit(&c, Durable); err != nil {
		t.Fatalf("change and remove on a full disk: %v", err)
	}
	check("at once")
	if err := d.Close(); err != nil {
		t.Fatalf("close on a full disk: %v", err)
	}
	d = mustOpen(t, path, Options{})
	things = In[thing](d, "things")
	check("opened again")
	if err := put("new", true, Durable); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("something new after that: %v", err)
	}
	crash(d)
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, path, Options{})
	things = In[thing](d, "things")
	check("with room again")
	if err := put("new", true, Durable); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestPostponedCheckpoint: a journal that bbolt has no room to take over grows on, and is emptied when there is.
func TestPostponedCheckpoint(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=30m"); err != nil {
		t.Skip("a file system of its own needs root: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	d := mustOpen(t, filepath.Join(dir, "x.db"), Options{})
	things := In[thing](d, "things")
	write := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			var c Batch
			things.Put(&c, strconv.Itoa(i), thing{N: i, Name: strings.Repeat("x", 64<<10)})
			if err := d.Commit(&c, Relaxed); err != nil {
				t.Fatalf("thing %d: %v", i, err)
			}
		}
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 22<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	write(0, 75) // 4.8 MB: a checkpoint would need as much again
	if d.postponed == 0 || d.journal.size <= checkpointSize {
		t.Fatalf("journal of %d bytes, checkpoint postponed by %d", d.journal.size, d.postponed)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	write(75, 110)
	if err := d.Sync(); err != nil { // after the round that wrote the last thing
		t.Fatal(err)
	}
	if d.postponed != 0 || d.journal.size > checkpointSize {
		t.Errorf("journal of %d bytes, checkpoint postponed by %d", d.journal.size, d.postponed)
	}
	for i := range 110 {
		if v, found, err := things.Get(strconv.Itoa(i)); !found || err != nil || v.N != i {
			t.Errorf("thing %d: %v %v %v", i, v.N, found, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
