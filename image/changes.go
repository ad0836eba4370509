package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"skiff/internal/errs"
)

// ApplyChanges carries out Dockerfile instructions that change a configuration alone, as docker import --change and
// docker commit --change take them.
func ApplyChanges(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	for _, line := range changes {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		word, args, _ := strings.Cut(line, " ")
		if i := strings.IndexByte(word, '\t'); i >= 0 {
			word, args = line[:i], line[i+1:]
		}
		if err := applyChange(c, strings.ToUpper(word), strings.TrimSpace(args)); err != nil {
			return errs.New(errs.Invalid, "change %q: %w", line, err)
		}
	}
	return nil
}

func applyChange(c *dockerspec.DockerOCIImageConfig, word, args string) error {
	if args == "" && word != "CMD" && word != "ENTRYPOINT" {
		return fmt.Errorf("%s requires an argument", word)
	}
	switch word {
	case "CMD":
		c.Cmd = command(args)
	case "ENTRYPOINT":
		c.Entrypoint = command(args)
	case "ENV", "LABEL":
		return assign(c, word, args)
	case "EXPOSE":
		return expose(c, strings.Fields(args))
	case "USER":
		c.User = unquote(args)
	case "WORKDIR":
		dir := unquote(args)
		if !path.IsAbs(dir) {
			dir = path.Join("/", c.WorkingDir, dir)
		}
		c.WorkingDir = path.Clean(dir)
	case "VOLUME":
		vols, ok := list(args)
		if !ok {
			vols = strings.Fields(args)
		}
		c.Volumes = cloned(c.Volumes)
		for _, v := range vols {
			if v == "" {
				return fmt.Errorf("VOLUME specified can not be an empty string")
			}
			c.Volumes[v] = struct{}{}
		}
	case "ONBUILD":
		switch trigger, _, _ := strings.Cut(args, " "); strings.ToUpper(trigger) {
		case "ONBUILD", "FROM", "MAINTAINER":
			return fmt.Errorf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(trigger))
		}
		c.OnBuild = append(c.OnBuild[:len(c.OnBuild):len(c.OnBuild)], args)
	case "STOPSIGNAL":
		c.StopSignal = unquote(args)
	case "SHELL":
		sh, ok := list(args)
		if !ok || len(sh) == 0 {
			return fmt.Errorf("SHELL requires the arguments to be in JSON form")
		}
		c.Shell = sh
	case "HEALTHCHECK":
		h, err := healthcheck(args)
		c.Healthcheck = h
		return err
	default:
		return fmt.Errorf("%s is not a valid change command", word)
	}
	return nil
}

// command is the exec form if it is a JSON list, else the shell form.
func command(args string) []string {
	if l, ok := list(args); ok {
		return l
	}
	if args == "" {
		return nil
	}
	return []string{"/bin/sh", "-c", args}
}

func list(args string) ([]string, bool) {
	var l []string
	if !strings.HasPrefix(args, "[") || json.Unmarshal([]byte(args), &l) != nil {
		return nil, false
	}
	return l, true
}

func cloned(m map[string]struct{}) map[string]struct{} {
	if m == nil {
		return map[string]struct{}{}
	}
	return maps.Clone(m)
}

func unquote(s string) string {
	w, err := words(s)
	if err != nil || len(w) != 1 {
		return s
	}
	return w[0]
}

// assign handles "K=V K2='V 2'" and the old "K the rest".
func assign(c *dockerspec.DockerOCIImageConfig, word, args string) error {
	var pairs [][2]string
	first, rest, _ := strings.Cut(args, " ")
	if !strings.Contains(first, "=") {
		pairs = [][2]string{{first, strings.TrimSpace(rest)}}
	} else {
		ws, err := words(args)
		if err != nil {
			return err
		}
		for _, w := range ws {
			k, v, ok := strings.Cut(w, "=")
			if !ok || k == "" {
				return fmt.Errorf("syntax error - can't find = in %q. Must be of the form: name=value", w)
			}
			pairs = append(pairs, [2]string{k, v})
		}
	}
	if word == "LABEL" {
		c.Labels = maps.Clone(c.Labels)
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
	}
	for _, p := range pairs {
		if word == "LABEL" {
			c.Labels[p[0]] = p[1]
			continue
		}
		env := make([]string, 0, len(c.Env)+1)
		done := false
		for _, e := range c.Env {
			if k, _, _ := strings.Cut(e, "="); k == p[0] {
				e, done = p[0]+"="+p[1], true
			}
			env = append(env, e)
		}
		if !done {
			env = append(env, p[0]+"="+p[1])
		}
		c.Env = env
	}
	return nil
}

// words splits as a shell does: blanks part, quotes and backslashes keep together.
func words(s string) ([]string, error) {
	var out []string
	var b strings.Builder
	in, quote := false, rune(0)
	esc := false
	for _, r := range s {
		switch {
		case esc:
			if quote == '"' && r != '"' && r != '\\' && r != '$' {
				b.WriteByte('\\')
			}
			b.WriteRune(r)
			esc = false
		case r == '\\' && quote != '\'':
			esc, in = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				b.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, in = r, true
		case r == ' ' || r == '\t':
			if in {
				out = append(out, b.String())
				b.Reset()
				in = false
			}
		default:
			b.WriteRune(r)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unexpected end of statement while looking for matching %q", quote)
	}
	if in {
		out = append(out, b.String())
	}
	return out, nil
}

// expose takes ports and ranges: 80, 53/udp, 8000-8010/tcp.
func expose(c *dockerspec.DockerOCIImageConfig, ports []string) error {
	c.ExposedPorts = cloned(c.ExposedPorts)
	for _, p := range ports {
		ports, proto, ok := strings.Cut(strings.ToLower(p), "/")
		if !ok {
			proto = "tcp"
		}
		if proto != "tcp" && proto != "udp" && proto != "sctp" {
			return fmt.Errorf("invalid proto: %s", proto)
		}
		from, to, isRange := strings.Cut(ports, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || a == 0 || b < a {
			return fmt.Errorf("invalid containerPort: %s", p)
		}
		for n := a; n <= b; n++ {
			c.ExposedPorts[strconv.FormatUint(n, 10)+"/"+proto] = struct{}{}
		}
	}
	return nil
}

// healthcheck reads NONE, or [--interval=… --timeout=… --start-period=… --start-interval=… --retries=…] CMD command.
func healthcheck(args string) (*dockerspec.HealthcheckConfig, error) {
	h := &dockerspec.HealthcheckConfig{}
	for strings.HasPrefix(args, "--") {
		opt, rest, _ := strings.Cut(args, " ")
		args = strings.TrimSpace(rest)
		k, v, _ := strings.Cut(strings.TrimPrefix(opt, "--"), "=")
		if k == "retries" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 {
				return nil, fmt.Errorf("--retries must be at least 0, not %q", v)
			}
			h.Retries = n
			continue
		}
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return nil, fmt.Errorf("--%s: %q is not a duration", k, v)
		}
		switch k {
		case "interval":
			h.Interval = d
		case "timeout":
			h.Timeout = d
		case "start-period":
			h.StartPeriod = d
		case "start-interval":
			h.StartInterval = d
		default:
			return nil, fmt.Errorf("unknown flag --%s", k)
		}
	}
	kind, cmd, _ := strings.Cut(args, " ")
	cmd = strings.TrimSpace(cmd)
	switch strings.ToUpper(kind) {
	case "NONE":
		h.Test = []string{"NONE"}
	case "CMD":
		if l, ok := list(cmd); ok {
			h.Test = append([]string{"CMD"}, l...)
		} else {
			h.Test = []string{"CMD-SHELL", cmd}
		}
	default:
		return nil, fmt.Errorf("unknown type %q in HEALTHCHECK (try CMD)", kind)
	}
	return h, nil
}
