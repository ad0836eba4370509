package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Request is what the command line asks for besides a configuration.
type Request struct {
	Help, Version bool
	Usage         string // the flags' help
}

// Loader reads the configuration again and again from the same command line, for reloads.
type Loader struct {
	args []string
}

// Load reads the command line (without the program's name) and the configuration file.
func Load(args []string) (*Config, *Loader, Request, error) {
	var req Request
	l := &Loader{args: args}
	c, err := l.load(&req)
	return c, l, req, err
}

// Reload reads all of it again. What only a restart can change stays as in old; changed names the keys whose new
// values are in the result, kept those whose new values wait for a restart.
func (l *Loader) Reload(old *Config) (c *Config, changed, kept []string, err error) {
	var req Request
	fresh, err := l.load(&req)
	if err != nil {
		return nil, nil, nil, err
	}
	merged := *old
	for _, o := range options {
		if o.key == "" || o.flag == "" {
			continue
		}
		before, after := show(o.field(old)), show(o.field(fresh))
		switch {
		case before == after:
		case o.reload:
			assign(o.field(&merged), o.field(fresh))
			changed = append(changed, o.key)
		default:
			kept = append(kept, o.key)
		}
	}
	merged.complete()
	return &merged, changed, kept, merged.check()
}

func (l *Loader) load(req *Request) (*Config, error) {
	c, flags, refusals := Default(), pflag.NewFlagSet("skiffd", pflag.ContinueOnError), []string{}
	flags.SetOutput(io.Discard)
	flags.SortFlags = true
	flags.Usage = func() {}
	for _, o := range options {
		o.define(flags, c)
	}
	for _, a := range missing {
		if a.flag != "" && flags.Lookup(a.flag) == nil {
			f := flags.VarPF(refused{a, &refusals}, a.flag, "", "")
			f.Hidden = true
			if a.boolean {
				f.NoOptDefVal = "true"
			}
		}
	}
	flags.BoolVarP(&req.Help, "help", "h", false, "Print usage")
	flags.BoolVarP(&req.Version, "version", "v", false, "Print version information and quit")
	if err := flags.Parse(l.args); err != nil {
		return nil, err
	}
	req.Usage = flags.FlagUsages()
	if req.Help || req.Version {
		return c, nil
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf(`"skiffd" accepts no arguments: %s`, strings.Join(flags.Args(), " "))
	}
	if len(refusals) > 0 {
		return nil, fmt.Errorf("not there yet: %s", strings.Join(refusals, ", "))
	}
	if err := c.addFile(flags); err != nil {
		return nil, fmt.Errorf("unable to configure skiffd with file %s: %w", c.File, err)
	}
	c.complete()
	return c, c.check()
}

// addFile reads the configuration file into c, whose flags were set already. A file that nobody named need not be there.
func (c *Config) addFile(flags *pflag.FlagSet) error {
	b, err := os.ReadFile(c.File)
	if errors.Is(err, fs.ErrNotExist) && !flags.Changed("config-file") {
		return nil
	}
	if err != nil {
		return err
	}
	b = bytes.TrimSpace(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	if len(b) == 0 {
		return nil
	}
	keys := map[string]json.RawMessage{}
	if err := strictly(b, &keys); err != nil {
		return err
	}
	unknown, refusals := sortKeys(keys)
	if len(unknown) > 0 {
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if err := checkClashes(keys, flags); err != nil {
		return err
	}
	if len(refusals) > 0 {
		return fmt.Errorf("the following directives are not there yet: %s", strings.Join(refusals, ", "))
	}
	for _, o := range options {
		raw, ok := keys[o.key]
		if o.key == "" || !ok {
			continue
		}
		if err := json.Unmarshal(raw, o.field(c)); err != nil {
			return fmt.Errorf("%s: %w", o.key, err)
		}
	}
	return nil
}

// strictly decodes one JSON value without unknown fields or anything behind it, and says where an error is.
func strictly(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return fmt.Errorf("line %d: unexpected content after the JSON object", line(b, dec.InputOffset()))
		}
		return nil
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("line %d: %w", line(b, syntax.Offset), err)
	}
	return err
}

func line(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(int(offset), len(b))], []byte("\n"))
}

// sortKeys finds keys that nobody knows, and those that ask for what is not there yet.
func sortKeys(keys map[string]json.RawMessage) (unknown, refusals []string) {
	for key, raw := range keys {
		if slices.ContainsFunc(options, func(o option) bool { return o.key == key }) {
			continue
		}
		i := slices.IndexFunc(missing, func(a absent) bool { return a.key == key })
		if i < 0 || key == "" {
			unknown = append(unknown, key)
		} else if text := missing[i].refuse(textOf(raw)); text != "" {
			refusals = append(refusals, text)
		}
	}
	slices.Sort(unknown)
	slices.Sort(refusals)
	return unknown, refusals
}

// checkClashes refuses what is given both ways.
func checkClashes(keys map[string]json.RawMessage, flags *pflag.FlagSet) error {
	var clashes []string
	clash := func(flag, key string) {
		raw, ok := keys[key]
		if key == "" || flag == "" || !ok || !flags.Changed(flag) {
			return
		}
		var value any
		_ = json.Unmarshal(raw, &value)
		clashes = append(clashes, fmt.Sprintf("%s: (from flag: %s, from file: %v)", key, flags.Lookup(flag).Value, value))
	}
	for _, o := range options {
		clash(o.flag, o.key)
	}
	for _, a := range missing {
		clash(a.flag, a.key)
	}
	for _, flag := range []string{"http-proxy", "https-proxy", "no-proxy"} {
		clash(flag, "proxies")
	}
	if len(clashes) == 0 {
		return nil
	}
	slices.Sort(clashes)
	return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(clashes, ", "))
}

// show gives a comparable text of a field.
func show(field any) string {
	b, err := json.Marshal(field)
	if err != nil {
		return fmt.Sprint(field)
	}
	return string(b)
}

// assign copies the value of a field of the kinds that reloads know.
func assign(to, from any) {
	switch p := to.(type) {
	case *bool:
		*p = *from.(*bool)
	case *int:
		*p = *from.(*int)
	case *string:
		*p = *from.(*string)
	case *[]string:
		*p = *from.(*[]string)
	}
}
