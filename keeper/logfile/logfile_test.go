package logfile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func drivers(t *testing.T, f func(t *testing.T, driver string)) {
	for _, d := range []string{DriverJSON, DriverLocal} {
		t.Run(d, func(t *testing.T) { f(t, d) })
	}
}

func all(t *testing.T, cfg Config, o Options) []Entry {
	t.Helper()
	r, err := NewReader(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out []Entry
	for {
		e, err := r.Next(context.Background())
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		c := *e
		c.Line = bytes.Clone(e.Line)
		out = append(out, c)
	}
}

func text(es []Entry, s Stream) string {
	var b strings.Builder
	for _, e := range es {
		if s == 0 || e.Stream == s {
			b.Write(e.Line)
		}
	}
	return b.String()
}

var both = Options{Stdout: true, Stderr: true, Tail: -1}

func TestBytesSurvive(t *testing.T) {
	drivers(t, func(t *testing.T, driver string) {
		cfg := Config{Driver: driver, Path: filepath.Join(t.TempDir(), "log"), Attrs: map[string]string{"a": `b"c`}}
		w, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var all256 []byte
		for i := range 256 {
			all256 = append(all256, byte(i))
		}
		want := string(all256) + "plain\n\n\r\nä\u2028\ufffd\xc3\n" + strings.Repeat("x", 300000) + "no end"
		now := time.Unix(1700000000, 12345)
		if err := w.Append(now, Stdout, []byte(want), nil); err != nil {
			t.Fatal(err)
		}
		if err := w.Append(now, Stderr, []byte("err\n"), nil); err != nil {
			t.Fatal(err)
		}
		if err := w.Append(now, Stdout, []byte(" here\n"), nil); err != nil {
			t.Fatal(err)
		}
		w.Close()
		es := all(t, cfg, both)
		if got := text(es, Stdout); got != want+" here\n" {
			t.Errorf("stdout differs: %d bytes, want %d", len(got), len(want)+6)
		}
		if got := text(es, Stderr); got != "err\n" {
			t.Errorf("stderr %q", got)
		}
		last := es[len(es)-1]
		if last.Start || last.Partial || string(last.Line) != " here\n" {
			t.Errorf("last %+v", last)
		}
		if !last.Time.Equal(now) || last.Attrs["a"] != `b"c` {
			t.Errorf("time %v attrs %v", last.Time, last.Attrs)
		}
	})
}

func TestRotationTailSince(t *testing.T) {
	drivers(t, func(t *testing.T, driver string) {
		for _, gz := range []bool{false, true} {
			cfg := Config{Driver: driver, Path: filepath.Join(t.TempDir(), "log"), MaxSize: 2000, MaxFiles: 5, Compress: gz}
			w, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			base := time.Unix(1700000000, 0)
			const n = 400
			for i := range n {
				if i%97 == 0 { // as after a restart of the keeper
					w.Close()
					if w, err = Open(cfg); err != nil {
						t.Fatal(err)
					}
				}
				s := Stdout
				if i%3 == 0 {
					s = Stderr
				}
				if err := w.Append(base.Add(time.Duration(i)*time.Second), s, fmt.Appendf(nil, "line %d\n", i), nil); err != nil {
					t.Fatal(err)
				}
			}
			es := all(t, cfg, both)
			checkRun(t, es, n)
			for _, tail := range []int{0, 1, 2, 7, 30, len(es), len(es) + 5} {
				o := both
				o.Tail = tail
				got := all(t, cfg, o)
				if len(got) != min(tail, len(es)) {
					t.Errorf("tail %d gave %d", tail, len(got))
				}
				checkRun(t, got, n)
			}
			o := both
			o.Since, o.Until = base.Add((n-10)*time.Second), base.Add((n-5)*time.Second)
			if got := text(all(t, cfg, o), 0); got != "line 390\nline 391\nline 392\nline 393\nline 394\nline 395\n" {
				t.Errorf("since, until: %q", got)
			}
			o.Tail = 2
			if got := text(all(t, cfg, o), 0); got != "line 394\nline 395\n" {
				t.Errorf("tail of since, until: %q", got)
			}
			w.Close()
			files, _ := filepath.Glob(cfg.Path + "*")
			if len(files) > 5 {
				t.Errorf("files %q", files)
			}
			for _, f := range files {
				if st, _ := os.Stat(f); st.Size() > 2000 {
					t.Errorf("%s has %d bytes", f, st.Size())
				}
			}
		}
	})
}

// checkRun says whether the entries are the last lines of 0..n-1, each once.
func checkRun(t *testing.T, es []Entry, n int) {
	t.Helper()
	for i, e := range es {
		if want := fmt.Sprintf("line %d\n", n-len(es)+i); string(e.Line) != want {
			t.Fatalf("entry %d of %d is %q, want %q", i, len(es), e.Line, want)
		}
	}
}

func TestTailCountsLinesNotEntries(t *testing.T) {
	drivers(t, func(t *testing.T, driver string) {
		cfg := Config{Driver: driver, Path: filepath.Join(t.TempDir(), "log")}
		w, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		put := func(s Stream, text string) {
			if err := w.Append(time.Now(), s, []byte(text), nil); err != nil {
				t.Fatal(err)
			}
		}
		put(Stdout, "one\n")
		put(Stdout, "tw")
		put(Stderr, "e1\n")
		put(Stdout, "o")
		put(Stdout, "\n")
		put(Stderr, "e2 ")
		put(Stdout, "thr")
		for tail, want := range map[int]string{
			0: "", 1: "thr", 2: "e2 thr", 3: "two\ne2 thr", 4: "twe1\no\ne2 thr", 5: "one\ntwe1\no\ne2 thr", 9: "one\ntwe1\no\ne2 thr",
		} {
			o := both
			o.Tail = tail
			if got := text(all(t, cfg, o), 0); got != want {
				t.Errorf("tail %d: %q, want %q", tail, got, want)
			}
		}
		o := Options{Stderr: true, Tail: 1}
		if got := text(all(t, cfg, o), 0); got != "e2 " {
			t.Errorf("tail 1 of stderr: %q", got)
		}
	})
}

func TestTornEndIsRepaired(t *testing.T) {
	drivers(t, func(t *testing.T, driver string) {
		path := filepath.Join(t.TempDir(), "log")
		cfg := Config{Driver: driver, Path: path, Attrs: map[string]string{"k": "v"}}
		w, _ := Open(cfg)
		for i := range 3 {
			if err := w.Append(time.Now(), Stdout, fmt.Appendf(nil, "line %d\n", i), nil); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		whole, _ := os.ReadFile(path)
		for cut := range len(whole) {
			if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
				t.Fatal(err)
			}
			before := all(t, cfg, both)
			w, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Append(time.Now(), Stdout, []byte("new\n"), nil); err != nil {
				t.Fatal(err)
			}
			w.Close()
			after := all(t, cfg, both)
			if len(after) != len(before)+1 || text(after[len(before):], 0) != "new\n" {
				t.Fatalf("cut at %d: %d entries before, after: %q", cut, len(before), text(after, 0))
			}
		}
	})
}

func TestFollow(t *testing.T) {
	drivers(t, func(t *testing.T, driver string) {
		for _, cfg := range []Config{
			{Driver: driver, MaxSize: 3000, MaxFiles: 50, Compress: true},
			{Driver: driver, MaxSize: 100000, MaxFiles: 2},
			{Driver: driver},
		} {
			cfg.Path = filepath.Join(t.TempDir(), "log")
			w, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			o := both
			o.Follow, o.Ended = true, ended
			r, err := NewReader(cfg, o)
			if err != nil {
				t.Fatal(err)
			}
			const n = 1000
			go func() {
				defer close(ended)
				for i := range n {
					if err := w.Append(time.Now(), Stdout, fmt.Appendf(nil, "line %d\n", i), nil); err != nil {
						t.Error(err)
					}
					if rand.IntN(20) == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			}()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			for i := 0; ; i++ {
				e, err := r.Next(ctx)
				if err == io.EOF {
					if i != n {
						t.Errorf("%d lines followed, want %d", i, n)
					}
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if want := fmt.Sprintf("line %d\n", i); string(e.Line) != want {
					t.Fatalf("got %q, want %q", e.Line, want)
				}
			}
			cancel()
			r.Close()
			w.Close()
		}
	})
}

func TestLogged(t *testing.T) {
	drivers(t, func(t *testing.T, driver string) {
		for _, max := range []int64{0, 300} {
			cfg := Config{Driver: driver, Path: filepath.Join(t.TempDir(), "log"), MaxSize: max, MaxFiles: 3}
			w, _ := Open(cfg)
			chunk := []byte("aaa\nbbb\nccc\nddd\n" + strings.Repeat("long line\n", 30))
			var marks []Mark
			note := func(m Mark) {
				k, err := w.logged(m, Stdout)
				if err != nil || k != m.Done {
					t.Errorf("before a write of %+v: %d %v", m, k, err)
				}
				marks = append(marks, m)
			}
			if err := w.Append(time.Now(), Stdout, chunk, note); err != nil {
				t.Fatal(err)
			}
			if err := w.Append(time.Now(), Stderr, []byte("other\n"), nil); err != nil {
				t.Fatal(err)
			}
			last := marks[len(marks)-1]
			if k, err := w.Logged(last, Stdout); k != len(chunk) || err != nil {
				t.Errorf("logged %d of %d, %v", k, len(chunk), err)
			}
			if max > 0 && len(marks) < 2 {
				t.Errorf("one batch: %+v", marks)
			}
			w.Close()
		}
	})
}

func TestTruncatedByOthers(t *testing.T) {
	cfg := Config{Driver: DriverJSON, Path: filepath.Join(t.TempDir(), "log")}
	w, _ := Open(cfg)
	defer w.Close()
	o := both
	o.Follow = true
	r, err := NewReader(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for i := range 5 {
		// Each is shorter than the one before: a cut file of the same length as before looks like nothing happened.
		want := strings.Repeat("x", 50-10*i) + "\n"
		if err := w.Append(time.Now(), Stdout, []byte(want), nil); err != nil {
			t.Fatal(err)
		}
		e, err := r.Next(ctx)
		if err != nil || string(e.Line) != want {
			t.Fatalf("%v %v, want %q", e, err, want)
		}
		if i%2 == 0 {
			if err := os.Truncate(cfg.Path, 0); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Remove(cfg.Path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond)
	}
}

func FuzzReaders(f *testing.F) {
	j, l := newJSONCodec(map[string]string{"a": "b"}), new(localCodec)
	now := time.Unix(1, 2)
	f.Add(j.add(j.add(nil, now, Stdout, []byte("x\n")), now, Stderr, []byte("\xff")))
	f.Add(l.add(append(l.header(map[string]string{"a": "b"}), 1, 2), now, Stderr, []byte("\xff")))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, d := range []string{DriverJSON, DriverLocal} {
			cfg := Config{Driver: d, Path: filepath.Join(t.TempDir(), "log")}
			if err := os.WriteFile(cfg.Path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			all(t, cfg, both)
			o := both
			o.Tail = 2
			all(t, cfg, o)
			w, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			before := text(all(t, cfg, both), 0)
			if err := w.Append(time.Now(), Stdout, b, nil); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if got := text(all(t, cfg, both), 0); got != before+string(b) {
				t.Errorf("%s: %q after %q", d, got, before)
			}
		}
	})
}
