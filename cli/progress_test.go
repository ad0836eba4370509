package cli

import (
	"bytes"
	"io"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"skiff/client"
)

var agoPattern = regexp.MustCompile(`\b\d\d years ago`)

func goVersion() string { return runtime.Version() }

// render shows a stream on a display; step is the time between two messages.
func render(t *testing.T, stream string, width, height int, step time.Duration, tty bool) string {
	t.Helper()
	var out bytes.Buffer
	now := time.Unix(0, 0)
	d := &display{w: &out, tty: tty, size: func() (int, int) { return width, height }, now: func() time.Time { now = now.Add(step); return now }}
	if err := client.Decode(strings.NewReader(stream), func(m *client.Progress) error { d.show(m); return nil }); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	d.flush()
	return strings.ReplaceAll(strings.ReplaceAll(out.String(), "\x1b", "^"), "\r", "<")
}

func TestProgress(t *testing.T) {
	stream := strings.ReplaceAll(pullStream, "NAME", "nginx")
	golden(t, "progress/plain.txt", render(t, stream, 80, 24, time.Second, false))
	golden(t, "progress/wide.txt", render(t, stream, 120, 24, time.Second, true))
	golden(t, "progress/narrow.txt", render(t, stream, 40, 24, time.Second, true))
	golden(t, "progress/quick.txt", render(t, stream, 120, 24, time.Millisecond, true))
	golden(t, "progress/low.txt", render(t, stream, 120, 2, time.Second, true))
}
