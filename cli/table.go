package cli

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// table prints rows in columns, as docker does: at least minWidth characters a column, three spaces between, nothing after the
// last.
type table struct {
	w        io.Writer
	minWidth int
	rows     [][]string
}

func newTable(w io.Writer, minWidth int) *table { return &table{w: w, minWidth: minWidth} }

const columnGap = 3

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// text adds rows of cells that are separated by tabs.
func (t *table) text(s string) {
	for l := range strings.SplitSeq(strings.TrimSuffix(s, "\n"), "\n") {
		t.row(strings.Split(l, "\t")...)
	}
}

func (t *table) flush() error {
	var widths []int
	for _, r := range t.rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, t.minWidth)
			}
			if i < len(r)-1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell)+columnGap)
			}
		}
	}
	w := bufio.NewWriterSize(t.w, 32<<10)
	for _, r := range t.rows {
		for i, cell := range r {
			_, _ = w.WriteString(cell)
			if i < len(r)-1 {
				for n := utf8.RuneCountInString(cell); n < widths[i]; n++ {
					_ = w.WriteByte(' ')
				}
			}
		}
		_ = w.WriteByte('\n')
	}
	return w.Flush()
}
