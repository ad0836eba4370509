package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"skiff/client"
)

// files sets binds, volumes, tmpfs and mounts.
func (o *runOptions) files(_ *command, b *client.CreateBody) error {
	h := b.HostConfig
	for _, v := range o.volume {
		bind, anonymous, err := parseVolume(v)
		if err != nil {
			return err
		}
		if anonymous {
			if b.Volumes == nil {
				b.Volumes = map[string]struct{}{}
			}
			b.Volumes[bind] = struct{}{}
			continue
		}
		h.Binds = append(h.Binds, bind)
	}
	for _, t := range o.tmpfs {
		path, options, _ := strings.Cut(t, ":")
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		h.Tmpfs[path] = options
	}
	for _, m := range o.mount {
		mount, err := parseMount(m)
		if err != nil {
			return err
		}
		h.Mounts = append(h.Mounts, mount)
	}
	h.VolumesFrom, h.VolumeDriver, h.ReadonlyRootfs = o.volumesFrom, o.volumeDriver, o.readOnly
	return nil
}

// parseVolume reads -v: a path inside the container alone is an anonymous volume, else it is a bind or a named volume, whose
// relative source is made absolute.
func parseVolume(s string) (bind string, anonymous bool, err error) {
	source, rest, has := strings.Cut(s, ":")
	switch {
	case s == "":
		return "", false, errors.New("invalid empty volume spec")
	case !has:
		return s, true, nil
	case strings.Count(rest, ":") > 1:
		return "", false, fmt.Errorf("invalid spec: %s: too many colons", s)
	case source == "":
		return "", false, fmt.Errorf("invalid spec: %s: empty section between colons", s)
	}
	if target, _, _ := strings.Cut(rest, ":"); target == "" {
		return "", false, fmt.Errorf("invalid spec: %s: empty section between colons", s)
	}
	if strings.HasPrefix(source, ".") {
		source = absPath(source)
	}
	return source + ":" + rest, false, nil
}

// parseMount reads the fields of --mount.
func parseMount(s string) (client.Mount, error) {
	m := client.Mount{Type: "volume"}
	fields, err := csvFields(s)
	if err != nil {
		return m, err
	}
	for _, f := range fields {
		key, value, has := strings.Cut(f, "=")
		key = strings.ToLower(key)
		if !has {
			switch key {
			case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
				value = "true"
			default:
				return m, fmt.Errorf("invalid field '%s' must be a key=value pair", f)
			}
		}
		if err := mountField(&m, key, value); err != nil {
			return m, err
		}
	}
	return m, checkMount(&m)
}

func mountField(m *client.Mount, key, value string) error {
	switch {
	case strings.HasPrefix(key, "bind-"):
		return bindField(m, key, value)
	case strings.HasPrefix(key, "volume-"):
		return volumeField(m, key, value)
	case strings.HasPrefix(key, "tmpfs-"):
		return tmpfsField(m, key, value)
	}
	switch key {
	case "type":
		m.Type = strings.ToLower(value)
	case "source", "src":
		m.Source = value
		if strings.HasPrefix(value, "."+string(filepath.Separator)) || value == "." || strings.HasPrefix(value, "..") {
			m.Source = absPath(value)
		}
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		m.ReadOnly = on
	case "consistency":
		m.Consistency = strings.ToLower(value)
	case "image-subpath":
		m.ImageOptions = &client.SubpathOptions{Subpath: value}
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func bindField(m *client.Mount, key, value string) error {
	if m.BindOptions == nil {
		m.BindOptions = &client.BindOptions{}
	}
	o := m.BindOptions
	switch key {
	case "bind-propagation":
		o.Propagation = strings.ToLower(value)
	case "bind-nonrecursive":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		o.NonRecursive = on
	case "bind-create-src":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		o.CreateMountpoint = on
	case "bind-recursive":
		switch value {
		case "enabled":
		case "disabled":
			o.NonRecursive = true
		case "writable":
			o.ReadOnlyNonRecursive = true
		case "readonly":
			o.ReadOnlyForceRecursive = true
		default:
			return fmt.Errorf(`invalid value for %s: %s (must be "enabled", "disabled", "writable", or "readonly")`, key, value)
		}
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func volumeField(m *client.Mount, key, value string) error {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &client.VolumeOptions{}
	}
	o := m.VolumeOptions
	driver := func() *client.VolumeDriver {
		if o.DriverConfig == nil {
			o.DriverConfig = &client.VolumeDriver{}
		}
		return o.DriverConfig
	}
	set := func(dst *map[string]string) {
		if *dst == nil {
			*dst = map[string]string{}
		}
		k, v, _ := strings.Cut(value, "=")
		(*dst)[k] = v
	}
	switch key {
	case "volume-nocopy":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		o.NoCopy = on
	case "volume-subpath":
		o.Subpath = value
	case "volume-label":
		set(&o.Labels)
	case "volume-driver":
		driver().Name = value
	case "volume-opt":
		set(&driver().Options)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func tmpfsField(m *client.Mount, key, value string) error {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &client.TmpfsOptions{}
	}
	switch key {
	case "tmpfs-size":
		n, err := units.RAMInBytes(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		m.TmpfsOptions.SizeBytes = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		m.TmpfsOptions.Mode = uint32(n)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

// checkMount refuses options of another type of mount.
func checkMount(m *client.Mount) error {
	switch {
	case m.Type == "":
		return errors.New("type is required")
	case m.VolumeOptions != nil && m.Type != "volume":
		return fmt.Errorf("cannot mix 'volume-*' options with mount type '%s'", m.Type)
	case m.BindOptions != nil && m.Type != "bind":
		return fmt.Errorf("cannot mix 'bind-*' options with mount type '%s'", m.Type)
	case m.TmpfsOptions != nil && m.Type != "tmpfs":
		return fmt.Errorf("cannot mix 'tmpfs-*' options with mount type '%s'", m.Type)
	case m.ImageOptions != nil && m.Type != "image":
		return fmt.Errorf("cannot mix 'image-*' options with mount type '%s'", m.Type)
	case m.Target == "":
		return errors.New("target is required")
	}
	if o := m.BindOptions; o != nil {
		if o.ReadOnlyNonRecursive && !m.ReadOnly {
			return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
		}
		if o.ReadOnlyForceRecursive {
			if !m.ReadOnly {
				return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
			}
			if o.Propagation != "rprivate" {
				return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
			}
		}
	}
	return nil
}
