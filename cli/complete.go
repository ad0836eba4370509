package cli

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"skiff/client"
)

// Completion: the shells' scripts call `skiff __complete WORD…`, whose last word is the one that is being typed. It prints the
// candidates, each with a description after a tab, and then ":" and a number that tells the script what to do: 4 for no file
// names, 2 for no space after the word, 0 for file names.

const (
	noSpace = 2
	noFiles = 4
	files   = 0
)

// completionTime is how long the daemon may take before completion does without it.
const completionTime = 700 * time.Millisecond

func (a *App) completeWords(ctx context.Context, args []string, descriptions bool) error {
	if len(args) == 0 {
		args = []string{""}
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	words, directive := a.candidates(ctx, args[:len(args)-1], args[len(args)-1])
	var b strings.Builder
	for _, w := range words {
		if !descriptions {
			w, _, _ = strings.Cut(w, "\t")
		}
		b.WriteString(w + "\n")
	}
	fmt.Fprintf(&b, ":%d\n", directive)
	_, err := a.Out.Write([]byte(b.String()))
	return err
}

// candidates finds what can stand for word after the words before it.
func (a *App) candidates(ctx context.Context, before []string, word string) ([]string, int) {
	gf := a.global.flags(a)
	if a.cl == nil && a.Getenv("SKIFF_NO_AUTOSTART") == "" {
		env := a.Getenv // completion starts no daemon
		a.Getenv = func(k string) string {
			if k == "SKIFF_NO_AUTOSTART" {
				return "1"
			}
			return env(k)
		}
	}
	rest, pending := globalsBefore(gf, before)
	if pending != nil {
		return a.globalValues(pending.Name, word)
	}
	if len(rest) == 0 {
		if strings.HasPrefix(word, "-") {
			return flagWords(gf, word), noFiles
		}
		return commandWords("", word), noFiles
	}
	if g := groupOf(rest[0]); g != nil {
		if len(rest) == 1 {
			return commandWords(g.name, word), noFiles
		}
		s := lookup(g.name, rest[1])
		if s == nil {
			return nil, noFiles
		}
		return a.command(s, "").candidates(ctx, rest[2:], word)
	}
	if rest[0] == "help" {
		return commandWords("", word), noFiles
	}
	s := lookup("", rest[0])
	if s == nil {
		return nil, noFiles
	}
	return a.command(s, "").candidates(ctx, rest[1:], word)
}

// globalsBefore parses the options before the command. pending is the flag whose value is being typed.
func globalsBefore(f *pflag.FlagSet, words []string) (rest []string, pending *pflag.Flag) {
	for i := 0; i < len(words); i++ {
		if !strings.HasPrefix(words[i], "-") {
			return words[i:], nil
		}
		fl, needs := flagOf(f, words[i])
		if fl == nil {
			continue
		}
		if needs {
			if i+1 == len(words) {
				return nil, fl
			}
			i++
			_ = fl.Value.Set(words[i])
		} else if _, v, ok := strings.Cut(words[i], "="); ok {
			_ = fl.Value.Set(v)
		}
	}
	return nil, nil
}

// flagOf finds the flag of a word as --name, --name=value, -n, -nvalue, -abc. needs says that its value is the next word.
func flagOf(f *pflag.FlagSet, word string) (fl *pflag.Flag, needs bool) {
	if name, ok := strings.CutPrefix(word, "--"); ok {
		name, _, has := strings.Cut(name, "=")
		fl = f.Lookup(name)
		return fl, fl != nil && !has && fl.NoOptDefVal == ""
	}
	short := word[1:]
	for i := range len(short) {
		fl = f.ShorthandLookup(short[i : i+1])
		if fl == nil {
			return nil, false
		}
		if fl.NoOptDefVal == "" {
			return fl, i == len(short)-1
		}
	}
	return fl, false
}

func (a *App) globalValues(flag, word string) ([]string, int) {
	switch flag {
	case "context":
		return matching(client.ContextNames(a.configDir()), word), noFiles
	case "log-level":
		return matching([]string{"debug", "info", "warn", "error", "fatal"}, word), noFiles
	case "host":
		return matching([]string{"unix://", "tcp://", "ssh://"}, word), noSpace | noFiles
	}
	return nil, files
}

func commandWords(parent, word string) []string {
	var out []string
	add := func(name, short string) {
		if strings.HasPrefix(name, word) {
			out = append(out, name+"\t"+short)
		}
	}
	for _, s := range specs() {
		switch {
		case parent != "" && s.parent == parent:
			add(s.name, s.short)
		case parent == "" && s.top != "":
			add(s.top, s.short)
		case parent == "" && s.parent == "":
			add(s.name, s.short)
		}
	}
	if parent == "" {
		for _, g := range groups() {
			add(g.name, g.short)
		}
		add("help", "Help for a command")
	}
	sort.Strings(out)
	return out
}

func flagWords(f *pflag.FlagSet, word string) []string {
	var out []string
	f.VisitAll(func(fl *pflag.Flag) {
		if fl.Hidden {
			return
		}
		if name := "--" + fl.Name; strings.HasPrefix(name, word) {
			out = append(out, name+"\t"+fl.Usage)
		}
		if fl.Shorthand != "" && word == "-" {
			out = append(out, "-"+fl.Shorthand+"\t"+fl.Usage)
		}
	})
	return out
}

// candidates completes a command's flags, their values, and its arguments.
func (c *command) candidates(ctx context.Context, before []string, word string) ([]string, int) {
	var args []string
	flagsEnded := false
	interspersed := c.spec.name != "run" && c.spec.name != "create" && c.spec.name != "exec" && c.spec.name != "top"
	for i := 0; i < len(before); i++ {
		w := before[i]
		switch {
		case flagsEnded || !strings.HasPrefix(w, "-") || w == "-":
			args = append(args, w)
			if !interspersed {
				flagsEnded = true
			}
		case w == "--":
			flagsEnded = true
		default:
			fl, needs := flagOf(c.flags, w)
			switch {
			case fl == nil:
			case !needs:
				if _, v, ok := strings.Cut(w, "="); ok {
					_ = fl.Value.Set(v)
				} else if fl.NoOptDefVal != "" {
					_ = fl.Value.Set(fl.NoOptDefVal)
				}
			case i+1 == len(before):
				return c.flagValues(ctx, fl.Name, word, "")
			default:
				i++
				_ = fl.Value.Set(before[i])
			}
		}
	}
	if !flagsEnded && strings.HasPrefix(word, "-") {
		if name, v, ok := strings.Cut(word, "="); ok && strings.HasPrefix(name, "--") {
			return c.flagValues(ctx, strings.TrimPrefix(name, "--"), v, name+"=")
		}
		return append(flagWords(c.flags, word), matching([]string{"--help"}, word)...), noFiles
	}
	if c.words == nil {
		return nil, noFiles
	}
	words := c.words(ctx, args)
	if words == nil && len(args) > 0 && !interspersed {
		return nil, files // a command's own arguments
	}
	return matching(words, word), noFiles
}

func (c *command) flagValues(ctx context.Context, flag, word, prefix string) ([]string, int) {
	f := c.values[flag]
	if f == nil {
		return nil, files
	}
	directive := noFiles
	var out []string
	for _, w := range matching(f(ctx), word) {
		if strings.HasSuffix(w, "=") || strings.HasSuffix(w, ":") {
			directive = noFiles | noSpace
		}
		out = append(out, prefix+w)
	}
	return out, directive
}

func matching(words []string, word string) []string {
	var out []string
	for _, w := range words {
		if strings.HasPrefix(w, word) || strings.HasPrefix(strings.ToLower(w), strings.ToLower(word)) && word == strings.ToLower(word) && strings.ToUpper(w) == w {
			out = append(out, w)
		}
	}
	return out
}

// containerState selects the containers that a completion offers.
type containerState int

const (
	anyState containerState = iota
	running
	stopped
)

// containers offers the names of containers.
func (c *command) containers(state containerState) func(ctx context.Context) []string {
	return func(ctx context.Context) []string {
		cl, err := c.client()
		if err != nil {
			return nil
		}
		list, err := cl.List(ctx, client.ListOptions{All: state != running})
		if err != nil {
			return nil
		}
		var names []string
		for i := range list {
			s := &list[i]
			if state == stopped && (s.State == "running" || s.State == "paused" || s.State == "restarting") {
				continue
			}
			for _, n := range s.Names {
				if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
					names = append(names, n+"\t"+s.Image+", "+s.Status)
				}
			}
		}
		return names
	}
}

// images offers the names of local images.
func (c *command) images() func(ctx context.Context) []string {
	return func(ctx context.Context) []string {
		cl, err := c.client()
		if err != nil {
			return nil
		}
		list, err := cl.Images(ctx, client.ImageListOptions{})
		if err != nil {
			return nil
		}
		var names []string
		for i := range list {
			for _, t := range list[i].RepoTags {
				if name, ok := strings.CutSuffix(t, ":latest"); ok {
					names = append(names, name)
				}
				names = append(names, t)
			}
		}
		return names
	}
}

// all completes every argument alike; what is there already is not offered again.
func (c *command) all(f func(ctx context.Context) []string) func(ctx context.Context, args []string) []string {
	return func(ctx context.Context, args []string) []string {
		var out []string
		for _, w := range f(ctx) {
			name, _, _ := strings.Cut(w, "\t")
			if !contains(args, name) {
				out = append(out, w)
			}
		}
		return out
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
