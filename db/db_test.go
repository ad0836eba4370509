package db

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

type thing struct {
	N    int
	Name string `json:",omitempty"`
}

func mustOpen(t testing.TB, path string, opt Options) *DB {
	t.Helper()
	d, err := Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// crash forgets the process's side of a database without any of what Close does.
func crash(d *DB) {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.journal.close()
	d.bolt.Close()
}

func contents(t testing.TB, b Bucket[thing]) map[string]thing {
	t.Helper()
	m := map[string]thing{}
	if err := b.Each(func(k string, v thing) error { m[k] = v; return nil }); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestReopen(t *testing.T) {
	for _, how := range []string{"close", "crash"} {
		t.Run(how, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.db")
			d := mustOpen(t, path, Options{})
			b := In[thing](d, "things")
			for i, dur := range []Durability{Durable, Relaxed} {
				var c Batch
				b.Put(&c, fmt.Sprint("k", i), thing{N: i})
				b.Put(&c, "gone", thing{})
				b.Delete(&c, "gone")
				if err := d.Commit(&c, dur); err != nil {
					t.Fatal(err)
				}
			}
			if how == "crash" {
				crash(d)
			} else if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = mustOpen(t, path, Options{})
			defer d.Close()
			if got := contents(t, In[thing](d, "things")); len(got) != 2 || got["k1"].N != 1 {
				t.Errorf("after %s: %v", how, got)
			}
			if _, found, err := In[thing](d, "things").Get("gone"); found || err != nil {
				t.Errorf("deleted key: found %v, err %v", found, err)
			}
			if v, found, err := In[thing](d, "things").Get("k1"); !found || err != nil || v.N != 1 {
				t.Errorf("Get: %v %v %v", v, found, err)
			}
		})
	}
}

func TestEpoch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	for _, epoch := range []string{"one", "one", "two"} {
		d := mustOpen(t, path, Options{NoSync: true, Epoch: epoch})
		b := In[thing](d, "things")
		was := len(contents(t, b))
		var c Batch
		b.Put(&c, fmt.Sprint(was), thing{})
		if err := d.Commit(&c, Durable); err != nil {
			t.Fatal(err)
		}
		if epoch == "two" && was != 0 {
			t.Errorf("%d things of the first epoch were kept", was)
		}
		crash(d)
	}
	d := mustOpen(t, path, Options{NoSync: true, Epoch: "two"})
	defer d.Close()
	if n := len(contents(t, In[thing](d, "things"))); n != 1 {
		t.Errorf("%d things, want 1", n)
	}
}

func TestDamage(t *testing.T) {
	prepare := func(t *testing.T) string {
		path := filepath.Join(t.TempDir(), "x.db")
		d := mustOpen(t, path, Options{})
		for i := range 3 {
			var c Batch
			In[thing](d, "things").Put(&c, fmt.Sprint(i), thing{N: i, Name: strings.Repeat("x", 100)})
			if err := d.Commit(&c, Durable); err != nil {
				t.Fatal(err)
			}
		}
		crash(d)
		return path
	}
	overwrite := func(path string, at int64, data string) func(*testing.T) {
		return func(t *testing.T) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if at < 0 {
				fi, _ := f.Stat()
				at += fi.Size()
			}
			if _, err := f.WriteAt([]byte(data), at); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		harm func(path string) func(*testing.T)
		want string // "" : opens
		left int
	}{
		"torn last frame":    {func(p string) func(*testing.T) { return overwrite(p+"-journal", -3, "abc") }, "", 2},
		"first frame":        {func(p string) func(*testing.T) { return overwrite(p+"-journal", 30, "abc") }, "damaged at byte 8", 0},
		"journal's header":   {func(p string) func(*testing.T) { return overwrite(p+"-journal", 0, "abc") }, "no journal", 0},
		"both meta pages":    {func(p string) func(*testing.T) { return overwrite(p, 0, strings.Repeat("z", 8192)) }, "damaged", 0},
		"garbage at the end": {func(p string) func(*testing.T) { return overwrite(p+"-journal", 1<<16, "abc") }, "", 3},
	} {
		t.Run(name, func(t *testing.T) {
			path := prepare(t)
			tc.harm(path)(t)
			d, err := Open(path, Options{})
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
					t.Fatalf("error %v, want %q with the path", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if n := len(contents(t, In[thing](d, "things"))); n != tc.left {
				t.Errorf("%d things left, want %d", n, tc.left)
			}
		})
	}
}

func TestConcurrentCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	d := mustOpen(t, path, Options{})
	b := In[thing](d, "things")
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 50 {
				var c Batch
				b.Put(&c, fmt.Sprintf("%d-%d", w, i), thing{N: i, Name: strings.Repeat("y", 6000)})
				if err := d.Commit(&c, Durability(i%2 == 0)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(contents(t, b)); n != 800 {
		t.Errorf("%d things, want 800", n)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	var c Batch
	b.Put(&c, "late", thing{})
	if err := d.Commit(&c, Durable); !errors.Is(err, ErrClosed) {
		t.Errorf("commit after close: %v", err)
	}
	d = mustOpen(t, path, Options{})
	defer d.Close()
	if n := len(contents(t, In[thing](d, "things"))); n != 800 {
		t.Errorf("after reopening: %d things, want 800", n)
	}
}

func TestInUse(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the lock's timeout")
	}
	path := filepath.Join(t.TempDir(), "x.db")
	d := mustOpen(t, path, Options{})
	defer d.Close()
	if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second open: %v", err)
	}
}

// A database behaves as a map, however often it crashes or is closed.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(dir, fmt.Sprintf("%d.db", rapid.Uint64().Draw(rt, "file")))
		defer os.Remove(path)
		defer os.Remove(journalPath(path))
		d := mustOpen(t, path, Options{NoSync: true})
		defer func() { d.Close() }()
		model := map[string]thing{}
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) {
				var c Batch
				for range rapid.IntRange(1, 3).Draw(rt, "ops") {
					k := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "key")
					if rapid.Bool().Draw(rt, "put") {
						v := thing{N: rapid.Int().Draw(rt, "n")}
						In[thing](d, "t").Put(&c, k, v)
						model[k] = v
					} else {
						In[thing](d, "t").Delete(&c, k)
						delete(model, k)
					}
				}
				if err := d.Commit(&c, Relaxed); err != nil {
					rt.Fatal(err)
				}
			},
			"close": func(*rapid.T) { d.Close(); d = mustOpen(t, path, Options{NoSync: true}) },
			"crash": func(*rapid.T) { crash(d); d = mustOpen(t, path, Options{NoSync: true}) },
			"": func(rt *rapid.T) {
				got := contents(t, In[thing](d, "t"))
				if fmt.Sprint(got) != fmt.Sprint(model) {
					rt.Fatalf("got %v, want %v", got, model)
				}
			},
		})
	})
}

func FuzzParseFrames(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, 8, []op{{"b", "k", []byte("v")}}), 60, []op{{"b", "k", nil}}))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		frames, good, err := parseFrames(data)
		if err != nil {
			return
		}
		if good > len(data) {
			t.Fatalf("good part of %d bytes in %d", good, len(data))
		}
		var again []byte
		for _, ops := range frames {
			again = appendFrame(again, 0, ops)
		}
		back, n, err := parseFrames(again)
		if err != nil || n != len(again) || len(back) != len(frames) {
			t.Fatalf("frames don't survive: %d of %d, %v", len(back), len(frames), err)
		}
	})
}

func BenchmarkCommit(b *testing.B) {
	for name, tc := range map[string]struct {
		opt Options
		how Durability
	}{
		"durable": {Options{}, Durable}, "relaxed": {Options{}, Relaxed}, "nosync": {Options{NoSync: true}, Durable},
	} {
		b.Run(name, func(b *testing.B) {
			d := mustOpen(b, filepath.Join(b.TempDir(), "x.db"), tc.opt)
			defer d.Close()
			t := In[thing](d, "t")
			for i := 0; b.Loop(); i++ {
				var c Batch
				t.Put(&c, fmt.Sprint(i%200), thing{Name: strings.Repeat("x", 2500)})
				if err := d.Commit(&c, tc.how); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
