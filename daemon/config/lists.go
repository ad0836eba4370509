package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// list is a flag that may be repeated. Unlike pflag's lists it does not split at commas: labels may contain them.
type list []string

func (l *list) Set(s string) error { *l = append(*l, s); return nil }
func (l *list) String() string     { return strings.Join(*l, ", ") }
func (l *list) Type() string       { return "list" }

// pairs is a flag of key=value that may be repeated.
type pairs map[string]string

func (p *pairs) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return fmt.Errorf("%q is not key=value", s)
	}
	if *p == nil {
		*p = pairs{}
	}
	(*p)[key] = value
	return nil
}

func (p *pairs) String() string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(*p)) {
		out = append(out, key+"="+(*p)[key])
	}
	return strings.Join(out, ", ")
}
func (p *pairs) Type() string { return "map" }
