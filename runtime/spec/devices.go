package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
	"skiff/runtime/cgroup"
)

var deviceRule = regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)

// devices are a container's device nodes (beside the default ones) and the rules of what it may touch.
func devices(h *container.HostConfig) (nodes []specs.LinuxDevice, rules []specs.LinuxDeviceCgroup, warn []string, err error) {
	if h.Privileged {
		if nodes, err = hostDevices(); err != nil {
			return nil, nil, nil, err
		}
		rules = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		there := make(map[string]bool, len(nodes))
		for _, n := range nodes {
			there[n.Path] = true
		}
		for _, m := range h.Devices {
			if m.CgroupPermissions != "" && m.CgroupPermissions != "rwm" {
				warn = append(warn, fmt.Sprintf("custom %s permissions for device %s are ignored in privileged mode", m.CgroupPermissions, m.PathOnHost))
			}
			more, _, err := mapDevice(m)
			if err != nil {
				return nil, nil, nil, err
			}
			for _, n := range more {
				if !there[n.Path] {
					nodes = append(nodes, n)
				}
			}
		}
		return nodes, rules, warn, nil
	}
	rules = append(rules, specs.LinuxDeviceCgroup{Allow: false, Access: "rwm"})
	rules = append(rules, cgroup.DefaultDeviceRules()...)
	for _, m := range h.Devices {
		more, allow, err := mapDevice(m)
		if err != nil {
			return nil, nil, nil, err
		}
		nodes, rules = append(nodes, more...), append(rules, allow...)
	}
	for _, r := range h.DeviceCgroupRules {
		rule, err := parseDeviceRule(r)
		if err != nil {
			return nil, nil, nil, err
		}
		rules = append(rules, rule)
	}
	return nodes, rules, nil, nil
}

func parseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	if text == "a" { // the kernel's short form
		text = "a *:* rwm"
	}
	m := deviceRule.FindStringSubmatch(text)
	if m == nil {
		return specs.LinuxDeviceCgroup{}, errs.New(errs.Invalid, "invalid device cgroup rule format: '%s'", text)
	}
	r := specs.LinuxDeviceCgroup{Allow: true, Type: m[1], Access: m[4]}
	for _, n := range []struct {
		to   **int64
		text string
		name string
	}{{&r.Major, m[2], "major"}, {&r.Minor, m[3], "minor"}} {
		v := int64(-1)
		if n.text != "*" {
			var err error
			if v, err = strconv.ParseInt(n.text, 10, 64); err != nil {
				return r, errs.New(errs.Invalid, "invalid %s value in device cgroup rule format: '%s'", n.name, text)
			}
		}
		*n.to = &v
	}
	return r, nil
}

// mapDevice gives the node of a device, or those of all devices in a folder, with the rules that allow them.
func mapDevice(m container.DeviceMapping) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	fail := func(why string) error {
		return errs.New(errs.Invalid, "error gathering device information while adding custom device %q: %s", m.PathOnHost, why)
	}
	access := m.CgroupPermissions
	if access == "" {
		access = "rwm"
	}
	if strings.Trim(access, "rwm") != "" {
		return nil, nil, errs.New(errs.Invalid, "invalid device mode %q of device %s: only r, w and m are known", access, m.PathOnHost)
	}
	target := m.PathInContainer
	if target == "" {
		target = m.PathOnHost
	}
	if !path.IsAbs(target) {
		return nil, nil, fail("the path in the container must be absolute")
	}
	source, err := filepath.EvalSymlinks(m.PathOnHost)
	if err != nil {
		return nil, nil, fail(reason(err))
	}
	if d, err := deviceNode(source, target); err == nil {
		return []specs.LinuxDevice{d}, []specs.LinuxDeviceCgroup{allow(d, access)}, nil
	} else if !errors.Is(err, errNoDevice) {
		return nil, nil, fail(reason(err))
	}
	var nodes []specs.LinuxDevice
	var rules []specs.LinuxDeviceCgroup
	// What vanishes or can't be read meanwhile, and what is no device, is left out.
	_ = filepath.WalkDir(source, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(source, p)
		if err != nil {
			return nil
		}
		if d, err := deviceNode(p, path.Join(target, rel)); err == nil {
			nodes, rules = append(nodes, d), append(rules, allow(d, access))
		}
		return nil
	})
	if len(nodes) == 0 {
		return nil, nil, fail("not a device node")
	}
	return nodes, rules, nil
}

// reason is an error without the path and the call, as Docker prints it.
func reason(err error) string {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

func allow(d specs.LinuxDevice, access string) specs.LinuxDeviceCgroup {
	major, minor := d.Major, d.Minor
	return specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &major, Minor: &minor, Access: access}
}

var errNoDevice = errors.New("not a device node")

// deviceNode describes the device at source, which must be one itself, to be made at target.
func deviceNode(source, target string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Lstat(source, &st); err != nil {
		return specs.LinuxDevice{}, &fs.PathError{Op: "lstat", Path: source, Err: err}
	}
	d := specs.LinuxDevice{Path: target, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		d.Type = "b"
	case unix.S_IFCHR:
		d.Type = "c"
	default:
		return d, errNoDevice
	}
	mode, uid, gid := os.FileMode(st.Mode&0o777), st.Uid, st.Gid
	d.FileMode, d.UID, d.GID = &mode, &uid, &gid
	return d, nil
}

// hostDevices are all devices of the host, for a privileged container: what is under /dev but for folders and nodes
// that a container has of its own.
func hostDevices() ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	err := filepath.WalkDir("/dev", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil && p == "/dev":
			return err
		case err != nil: // gone meanwhile
			return nil
		}
		switch e.Name() {
		case "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev":
			if e.IsDir() {
				return fs.SkipDir
			}
		case "console":
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 {
			return nil
		}
		if d, err := deviceNode(p, p); err == nil {
			out = append(out, d)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the host's devices: %w", err)
	}
	return out, nil
}
