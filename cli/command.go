package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// spec is an entry of the table of commands.
type spec struct {
	parent  string // "container", "image", "system" or "" for commands that stand only at the top
	name    string // name below the parent
	top     string // name at the top, "" : none
	aliases string // further names below the parent, separated by spaces
	args    string // what follows the name in the usage line
	short   string // one line of help
	common  bool   // listed under Common Commands
	min     int    // fewest arguments
	max     int    // most arguments; -1: any number
	setup   func(c *command)
}

// group is a management command.
type group struct {
	name, short string
}

// command is a command that has been called.
type command struct {
	*App
	spec  *spec
	path  string // as called, without "skiff"
	flags *pflag.FlagSet
	run   func(ctx context.Context, args []string) error
	// words completes an argument; values completes the value of a flag.
	words  func(ctx context.Context, args []string) []string
	values map[string]func(ctx context.Context) []string
	// deprecated maps a flag to what its help says; it is hidden.
}

// command builds a command: its flags exist only now.
func (a *App) command(s *spec, path string) *command {
	c := &command{App: a, spec: s, path: path, flags: pflag.NewFlagSet(s.name, pflag.ContinueOnError)}
	c.flags.SetOutput(io.Discard)
	c.flags.SortFlags = true
	s.setup(c)
	return c
}

// execute parses the arguments and runs the command.
func (c *command) execute(ctx context.Context, args []string) error {
	if err := c.flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			c.help(c.Out)
			return nil
		}
		return flagError(err, "skiff "+c.path, c.spec.args)
	}
	args = c.flags.Args()
	if err := c.checkArgs(len(args)); err != nil {
		return err
	}
	return c.run(ctx, args)
}

func (c *command) checkArgs(n int) error {
	s := c.spec
	var what string
	switch {
	case n >= s.min && (n <= s.max || s.max < 0):
		return nil
	case s.max == 0:
		what = "accepts no arguments"
	case s.min == s.max:
		what = fmt.Sprintf("requires %d %s", s.min, plural("argument", s.min))
	case n < s.min:
		what = fmt.Sprintf("requires at least %d %s", s.min, plural("argument", s.min))
	default:
		what = fmt.Sprintf("requires at most %d %s", s.max, plural("argument", s.max))
	}
	see := "See"
	if s.max == 0 || n > s.min {
		see = "Run"
	}
	return fmt.Errorf("skiff: 'skiff %s' %s\n\nUsage:  skiff %s %s\n\n%s 'skiff %s --help' for more information",
		c.path, what, c.path, s.args, see, c.path)
}

func plural(word string, n int) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// changed reports whether a flag was given.
func (c *command) changed(name string) bool { return c.flags.Changed(name) }

// value registers the completion of a flag's value.
func (c *command) value(flag string, f func(ctx context.Context) []string) {
	if c.values == nil {
		c.values = map[string]func(context.Context) []string{}
	}
	c.values[flag] = f
}

// choices registers the completion of a flag that has few values.
func (c *command) choices(flag string, words ...string) {
	c.value(flag, func(context.Context) []string { return words })
}

// lookup finds a command below a parent, or at the top.
func lookup(parent, name string) *spec {
	all := specs()
	for i := range all {
		s := &all[i]
		if parent == "" {
			if s.top == name || s.parent == "" && s.name == name {
				return s
			}
			continue
		}
		if s.parent == parent && (s.name == name || hasWord(s.aliases, name)) {
			return s
		}
	}
	return nil
}

func groupOf(name string) *group {
	for _, g := range groups() {
		if g.name == name {
			return &g
		}
	}
	return nil
}

// namesIn lists the commands below a parent, or all at the top.
func namesIn(parent string) []string {
	var names []string
	for _, s := range specs() {
		switch {
		case parent != "" && s.parent == parent:
			names = append(names, s.name)
		case parent == "" && s.top != "":
			names = append(names, s.top)
		case parent == "" && s.parent == "":
			names = append(names, s.name)
		}
	}
	if parent == "" {
		for _, g := range groups() {
			names = append(names, g.name)
		}
	}
	return names
}

func hasWord(words, w string) bool {
	for x := range strings.FieldsSeq(words) {
		if x == w {
			return true
		}
	}
	return false
}

// didYouMean proposes the nearest name, if there is one that is near.
func didYouMean(word string, names []string) string {
	best, distance := "", min(3, (len(word)+2)/2)
	for _, n := range names {
		d := editDistance(word, n)
		if strings.HasPrefix(n, word) && len(word) > 1 {
			d = min(d, 1)
		}
		if d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("\n\nDid you mean '%s'?", best)
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that make b of a.
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
