package container

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"skiff/internal/errs"
)

// listFilters are the keys that a list may be filtered by.
var listFilters = []string{
	"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
	"publish", "since", "status", "volume",
}

// test decides on one container.
type test func(*definition, *status) bool

// filter is a conjunction of tests.
type filter []test

func (f filter) match(d *definition, s *status) bool {
	for _, t := range f {
		if !t(d, s) {
			return false
		}
	}
	return true
}

// newFilter compiles the options. Different keys must all match, of a key's values one (of labels, all).
func (m *Manager) newFilter(ctx context.Context, opt ListOptions) (filter, error) {
	all := opt.All || opt.Limit > 0
	var f filter
	for _, key := range slices.Sorted(maps.Keys(opt.Filters)) {
		values := opt.Filters[key]
		if !slices.Contains(listFilters, key) {
			return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
		if len(values) == 0 {
			continue
		}
		t, err := m.compile(ctx, key, values)
		if err != nil {
			return nil, err
		}
		f = append(f, t)
		switch key {
		case "status", "exited", "before", "since":
			all = true
		}
	}
	if !all {
		f = append(filter{func(_ *definition, s *status) bool { return s.alive() }}, f...)
	}
	return f, nil
}

func (m *Manager) compile(ctx context.Context, key string, values []string) (test, error) {
	switch key {
	case "id":
		return anyOf(values, func(v string, d *definition, _ *status) bool { return strings.HasPrefix(d.ID, v) }), nil
	case "name":
		return nameTest(values)
	case "label":
		return labelTest(values), nil
	case "status":
		for _, v := range values {
			if err := api.ValidateContainerState(api.ContainerState(v)); err != nil {
				return nil, errs.New(errs.Invalid, "invalid filter 'status=%s': %w", v, err)
			}
		}
		return anyOf(values, func(v string, _ *definition, s *status) bool { return string(s.Phase) == v }), nil
	case "exited":
		return exitedTest(values)
	case "ancestor":
		return m.ancestorTest(ctx, values), nil
	case "before", "since":
		return m.ageTest(key, values)
	case "network":
		return networkTest(values), nil
	case "publish", "expose":
		return portTest(key, values)
	case "health":
		return healthTest(values)
	case "is-task":
		return taskTest(values)
	case "isolation":
		return anyOf(values, func(v string, d *definition, _ *status) bool { return string(d.HostConfig.Isolation) == v }), nil
	default: // volume
		return volumeTest(values), nil
	}
}

func anyOf(values []string, f func(v string, d *definition, s *status) bool) test {
	return func(d *definition, s *status) bool {
		return slices.ContainsFunc(values, func(v string) bool { return f(v, d, s) })
	}
}

// nameTest takes regular expressions, which may be anchored at the name or at the slash before it.
func nameTest(values []string) (test, error) {
	var res []*regexp.Regexp
	for _, v := range values {
		re, err := regexp.Compile(v)
		if err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter 'name=%s': %w", v, err)
		}
		res = append(res, re)
	}
	return func(d *definition, _ *status) bool {
		return slices.ContainsFunc(res, func(re *regexp.Regexp) bool {
			return re.MatchString("/"+d.Name) || re.MatchString(d.Name)
		})
	}, nil
}

func labelTest(values []string) test {
	return func(d *definition, _ *status) bool {
		for _, v := range values {
			key, want, valued := strings.Cut(v, "=")
			if have, ok := d.Config.Labels[key]; !ok || valued && have != want {
				return false
			}
		}
		return true
	}
}

func exitedTest(values []string) (test, error) {
	var codes []int
	for _, v := range values {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter 'exited=%s': a number is needed", v)
		}
		codes = append(codes, n)
	}
	return func(_ *definition, s *status) bool {
		return !s.alive() && !s.FinishedAt.IsZero() && slices.Contains(codes, s.ExitCode)
	}, nil
}

// ancestorTest finds the containers of an image. An unknown image has none; descendants by layers are not searched for.
func (m *Manager) ancestorTest(ctx context.Context, values []string) test {
	ids := map[string]bool{}
	for _, v := range values {
		if img, err := m.cfg.Images.Resolve(ctx, v, nil); err == nil {
			ids[img.ID.String()] = true
		}
	}
	return func(d *definition, _ *status) bool {
		return ids[d.Image.String()] || slices.Contains(values, d.Config.Image)
	}
}

func (m *Manager) ageTest(key string, values []string) (test, error) {
	if len(values) > 1 {
		return nil, errs.New(errs.Invalid, "invalid filter '%s': only one value is possible", key)
	}
	o, err := m.index.find(values[0])
	if err != nil {
		return nil, err
	}
	at := o.def().Created
	return func(d *definition, _ *status) bool {
		if d.ID == o.id {
			return false
		}
		if key == "before" {
			return d.Created.Before(at)
		}
		return d.Created.After(at)
	}, nil
}

func networkTest(values []string) test {
	return anyOf(values, func(v string, d *definition, s *status) bool {
		if string(d.HostConfig.NetworkMode) == v {
			return true
		}
		return s.Endpoint != nil && s.Endpoint.NetworkID != "" && v != "" && strings.HasPrefix(s.Endpoint.NetworkID, v)
	})
}

// portTest matches ports or ranges, "80", "80/udp", "8000-8010/tcp": of the container (expose) or on the host (publish).
func portTest(key string, values []string) (test, error) {
	var ranges []apinetwork.PortRange
	for _, v := range values {
		r, err := apinetwork.ParsePortRange(v)
		if err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter '%s=%s': %w", key, v, err)
		}
		ranges = append(ranges, r)
	}
	has := func(num uint16, proto apinetwork.IPProtocol) bool {
		return slices.ContainsFunc(ranges, func(r apinetwork.PortRange) bool {
			return proto == r.Proto() && r.Start() <= num && num <= r.End()
		})
	}
	return func(d *definition, s *status) bool {
		if key == "expose" {
			for p := range d.Config.ExposedPorts {
				if has(p.Num(), p.Proto()) {
					return true
				}
			}
		}
		for p, bindings := range published(d.Config, d.HostConfig) {
			if key == "expose" && has(p.Num(), p.Proto()) {
				return true
			}
			if key == "publish" && hostPort(p, bindings, has) {
				return true
			}
		}
		if key == "publish" && s.Endpoint != nil {
			for p, bindings := range s.Endpoint.Ports {
				if hostPort(p, bindings, has) {
					return true
				}
			}
		}
		return false
	}, nil
}

func hostPort(p apinetwork.Port, bindings []apinetwork.PortBinding, has func(uint16, apinetwork.IPProtocol) bool) bool {
	return slices.ContainsFunc(bindings, func(b apinetwork.PortBinding) bool {
		n, err := strconv.ParseUint(b.HostPort, 10, 16)
		return err == nil && n > 0 && has(uint16(n), p.Proto())
	})
}

// healthTest: no container has a health yet.
func healthTest(values []string) (test, error) {
	for _, v := range values {
		if err := api.ValidateHealthStatus(api.HealthStatus(v)); err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter 'health=%s': %w", v, err)
		}
	}
	none := slices.Contains(values, string(api.NoHealthcheck))
	return func(*definition, *status) bool { return none }, nil
}

// taskTest: no container is a service's task yet.
func taskTest(values []string) (test, error) {
	want := false
	for _, v := range values {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter 'is-task=%s': true or false is needed", v)
		}
		want = b
	}
	return func(*definition, *status) bool { return !want }, nil
}

// volumeTest matches a mount's source or destination.
func volumeTest(values []string) test {
	return anyOf(values, func(v string, d *definition, _ *status) bool {
		return slices.ContainsFunc(mountPoints(d), func(mp api.MountPoint) bool {
			return mp.Name == v || mp.Source == v || mp.Destination == v
		})
	})
}

// pruneFilters are the keys that pruning knows.
var pruneFilters = []string{"label", "label!", "until"}

// pruneTest compiles the filters of a prune: "until" is a time or a duration before now.
func pruneTest(filters map[string][]string, now time.Time) (test, error) {
	until := time.Time{}
	for key, values := range filters {
		if !slices.Contains(pruneFilters, key) {
			return nil, errs.New(errs.Invalid, "invalid filter '%s'", key)
		}
		if key != "until" || len(values) == 0 {
			continue
		}
		if len(values) > 1 {
			return nil, errs.New(errs.Invalid, "more than one until filter specified")
		}
		t, err := pointInTime(values[0], now)
		if err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter 'until=%s': %w", values[0], err)
		}
		until = t
	}
	with := labelTest(filters["label"])
	without := filters["label!"]
	return func(d *definition, s *status) bool {
		return with(d, s) && (len(without) == 0 || !labelTest(without)(d, s)) && (until.IsZero() || d.Created.Before(until))
	}, nil
}

func pointInTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Unix(int64(f), int64((f-float64(int64(f)))*1e9)), nil
	}
	var first error
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		t, err := time.ParseInLocation(layout, s, time.Local)
		if err == nil {
			return t, nil
		}
		if first == nil {
			first = err
		}
	}
	return time.Time{}, first
}
