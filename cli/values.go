package cli

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"skiff/client"
)

// The kinds of flag values that docker has and pflag has not.

// listValue collects the values of a flag that may be given several times. check may change or refuse a value.
type listValue struct {
	p     *[]string
	check func(string) (string, error)
	deflt bool // help shows "(default [])"
}

func (v *listValue) Type() string { return "list" }
func (v *listValue) String() string {
	if v.p == nil || len(*v.p) == 0 && !v.deflt {
		return ""
	}
	return fmt.Sprint(*v.p)
}

func (v *listValue) Set(s string) error {
	if v.check != nil {
		var err error
		if s, err = v.check(s); err != nil {
			return err
		}
	}
	*v.p = append(*v.p, s)
	return nil
}

// mapValue collects key=value pairs.
type mapValue struct {
	p     *map[string]string
	check func(string) (string, error)
}

func (v *mapValue) Type() string   { return "map" }
func (v *mapValue) String() string { return fmt.Sprint(*v.p) }
func (v *mapValue) Set(s string) error {
	if v.check != nil {
		var err error
		if s, err = v.check(s); err != nil {
			return err
		}
	}
	key, value, _ := strings.Cut(s, "=")
	if *v.p == nil {
		*v.p = map[string]string{}
	}
	(*v.p)[key] = value
	return nil
}

// bytesValue is a size: "512m", "2g" (base 1024), or a number of bytes.
type bytesValue struct{ p *int64 }

func (v bytesValue) Type() string { return "bytes" }
func (v bytesValue) String() string {
	if v.p == nil || *v.p == 0 {
		return "0"
	}
	return units.BytesSize(float64(*v.p))
}

func (v bytesValue) Set(s string) error {
	n, err := units.RAMInBytes(s)
	*v.p = n
	return err
}

// swapValue is a size or -1.
type swapValue struct{ bytesValue }

func (v swapValue) Set(s string) error {
	if s == "-1" {
		*v.p = -1
		return nil
	}
	return v.bytesValue.Set(s)
}

// cpusValue is a decimal number of CPUs, kept in billionths.
type cpusValue struct{ p *int64 }

func (v cpusValue) Type() string { return "decimal" }
func (v cpusValue) String() string {
	if v.p == nil || *v.p == 0 {
		return ""
	}
	return big.NewRat(*v.p, 1e9).FloatString(3)
}

func (v cpusValue) Set(s string) error {
	cpu, ok := new(big.Rat).SetString(s)
	if !ok {
		return fmt.Errorf("failed to parse %v as a rational number", s)
	}
	nano := cpu.Mul(cpu, big.NewRat(1e9, 1))
	if !nano.IsInt() {
		return fmt.Errorf("value is too precise")
	}
	*v.p = nano.Num().Int64()
	return nil
}

// ulimitValue collects limits: name=soft[:hard].
type ulimitValue struct{ p *[]client.Ulimit }

func (v ulimitValue) Type() string { return "ulimit" }
func (v ulimitValue) String() string {
	out := make([]string, 0, 4)
	if v.p != nil {
		for _, u := range *v.p {
			out = append(out, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
		}
	}
	return fmt.Sprint(out)
}

func (v ulimitValue) Set(s string) error {
	u, err := units.ParseUlimit(s)
	if err != nil {
		return err
	}
	for i := range *v.p {
		if (*v.p)[i].Name == u.Name {
			(*v.p)[i] = client.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}
			return nil
		}
	}
	*v.p = append(*v.p, client.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	sort.Slice(*v.p, func(i, j int) bool { return (*v.p)[i].Name < (*v.p)[j].Name })
	return nil
}

// weightValue collects path:weight pairs.
type weightValue struct{ p *[]client.WeightDevice }

func (v weightValue) Type() string   { return "list" }
func (v weightValue) String() string { return "[]" }
func (v weightValue) Set(s string) error {
	path, weight, ok := strings.Cut(s, ":")
	if !ok || path == "" {
		return fmt.Errorf("bad format: %s", s)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return fmt.Errorf("bad format for device path: %s", s)
	}
	n, err := strconv.ParseUint(weight, 10, 16)
	if err != nil {
		return fmt.Errorf("invalid weight for device: %s", s)
	}
	if n > 0 && (n < 10 || n > 1000) {
		return fmt.Errorf("invalid weight for device: %s", s)
	}
	*v.p = append(*v.p, client.WeightDevice{Path: path, Weight: uint16(n)})
	return nil
}

// throttleValue collects path:rate pairs; rates of bytes may have a unit.
type throttleValue struct {
	p     *[]client.ThrottleDevice
	bytes bool
}

func (v throttleValue) Type() string   { return "list" }
func (v throttleValue) String() string { return "[]" }
func (v throttleValue) Set(s string) error {
	path, rate, ok := strings.Cut(s, ":")
	if !ok || path == "" {
		return fmt.Errorf("bad format: %s", s)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return fmt.Errorf("bad format for device path: %s", s)
	}
	var n uint64
	var err error
	if v.bytes {
		var b int64
		b, err = units.RAMInBytes(rate)
		n = uint64(b)
		if b < 0 {
			err = fmt.Errorf("negative")
		}
	} else {
		n, err = strconv.ParseUint(rate, 10, 64)
	}
	if err != nil {
		what := "<device-path>:<number>. Number must be a positive integer"
		if v.bytes {
			what = "<device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
		}
		return fmt.Errorf("invalid rate for device: %s. The correct format is %s", s, what)
	}
	*v.p = append(*v.p, client.ThrottleDevice{Path: path, Rate: n})
	return nil
}

// filterValue collects --filter key=value.
type filterValue struct{ p *client.Filters }

func (v filterValue) Type() string   { return "filter" }
func (v filterValue) String() string { return "" }
func (v filterValue) Set(s string) error {
	if s == "" {
		return nil
	}
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("bad format of filter (expected name=value)")
	}
	if *v.p == nil {
		*v.p = client.Filters{}
	}
	v.p.Add(strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value))
	return nil
}

// uintValue is an unsigned number, shown as docker shows it.
type uintValue struct{ p *uint64 }

func (v uintValue) Type() string   { return "uint" }
func (v uintValue) String() string { return strconv.FormatUint(*v.p, 10) }
func (v uintValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 64)
	*v.p = n
	return err
}

// readEnvFile reads a file of KEY=value lines. A KEY alone takes the value of our own environment; lines that begin with #
// are comments.
func readEnvFile(path string, lookup func(string) (string, bool)) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []string
	text := strings.TrimPrefix(string(b), "\ufeff")
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t\v\f")
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, has := strings.Cut(line, "=")
		if strings.ContainsAny(key, " \t") {
			return nil, fmt.Errorf("invalid env file (%s): variable '%s' contains whitespaces", path, key)
		}
		if key == "" {
			return nil, fmt.Errorf("invalid env file (%s): no variable name on line '%s'", path, line)
		}
		if !has {
			if lookup == nil {
				out = append(out, key)
				continue
			}
			v, ok := lookup(key)
			if !ok {
				continue
			}
			value = v
		}
		out = append(out, key+"="+value)
	}
	return out, nil
}

// envValue checks -e: KEY=value, or KEY, which takes the value of our own environment if there is one.
func envValue(lookup func(string) (string, bool)) func(string) (string, error) {
	return func(s string) (string, error) {
		key, _, has := strings.Cut(s, "=")
		if key == "" {
			return "", fmt.Errorf("invalid environment variable: %s", s)
		}
		if has {
			return s, nil
		}
		if v, ok := lookup(key); ok {
			return key + "=" + v, nil
		}
		return s, nil
	}
}

// pairs makes a map of key=value strings. A later one wins.
func pairs(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]string, len(list))
	for _, s := range list {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}

// csvFields splits at commas; a field may be in double quotes, where "" is one.
func csvFields(s string) ([]string, error) {
	var out []string
	for {
		var f strings.Builder
		i := 0
		if strings.HasPrefix(s, `"`) {
			i = 1
			for {
				j := strings.IndexByte(s[i:], '"')
				if j < 0 {
					return nil, fmt.Errorf("a double quote is not closed in %q", s)
				}
				f.WriteString(s[i : i+j])
				i += j + 1
				if i >= len(s) || s[i] != '"' {
					break
				}
				f.WriteByte('"')
				i++
			}
			if i < len(s) && s[i] != ',' {
				return nil, fmt.Errorf("text after a closing double quote in %q", s)
			}
		} else {
			i = strings.IndexByte(s, ',')
			if i < 0 {
				i = len(s)
			}
			if strings.ContainsRune(s[:i], '"') {
				return nil, fmt.Errorf("a double quote inside a field in %q", s)
			}
			f.WriteString(s[:i])
		}
		out = append(out, f.String())
		if i >= len(s) {
			return out, nil
		}
		s = s[i+1:]
	}
}

func absPath(p string) string {
	if abs, err := filepath.Abs(p); err == nil {
		return abs
	}
	return p
}
