package cli

import (
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/spf13/pflag"
)

// help is `skiff help …`.
func (a *App) help(args []string) error {
	if len(args) == 0 {
		a.rootHelp(a.Out)
		return nil
	}
	if g := groupOf(args[0]); g != nil && len(args) == 1 {
		a.groupHelp(a.Out, g)
		return nil
	}
	parent, name := "", args[0]
	if len(args) > 1 {
		parent, name = args[0], args[1]
	}
	s := lookup(parent, name)
	if s == nil {
		return fmt.Errorf("unknown help topic: %s", strings.Join(args, " "))
	}
	a.command(s, strings.TrimSpace(parent+" "+name)).help(a.Out)
	return nil
}

// help prints the help of a command.
func (c *command) help(w io.Writer) {
	fmt.Fprintf(w, "Usage:  skiff %s\n\n%s\n", strings.TrimSpace(c.path+" "+c.spec.args), c.spec.short)
	if names := c.spec.allNames(); len(names) > 1 {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.Join(names, ", "))
	}
	if usages := flagUsages(c.flags, c.width()); usages != "" {
		fmt.Fprintf(w, "\nOptions:\n%s\n", usages)
	}
}

// allNames are the full names of a command.
func (s *spec) allNames() []string {
	var names []string
	if s.parent != "" {
		for _, n := range append([]string{s.name}, strings.Fields(s.aliases)...) {
			names = append(names, "skiff "+s.parent+" "+n)
		}
	}
	if s.top != "" {
		names = append(names, "skiff "+s.top)
	}
	return names
}

func flagUsages(f *pflag.FlagSet, width int) string {
	visible := false
	f.VisitAll(func(fl *pflag.Flag) { visible = visible || !fl.Hidden })
	if !visible {
		return ""
	}
	return strings.TrimRight(f.FlagUsagesWrapped(width-1), "\n")
}

// groupHelp prints the help of a management command.
func (a *App) groupHelp(w io.Writer, g *group) {
	fmt.Fprintf(w, "Usage:  skiff %s COMMAND\n\n%s\n\nCommands:\n", g.name, g.short)
	var rows [][2]string
	for _, s := range specs() {
		if s.parent == g.name {
			rows = append(rows, [2]string{s.name, s.short})
		}
	}
	printRows(w, rows, true)
	fmt.Fprintf(w, "\nRun 'skiff %s COMMAND --help' for more information on a command.\n", g.name)
}

// rootHelp prints the help of skiff.
func (a *App) rootHelp(w io.Writer) {
	fmt.Fprint(w, "Usage:  skiff [OPTIONS] COMMAND\n\nImages and containers, with Docker's commands\n")
	var common, other, manage [][2]string
	for _, s := range specs() {
		name := s.top
		if s.parent == "" {
			name = s.name
		}
		switch {
		case name == "":
		case s.common:
			common = append(common, [2]string{name, s.short})
		default:
			other = append(other, [2]string{name, s.short})
		}
	}
	for _, g := range groups() {
		manage = append(manage, [2]string{g.name, g.short})
	}
	fmt.Fprint(w, "\nCommon Commands:\n")
	printRows(w, common, false)
	fmt.Fprint(w, "\nManagement Commands:\n")
	printRows(w, manage, true)
	fmt.Fprint(w, "\nCommands:\n")
	printRows(w, other, true)
	fmt.Fprintf(w, "\nGlobal Options:\n%s\n", flagUsages(a.global.flags(a), a.width()))
	fmt.Fprint(w, "\nRun 'skiff COMMAND --help' for more information on a command.\n")
}

func printRows(w io.Writer, rows [][2]string, sorted bool) {
	if sorted {
		sort.Slice(rows, func(i, j int) bool { return rows[i][0] < rows[j][0] })
	}
	for _, r := range rows {
		fmt.Fprintf(w, "  %-11s %s\n", r[0], r[1])
	}
}
