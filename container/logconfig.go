package container

import (
	"bytes"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"

	"skiff/internal/errs"
	"skiff/keeper"
	"skiff/keeper/logfile"
)

// Bounds of a log that nobody configured. Those of "local" are Docker's; Docker's json-file has none and fills disks.
const (
	logMaxSize       = 20 << 20
	jsonLogMaxFiles  = 3
	localLogMaxFiles = 5
)

// Drivers of Docker that are not there.
var missingDrivers = []string{"awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "splunk", "syslog"}

var logOptions = map[string][]string{
	logfile.DriverJSON:  {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"},
	logfile.DriverLocal: {"max-size", "max-file", "compress"},
}

// completeLogConfig gives the driver and options with the defaults; options belong to the driver they were given with.
func completeLogConfig(asked, byDefault api.LogConfig) (api.LogConfig, error) {
	c := api.LogConfig{Type: asked.Type, Config: map[string]string{}}
	if c.Type == "" {
		if c.Type = byDefault.Type; c.Type == "" {
			c.Type = logfile.DriverJSON
		}
	}
	if c.Type == byDefault.Type {
		c.Config = overlay(c.Config, byDefault.Config)
	}
	if c.Config = overlay(c.Config, asked.Config); c.Config == nil {
		c.Config = map[string]string{}
	}
	if c.Type == logfile.DriverNone {
		return c, nil
	}
	if slices.Contains(missingDrivers, c.Type) {
		return c, errs.New(errs.NotImplemented, "the log driver %s is not implemented", c.Type)
	}
	known, ok := logOptions[c.Type]
	if !ok {
		return c, errs.New(errs.Invalid, "logger: no log driver named '%s' is registered", c.Type)
	}
	for key, value := range c.Config {
		switch key {
		case "mode":
			// Both modes behave alike: the keeper never makes a container wait for its log.
			if value != string(api.LogModeBlocking) && value != string(api.LogModeNonBlock) {
				return c, errs.New(errs.Invalid, "logger: logging mode not supported: %s", value)
			}
		case "max-buffer-size":
			if c.Config["mode"] != string(api.LogModeNonBlock) {
				return c, errs.New(errs.Invalid, "logger: max-buffer-size option is only supported with 'mode=%s'", api.LogModeNonBlock)
			}
			if _, err := units.RAMInBytes(value); err != nil {
				return c, errs.New(errs.Invalid, "error parsing option max-buffer-size: %w", err)
			}
		default:
			if !slices.Contains(known, key) {
				return c, errs.New(errs.Invalid, "unknown log opt '%s' for %s log driver", key, c.Type)
			}
		}
	}
	return c, nil
}

// logTo compiles the options into what the keeper needs. dir is the container's folder.
func logTo(d *definition, dir string) (keeper.LogConfig, error) {
	c := d.HostConfig.LogConfig
	l := keeper.LogConfig{Driver: c.Type, MaxSize: logMaxSize, MaxFiles: jsonLogMaxFiles}
	switch c.Type {
	case logfile.DriverNone:
		return keeper.LogConfig{Driver: c.Type}, nil
	case logfile.DriverJSON:
		l.Path = filepath.Join(dir, d.ID+"-json.log")
	default:
		l.Path = filepath.Join(dir, "local.log")
		l.MaxFiles, l.Compress = localLogMaxFiles, true
	}
	if s, ok := c.Config["max-size"]; ok && s != "-1" {
		n, err := units.FromHumanSize(s)
		if err != nil || n <= 0 {
			return l, errs.New(errs.Invalid, "invalid value %q for log opt max-size: a positive number of bytes, with k, m or g, or -1 is needed", s)
		}
		l.MaxSize = n
	} else if ok {
		l.MaxSize = -1
	}
	if s, ok := c.Config["max-file"]; ok {
		n, err := strconv.Atoi(s)
		if err != nil {
			return l, errs.New(errs.Invalid, "invalid value %q for log opt max-file: a number is needed", s)
		}
		if n < 1 {
			return l, errs.New(errs.Invalid, "max-file cannot be less than 1")
		}
		l.MaxFiles = n
	}
	if s, ok := c.Config["compress"]; ok {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return l, errs.New(errs.Invalid, "invalid value %q for log opt compress: true or false is needed", s)
		}
		if b && (l.MaxFiles == 1 || l.MaxSize < 0) {
			return l, errs.New(errs.Invalid, "compress cannot be true when max-file is less than 2 or max-size is not set")
		}
		l.Compress = b
	}
	var err error
	l.Attrs, err = logAttrs(d)
	return l, err
}

// logAttrs are the attributes that json-file adds to each line: chosen labels and variables, and the tag.
func logAttrs(d *definition) (map[string]string, error) {
	opt := d.HostConfig.LogConfig.Config
	attrs := map[string]string{}
	labels, err := chooser(opt, "labels")
	if err != nil {
		return nil, err
	}
	for k, v := range d.Config.Labels {
		if labels(k) {
			attrs[k] = v
		}
	}
	env, err := chooser(opt, "env")
	if err != nil {
		return nil, err
	}
	for _, e := range d.Config.Env {
		if k, v, ok := strings.Cut(e, "="); ok && env(k) {
			attrs[k] = v
		}
	}
	if opt["tag"] != "" {
		tag, err := logTag(opt["tag"], d)
		if err != nil {
			return nil, err
		}
		attrs["tag"] = tag
	}
	if len(attrs) == 0 {
		return nil, nil
	}
	return attrs, nil
}

// chooser tells whether a key is in the option's comma-separated list or matches the option of the same name with -regex.
func chooser(opt map[string]string, name string) (func(string) bool, error) {
	list := strings.Split(opt[name], ",")
	var re *regexp.Regexp
	if s := opt[name+"-regex"]; s != "" {
		var err error
		if re, err = regexp.Compile(s); err != nil {
			return nil, errs.New(errs.Invalid, "invalid log opt %s-regex: %w", name, err)
		}
	}
	return func(key string) bool {
		return slices.Contains(list, key) || re != nil && re.MatchString(key)
	}, nil
}

// tagFields are what a tag's template may use.
type tagFields struct {
	ID, FullID, Name, ImageID, ImageFullID, ImageName, Command, DaemonName string
}

func logTag(text string, d *definition) (string, error) {
	t, err := template.New("tag").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", errs.New(errs.Invalid, "invalid log opt tag %q: %w", text, err)
	}
	var out bytes.Buffer
	err = t.Execute(&out, tagFields{
		ID: shortID(d.ID), FullID: d.ID, Name: d.Name,
		ImageID: shortID(d.Image.Encoded()), ImageFullID: d.Image.String(), ImageName: d.Config.Image,
		Command: strings.Join(d.command(), " "), DaemonName: "skiff",
	})
	if err != nil {
		return "", errs.New(errs.Invalid, "invalid log opt tag %q: %w", text, err)
	}
	return out.String(), nil
}
