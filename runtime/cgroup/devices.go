package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// access is a set of the ways to touch a device, numbered as the kernel's BPF_DEVCG_ACC_*.
type access uint8

const (
	mknod access = 1 << iota
	reading
	writing
	anyAccess = mknod | reading | writing
)

func parseAccess(s string) (access, error) {
	var a access
	for _, r := range s {
		switch r {
		case 'm':
			a |= mknod
		case 'r':
			a |= reading
		case 'w':
			a |= writing
		default:
			return 0, errs.New(errs.Invalid, "device access %q: only r, w and m are known", s)
		}
	}
	if s == "" {
		return anyAccess, nil
	}
	return a, nil
}

func (a access) String() string {
	return pick(a&reading != 0, "r", "") + pick(a&writing != 0, "w", "") + pick(a&mknod != 0, "m", "")
}

// device names devices: one, or many by a wildcard.
type device struct {
	kind         byte  // 'b' or 'c'
	major, minor int64 // -1: any
}

func (d device) String() string {
	num := func(n int64) string { return pick(n < 0, "*", strconv.FormatInt(n, 10)) }
	return string(d.kind) + " " + num(d.major) + ":" + num(d.minor)
}

// exception is a device that is treated unlike the default.
type exception struct {
	device
	access access
}

// deviceState is what a list of rules comes to, in the model of cgroup v1: a default, and exceptions from it.
type deviceState struct {
	allow      bool // the default
	exceptions []exception
}

// deviceRules folds rules, later ones over earlier ones. Without a rule for everything the default is to allow, as in
// a new group.
func deviceRules(rules []specs.LinuxDeviceCgroup) (deviceState, error) {
	s := deviceState{allow: true}
	for _, r := range rules {
		acc, err := parseAccess(r.Access)
		if err != nil {
			return s, err
		}
		d := device{major: -1, minor: -1}
		if r.Major != nil {
			d.major = *r.Major
		}
		if r.Minor != nil {
			d.minor = *r.Minor
		}
		switch r.Type {
		case "b", "c":
			d.kind = r.Type[0]
			if err := s.apply(r.Allow, exception{d, acc}); err != nil {
				return s, err
			}
		case "", "a":
			if d.major < 0 && d.minor < 0 && acc == anyAccess {
				s = deviceState{allow: r.Allow}
				continue
			}
			for _, kind := range []byte("bc") {
				d.kind = kind
				if err := s.apply(r.Allow, exception{d, acc}); err != nil {
					return s, err
				}
			}
		default:
			return s, errs.New(errs.Invalid, "device type %q: only a, b and c are known", r.Type)
		}
	}
	return s, nil
}

// apply adds an exception, or takes it back if it says what the default says. What only a part of a wider exception
// would take back can't be expressed: refused, rather than ignored as the kernel does.
func (s *deviceState) apply(allow bool, e exception) error {
	i := slices.IndexFunc(s.exceptions, func(o exception) bool { return o.device == e.device })
	switch {
	case allow != s.allow && i >= 0:
		s.exceptions[i].access |= e.access
	case allow != s.allow:
		s.exceptions = append(s.exceptions, e)
	default:
		if i >= 0 {
			if s.exceptions[i].access &^= e.access; s.exceptions[i].access == 0 {
				s.exceptions = slices.Delete(s.exceptions, i, i+1)
			}
		}
		for _, o := range s.exceptions {
			if o.device != e.device && o.covers(e) {
				return errs.New(errs.Invalid, "device rule %q %s would cut a piece out of the earlier rule %q, which cgroups can't do",
					e.String(), pick(allow, "allowed", "denied"), o.String())
			}
		}
	}
	return nil
}

// covers says that some device and access are meant by both.
func (e exception) covers(o exception) bool {
	meets := func(a, b int64) bool { return a < 0 || b < 0 || a == b }
	return e.kind == o.kind && meets(e.major, o.major) && meets(e.minor, o.minor) && e.access&o.access != 0
}

// setDevices enforces device rules: by the devices controller of v1, else by a program on v2.
func (c *Cgroup) setDevices(rules []specs.LinuxDeviceCgroup) ([]string, error) {
	s, err := deviceRules(rules)
	if err != nil {
		return nil, err
	}
	if p, ok := c.part("devices"); ok {
		return nil, s.writeV1(p.dir)
	}
	if p, ok := c.v2(); ok {
		return nil, s.attach(p.dir)
	}
	return []string{noKernel + "device rules or the cgroup is not mounted. All devices are allowed."}, nil
}

// writeV1 writes to devices.allow and devices.deny. (There is a moment between the first write and the last
// in which less, never more, than the rules is allowed, unless all is.)
func (s deviceState) writeV1(dir string) error {
	deflt, other := "devices.deny", "devices.allow"
	if s.allow {
		deflt, other = other, deflt
	}
	if err := write(dir, deflt, "a"); err != nil {
		return s.explain(err)
	}
	for _, e := range s.exceptions {
		if err := write(dir, other, e.String()); err != nil {
			return s.explain(err)
		}
	}
	return nil
}

func (e exception) String() string { return e.device.String() + " " + e.access.String() }

// explain tells the one reason for EPERM that a user can act on.
func (s deviceState) explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (a group can't allow what the group above it denies)", err)
	}
	return err
}

// DefaultDeviceRules is what every container may touch, privileged or not: any node may be made (not opened); null,
// zero, full, random, urandom, tty, console, ptmx and the terminals of its devpts are open. A runtime adds them to the
// rules of a specification, after a rule that denies everything.
func DefaultDeviceRules() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	return []specs.LinuxDeviceCgroup{
		rule("c", -1, -1, "m"), rule("b", -1, -1, "m"),
		rule("c", 1, 3, "rwm"), rule("c", 1, 5, "rwm"), rule("c", 1, 7, "rwm"), rule("c", 1, 8, "rwm"), rule("c", 1, 9, "rwm"),
		rule("c", 5, 0, "rwm"), rule("c", 5, 1, "rwm"), rule("c", 5, 2, "rwm"), rule("c", 136, -1, "rwm"),
	}
}
