package container

import (
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"skiff/internal/errs"
)

var hostnameLabel = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?$`)

// mergeConfig gives the configuration of a new container: what the caller asked for, and the image's where he is silent,
// by the same rules as dockerd. Neither argument is changed.
func mergeConfig(asked *api.Config, image dockerspec.DockerOCIImageConfig) (*api.Config, error) {
	c := *asked
	if c.User == "" {
		c.User = image.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = image.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = image.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = image.Shell
	}
	ports := apinetwork.PortSet{}
	for p := range image.ExposedPorts {
		parsed, err := apinetwork.ParsePort(p)
		if err != nil {
			return nil, errs.New(errs.Invalid, "the image exposes an invalid port %q: %w", p, err)
		}
		ports[parsed] = struct{}{}
	}
	maps.Copy(ports, c.ExposedPorts)
	if c.ExposedPorts = ports; len(ports) == 0 {
		c.ExposedPorts = nil
	}
	c.Env = mergeEnv(c.Env, image.Env)
	if c.Labels = overlay(image.Labels, c.Labels); c.Labels == nil {
		c.Labels = map[string]string{} // null in the API breaks those who look one up
	}
	c.Volumes = overlay(image.Volumes, c.Volumes)
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = image.Cmd
		}
		// A nil entry point is silence, an empty one resets the image's.
		if c.Entrypoint == nil {
			c.Entrypoint = image.Entrypoint
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
	c.Healthcheck = mergeHealthcheck(c.Healthcheck, image.Healthcheck)
	c.WorkingDir = cleanDir(c.WorkingDir)
	return &c, checkConfig(&c)
}

func cleanDir(dir string) string {
	if dir == "" {
		return ""
	}
	return path.Clean(dir)
}

// overlay is the union of both maps; upper wins. It is nil if both are empty.
func overlay[V any](lower, upper map[string]V) map[string]V {
	if len(lower)+len(upper) == 0 {
		return nil
	}
	m := make(map[string]V, len(lower)+len(upper))
	maps.Copy(m, lower)
	maps.Copy(m, upper)
	return m
}

// mergeEnv adds those of the image's variables that are not set.
func mergeEnv(asked, image []string) []string {
	set := map[string]bool{}
	for _, e := range asked {
		key, _, _ := strings.Cut(e, "=")
		set[key] = true
	}
	out := slices.Clone(asked)
	for _, e := range image {
		if key, _, _ := strings.Cut(e, "="); !set[key] {
			out = append(out, e)
		}
	}
	return out
}

func mergeHealthcheck(asked, image *api.HealthConfig) *api.HealthConfig {
	if asked == nil || image == nil {
		if asked == nil {
			return image
		}
		return asked
	}
	h := *asked
	if len(h.Test) == 0 {
		h.Test = image.Test
	}
	for _, d := range []struct{ to, from *time.Duration }{
		{&h.Interval, &image.Interval},
		{&h.Timeout, &image.Timeout},
		{&h.StartPeriod, &image.StartPeriod},
		{&h.StartInterval, &image.StartInterval},
	} {
		if *d.to == 0 {
			*d.to = *d.from
		}
	}
	if h.Retries == 0 {
		h.Retries = image.Retries
	}
	return &h
}

// checkConfig refuses what dockerd refuses, in its words.
func checkConfig(c *api.Config) error {
	if len(c.Entrypoint)+len(c.Cmd) == 0 {
		return errs.New(errs.Invalid, "no command specified")
	}
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return errs.New(errs.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	if err := checkEnv(c.Env); err != nil {
		return err
	}
	if err := checkHostname(c.Hostname); err != nil {
		return err
	}
	if _, err := stopSignal("", c.StopSignal); err != nil {
		return err
	}
	if h := c.Healthcheck; h != nil {
		for _, d := range []struct {
			name  string
			value time.Duration
		}{
			{"Interval", h.Interval},
			{"Timeout", h.Timeout},
			{"StartPeriod", h.StartPeriod},
			{"StartInterval", h.StartInterval},
		} {
			if d.value != 0 && d.value < api.MinimumDuration {
				return errs.New(errs.Invalid, "%s in Healthcheck cannot be less than %s", d.name, api.MinimumDuration)
			}
		}
		if h.Retries < 0 {
			return errs.New(errs.Invalid, "Retries in Healthcheck cannot be negative")
		}
	}
	return nil
}

func checkEnv(env []string) error {
	for _, e := range env {
		if key, _, _ := strings.Cut(e, "="); key == "" || strings.ContainsRune(e, 0) {
			return errs.New(errs.Invalid, "invalid environment variable: %s", e)
		}
	}
	return nil
}

// checkHostname follows sethostname(2)'s limit and RFC 1123 with underscores, which Docker allows.
func checkHostname(name string) error {
	if name == "" {
		return nil
	}
	bad := len(name) > 64
	for label := range strings.SplitSeq(name, ".") {
		bad = bad || len(label) > 63 || !hostnameLabel.MatchString(label)
	}
	if bad {
		return errs.New(errs.Invalid, "invalid hostname format: %s", name)
	}
	return nil
}

// setHostname gives a container without a hostname its own: the short id, or the host's name if it shares the host's.
func setHostname(c *api.Config, host *api.HostConfig, id string) error {
	if host.UTSMode.IsHost() && (c.Hostname != "" || c.Domainname != "") {
		return errs.New(errs.Invalid, "conflicting options: hostname and the UTS mode")
	}
	if host.NetworkMode.IsContainer() && c.Hostname != "" {
		return errs.New(errs.Invalid, "conflicting options: hostname and the network mode")
	}
	if c.Hostname != "" {
		return nil
	}
	if host.NetworkMode.IsHost() || host.UTSMode.IsHost() {
		name, err := os.Hostname()
		if err != nil {
			return errs.New(errs.Internal, "read the host's name: %w", err)
		}
		c.Hostname = name
		return nil
	}
	c.Hostname = shortID(id)
	return nil
}
