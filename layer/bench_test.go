package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// benchTar is a layer like a distribution's: many small files of text, some large ones.
func benchTar(b *testing.B, files int) ([]byte, int64) {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	words := make([]byte, 1<<20)
	for i := range words {
		words[i] = "etaoin shrdlu\n"[r.IntN(14)]
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	var sum int64
	for i := range files {
		if i%20 == 0 {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("usr/d%d/", i/20), Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				b.Fatal(err)
			}
		}
		n := r.IntN(12 << 10)
		if i%100 == 0 {
			n = r.IntN(len(words))
		}
		off := r.IntN(len(words) - n + 1)
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("usr/d%d/f%d", i/20, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(n)}); err != nil {
			b.Fatal(err)
		}
		w.Write(words[off : off+n])
		sum += int64(n)
	}
	w.Close()
	return buf.Bytes(), sum
}

// BenchmarkUnpack compares a layer's whole way into the store (transfer from memory, two hashes, inflating, unpacking,
// keeping the blob, syncing) with what tar does with the same bytes, followed by a sync.
func BenchmarkUnpack(b *testing.B) {
	const files = 5000
	plain, sum := benchTar(b, files)
	blob := gz(b, plain)
	report := func(b *testing.B) {
		b.SetBytes(sum)
		b.ReportMetric(float64(files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
	}
	b.Run("skiff-gzip", func(b *testing.B) {
		s := newStore(b)
		for b.Loop() {
			apply(b, s, source(plain, blob, nil))
			b.StopTimer()
			if _, err := s.Collect(b.Context(), Live{}); err != nil {
				b.Fatal(err)
			}
			s.trash.empty()
			b.StartTimer()
		}
		report(b)
	})
	dir := b.TempDir()
	archive := filepath.Join(dir, "a.tar.gz")
	if err := os.WriteFile(archive, blob, 0o644); err != nil {
		b.Fatal(err)
	}
	b.Run("tar-xz", func(b *testing.B) {
		for b.Loop() {
			out := filepath.Join(dir, "out")
			os.Mkdir(out, 0o755)
			if o, err := exec.Command("tar", "-xzf", archive, "-C", out).CombinedOutput(); err != nil {
				b.Fatal(err, string(o))
			}
			f, _ := os.Open(out)
			unix.Syncfs(int(f.Fd()))
			f.Close()
			b.StopTimer()
			os.RemoveAll(out)
			b.StartTimer()
		}
		report(b)
	})
}
