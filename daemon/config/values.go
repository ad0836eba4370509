package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// Each type here is a flag's value (pflag.Value: Set, String, Type) and a JSON value.

// Set reads a size.
func (b *Bytes) Set(s string) error {
	n, err := units.RAMInBytes(s)
	if err != nil {
		return err
	}
	*b = Bytes(n)
	return nil
}

// String is the size with a unit.
func (b *Bytes) String() string { return units.BytesSize(float64(*b)) }

// Type names the kind of value in the help text.
func (b *Bytes) Type() string { return "bytes" }

// UnmarshalJSON takes a number of bytes or a string.
func (b *Bytes) UnmarshalJSON(raw []byte) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return b.Set(s)
	}
	return json.Unmarshal(raw, (*int64)(b))
}

// Set reads a subnet.
func (p *Prefix) Set(s string) (err error) {
	if s == "" {
		*p = Prefix{}
		return nil
	}
	p.Prefix, err = netip.ParsePrefix(s)
	return err
}

// String is the subnet, "" if it is not set.
func (p *Prefix) String() string {
	if !p.IsValid() {
		return ""
	}
	return p.Prefix.String()
}

// Type names the kind of value in the help text.
func (p *Prefix) Type() string { return "cidr" }

// UnmarshalJSON takes a string.
func (p *Prefix) UnmarshalJSON(raw []byte) error { return fromString(raw, p.Set) }

// Set reads an address.
func (a *Addr) Set(s string) (err error) {
	if s == "" {
		*a = Addr{}
		return nil
	}
	a.Addr, err = netip.ParseAddr(s)
	return err
}

// String is the address, "" if it is not set.
func (a *Addr) String() string {
	if !a.IsValid() {
		return ""
	}
	return a.Addr.String()
}

// Type names the kind of value in the help text.
func (a *Addr) Type() string { return "ip" }

// UnmarshalJSON takes a string.
func (a *Addr) UnmarshalJSON(raw []byte) error { return fromString(raw, a.Set) }

func fromString(raw []byte, set func(string) error) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	return set(s)
}

// Set adds an address, or several with commas between.
func (l *Addrs) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		*l = append(*l, a)
	}
	return nil
}

// String is the list with commas.
func (l *Addrs) String() string {
	var out []string
	for _, a := range *l {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}

// Type names the kind of value in the help text.
func (l *Addrs) Type() string { return "list" }

// Set adds a pool: base=172.30.0.0/16,size=24.
func (l *Pools) Set(s string) error {
	var p Pool
	for field := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		var err error
		switch {
		case !ok:
			return fmt.Errorf("invalid default address pool %q: %q is not key=value", s, field)
		case key == "base":
			p.Base, err = netip.ParsePrefix(value)
		case key == "size":
			p.Size, err = strconv.Atoi(value)
		default:
			return fmt.Errorf("invalid default address pool %q: unknown key %q (there are base and size)", s, key)
		}
		if err != nil {
			return fmt.Errorf("invalid default address pool %q: %w", s, err)
		}
	}
	*l = append(*l, p)
	return nil
}

// String is the list as flags would have it.
func (l *Pools) String() string {
	var out []string
	for _, p := range *l {
		out = append(out, fmt.Sprintf("base=%s,size=%d", p.Base, p.Size))
	}
	return strings.Join(out, " ")
}

// Type names the kind of value in the help text.
func (l *Pools) Type() string { return "pool-options" }

// UnmarshalJSON takes dockerd's form: [{"base":"172.30.0.0/16","size":24}].
func (l *Pools) UnmarshalJSON(raw []byte) error {
	var in []struct {
		Base netip.Prefix `json:"base"`
		Size int          `json:"size"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	*l = nil
	for _, p := range in {
		*l = append(*l, Pool{p.Base, p.Size})
	}
	return nil
}

// Set adds a limit: name=soft:hard.
func (u *Ulimits) Set(s string) error {
	l, err := units.ParseUlimit(s)
	if err != nil {
		return err
	}
	if *u == nil {
		*u = Ulimits{}
	}
	(*u)[l.Name] = l
	return nil
}

// String is the list as flags would have it.
func (u *Ulimits) String() string {
	var out []string
	for _, l := range *u {
		out = append(out, l.String())
	}
	sort.Strings(out)
	return "[" + strings.Join(out, " ") + "]"
}

// Type names the kind of value in the help text.
func (u *Ulimits) Type() string { return "ulimit" }

// UnmarshalJSON takes dockerd's form: {"nofile":{"Name":"nofile","Hard":64000,"Soft":64000}}.
func (u *Ulimits) UnmarshalJSON(raw []byte) error {
	in := map[string]*units.Ulimit{}
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	for name, l := range in {
		if l == nil {
			return fmt.Errorf("ulimit %s has no value", name)
		}
		if l.Name == "" {
			l.Name = name
		}
		if l.Name != name {
			return fmt.Errorf("ulimit %s has another name inside: %s", name, l.Name)
		}
		if _, err := l.GetRlimit(); err != nil {
			return err
		}
	}
	*u = in
	return nil
}

// List is the limits by name's order.
func (u Ulimits) List() []*units.Ulimit {
	var out []*units.Ulimit
	for _, name := range slices.Sorted(maps.Keys(u)) {
		out = append(out, u[name])
	}
	return out
}
