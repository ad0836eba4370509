package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/term"

	"skiff/client"
)

// showProgress shows a stream of progress messages: on a terminal with a line for each id that changes in place, else with a
// line for every new state. aux gets the messages' further data. The stream's own error ends it.
func showProgress(w io.Writer, r io.Reader, aux func(json.RawMessage)) error {
	d := &display{w: w, now: time.Now}
	if fd, ok := terminal(w); ok && os.Getenv("TERM") != "dumb" {
		d.tty = true
		d.size = func() (int, int) {
			if cols, rows, err := term.GetSize(fd); err == nil && cols > 0 && rows > 0 {
				return cols, rows
			}
			return 80, 24
		}
	}
	err := client.Decode(r, func(m *client.Progress) error {
		if err := m.Err(); err != nil {
			return err
		}
		if len(m.Aux) > 0 && aux != nil {
			aux(m.Aux)
		}
		d.show(m)
		return nil
	})
	d.flush()
	if err != nil && errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the daemon's answer ended too early: %w", err)
	}
	return err
}

// display draws progress.
type display struct {
	w    io.Writer
	tty  bool
	size func() (cols, rows int) // of the terminal
	now  func() time.Time

	lines  []*line // on a terminal: the lines that belong to ids, top to bottom
	dirty  bool
	drawn  int       // lines on the screen
	at     time.Time // of the last drawing
	states map[string]string
}

type line struct {
	id, text string
}

const redrawEvery = 50 * time.Millisecond

// show takes a message in.
func (d *display) show(m *client.Progress) {
	switch {
	case m.Stream != "":
		d.flush()
		fmt.Fprint(d.w, m.Stream)
	case m.Status == "" && m.Detail == nil:
	case !d.tty:
		d.plain(m)
	case m.ID == "" || m.Detail == nil && !d.known(m.ID):
		// A line of its own, which never changes: "Digest: …", "latest: Pulling from …".
		d.flush()
		d.lines, d.drawn = nil, 0
		fmt.Fprintln(d.w, withID(m.ID, m.Status))
	default:
		d.update(m)
	}
}

// plain prints a line when an id's state changes, without the numbers.
func (d *display) plain(m *client.Progress) {
	if m.Detail != nil && (m.Detail.Current != 0 || m.Detail.Total != 0) {
		return
	}
	if d.states == nil {
		d.states = map[string]string{}
	}
	if m.ID != "" && d.states[m.ID] == m.Status {
		return
	}
	d.states[m.ID] = m.Status
	fmt.Fprintln(d.w, withID(m.ID, m.Status))
}

func withID(id, text string) string {
	if id == "" {
		return text
	}
	return id + ": " + text
}

func (d *display) known(id string) bool {
	for _, l := range d.lines {
		if l.id == id {
			return true
		}
	}
	return false
}

func (d *display) update(m *client.Progress) {
	var l *line
	for _, x := range d.lines {
		if x.id == m.ID {
			l = x
		}
	}
	if l == nil {
		l = &line{id: m.ID}
		d.lines = append(d.lines, l)
	}
	text := m.Status
	if bar := d.bar(m); bar != "" {
		text += " " + bar
	}
	if l.text == text {
		return
	}
	l.text, d.dirty = text, true
	if now := d.now(); now.Sub(d.at) >= redrawEvery {
		d.draw()
		d.at = now
	}
}

// bar draws "[====>   ]  3.4MB/12MB". The width left of the line decides whether there is a bar.
func (d *display) bar(m *client.Progress) string {
	p := m.Detail
	if p == nil || p.Current <= 0 && p.Total <= 0 {
		return ""
	}
	size := func(n int64) string { return units.HumanSize(float64(n)) }
	if p.Units != "" {
		unit := p.Units
		size = func(n int64) string { return strconv.FormatInt(n, 10) + " " + unit }
		if unit == "s" {
			return size(p.Current)
		}
	}
	current := size(p.Current)
	if p.Total <= 0 {
		return fmt.Sprintf("%8v", current)
	}
	percent := min(int(float64(p.Current)/float64(p.Total)*100)/2, 50)
	var bar string
	if cols, _ := d.size(); cols > 110 {
		head := ""
		if percent < 50 {
			head = ">"
		}
		bar = "[" + strings.Repeat("=", percent) + head + strings.Repeat(" ", max(0, 50-percent-len(head))) + "]  "
	}
	if p.HideCounts {
		return bar
	}
	numbers := fmt.Sprintf("%8v/%v", current, size(p.Total))
	if p.Current > p.Total {
		numbers = fmt.Sprintf("%8v", current)
	}
	return bar + numbers
}

// draw brings the screen up to date: it goes up to the first line and rewrites all. Of more lines than the screen has it shows
// the last ones; what has scrolled away can't be changed any more.
func (d *display) draw() {
	if !d.dirty {
		return
	}
	var b strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", d.drawn)
	}
	cols, rows := d.size()
	lines := d.lines[max(0, len(d.lines)-max(1, rows-1)):]
	for _, l := range lines {
		text := withID(l.id, l.text)
		if len(text) > cols-1 {
			text = text[:max(0, cols-1)] // a wrapped line would spoil the count of lines
		}
		b.WriteString("\r\x1b[2K" + text + "\n")
	}
	d.drawn, d.dirty = len(lines), false
	_, _ = io.WriteString(d.w, b.String())
}

func (d *display) flush() {
	if d.tty {
		d.draw()
	}
}
