package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sort"
	"strconv"
	"strings"

	"skiff/client"
)

// body turns the flags and arguments into the body of the create request.
func (o *runOptions) body(c *command, args []string) (*client.CreateBody, error) {
	b := &client.CreateBody{HostConfig: &client.HostConfig{}}
	steps := []func(c *command, b *client.CreateBody) error{
		o.process, o.environment, o.health, o.namespaces, o.limits, o.ports, o.files, o.security, o.names, o.networks, o.lifetime,
	}
	b.Image = args[0]
	if len(args) > 1 {
		b.Cmd = args[1:]
	}
	for _, step := range steps {
		if err := step(c, b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// process sets what is run and how it is attached to.
func (o *runOptions) process(c *command, b *client.CreateBody) error {
	if o.entrypoint != "" {
		b.Entrypoint = []string{o.entrypoint}
	} else if c.changed("entrypoint") {
		b.Entrypoint = []string{""} // resets the image's
	}
	b.User, b.WorkingDir, b.Tty, b.OpenStdin = o.user, o.workdir, o.tty, o.interactive
	b.Hostname, b.Domainname = o.hostname, o.domainname
	b.StopSignal = o.stopSignal
	if c.changed("stop-timeout") {
		b.StopTimeout = &o.stopTimeout
	}
	for _, s := range o.attach {
		switch s {
		case "stdin":
			b.AttachStdin = true
		case "stdout":
			b.AttachStdout = true
		case "stderr":
			b.AttachStderr = true
		}
	}
	if o.interactive {
		b.AttachStdin = true
	}
	if len(o.attach) == 0 {
		b.AttachStdout, b.AttachStderr = true, true
	}
	b.StdinOnce = b.OpenStdin && b.AttachStdin
	if c.changed("init") {
		b.HostConfig.Init = &o.init
	}
	b.HostConfig.Privileged, b.HostConfig.GroupAdd = o.privileged, o.groupAdd
	b.HostConfig.CapAdd, b.HostConfig.CapDrop = capNames(o.capAdd, nil), capNames(o.capDrop, o.capAdd)
	b.HostConfig.Annotations, b.HostConfig.Sysctls = o.annotation, o.sysctl
	b.HostConfig.Runtime, b.HostConfig.Isolation = o.runtime, o.isolation
	return nil
}

// capNames writes capabilities as the kernel does (CAP_NET_ADMIN), sorted and each once. What is also added is not dropped.
func capNames(list, added []string) []string {
	var out []string
	skip := capSet(added)
	for name := range capSet(list) {
		if !skip[name] {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}

func capSet(list []string) map[string]bool {
	names := make(map[string]bool, len(list))
	for _, c := range list {
		c = strings.ToUpper(strings.TrimSpace(c))
		if c != "ALL" && c != "RESET" && !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		names[c] = true
	}
	return names
}

// environment reads the files of variables and labels; what the flags say goes after them.
func (o *runOptions) environment(_ *command, b *client.CreateBody) error {
	for _, f := range o.envFile {
		lines, err := readEnvFile(f, os.LookupEnv)
		if err != nil {
			return err
		}
		b.Env = append(b.Env, lines...)
	}
	b.Env = append(b.Env, o.env...)
	var labels []string
	for _, f := range o.labelFile {
		lines, err := readEnvFile(f, nil)
		if err != nil {
			return err
		}
		labels = append(labels, lines...)
	}
	b.Labels = pairs(append(labels, o.label...))
	return nil
}

func (o *runOptions) health(c *command, b *client.CreateBody) error {
	set := o.healthCmd != "" || o.healthInterval != 0 || o.healthTimeout != 0 || o.healthStartPeriod != 0 ||
		o.healthStartInterval != 0 || o.healthRetries != 0
	if o.noHealthcheck {
		if set {
			return errors.New("--no-healthcheck conflicts with --health-* options")
		}
		b.Healthcheck = &client.HealthConfig{Test: []string{"NONE"}}
		return nil
	}
	if !set {
		return nil
	}
	for _, v := range []struct {
		name string
		n    int64
	}{
		{"interval", int64(o.healthInterval)},
		{"timeout", int64(o.healthTimeout)},
		{"retries", int64(o.healthRetries)},
		{"start-period", int64(o.healthStartPeriod)},
		{"start-interval", int64(o.healthStartInterval)},
	} {
		if v.n < 0 {
			return fmt.Errorf("--health-%s cannot be negative", v.name)
		}
	}
	b.Healthcheck = &client.HealthConfig{
		Interval: int64(o.healthInterval), Timeout: int64(o.healthTimeout), Retries: o.healthRetries,
		StartPeriod: int64(o.healthStartPeriod), StartInterval: int64(o.healthStartInterval),
	}
	if o.healthCmd != "" {
		b.Healthcheck.Test = []string{"CMD-SHELL", o.healthCmd}
	}
	return nil
}

func (o *runOptions) namespaces(_ *command, b *client.CreateBody) error {
	h := b.HostConfig
	h.PidMode, h.IpcMode, h.UTSMode, h.UsernsMode, h.CgroupnsMode = o.pid, o.ipc, o.uts, o.userns, o.cgroupns
	other, isOther := strings.CutPrefix(o.pid, "container:")
	switch {
	case o.pid != "" && o.pid != "host" && (!isOther || other == ""):
		return errors.New("--pid: invalid PID mode")
	case o.uts != "" && o.uts != "host":
		return errors.New("--uts: invalid UTS mode")
	case o.userns != "" && o.userns != "host":
		return errors.New("--userns: invalid USER mode")
	case o.cgroupns != "" && o.cgroupns != "host" && o.cgroupns != "private":
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	return nil
}

func (o *runOptions) limits(c *command, b *client.CreateBody) error {
	for _, f := range []string{"cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"} {
		if c.changed(f) {
			return fmt.Errorf("\"--%s\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux", f)
		}
	}
	if c.changed("kernel-memory") {
		return errors.New("--kernel-memory is not supported: Linux has no such limit any more, use --memory")
	}
	if o.swappiness != -1 && (o.swappiness < 0 || o.swappiness > 100) {
		return fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", o.swappiness)
	}
	r := &b.HostConfig.Resources
	*r = client.Resources{
		CPUShares: o.cpuShares, Memory: o.memory, NanoCPUs: o.cpus, CgroupParent: o.cgroupParent,
		BlkioWeight: o.blkioWeight, BlkioWeightDevice: o.blkioWeightDevice,
		BlkioDeviceReadBps: o.readBps, BlkioDeviceWriteBps: o.writeBps,
		BlkioDeviceReadIOps: o.readIops, BlkioDeviceWriteIOps: o.writeIops,
		CPUPeriod: o.cpuPeriod, CPUQuota: o.cpuQuota, CPURealtimePeriod: o.cpuRtPeriod, CPURealtimeRuntime: o.cpuRtRuntime,
		CpusetCpus: o.cpusetCpus, CpusetMems: o.cpusetMems, DeviceCgroupRules: o.deviceRules,
		MemoryReservation: o.memoryReservation, MemorySwap: o.memorySwap, Ulimits: o.ulimit,
	}
	if o.swappiness != -1 {
		r.MemorySwappiness = &o.swappiness
	}
	if c.changed("oom-kill-disable") {
		r.OomKillDisable = &o.oomKillDisable
	}
	if c.changed("pids-limit") {
		r.PidsLimit = &o.pidsLimit
	}
	b.HostConfig.OomScoreAdj, b.HostConfig.ShmSize = o.oomScoreAdj, o.shmSize
	for _, d := range o.device {
		m, cdi, err := parseDevice(d)
		if err != nil {
			return err
		}
		if cdi {
			r.DeviceRequests = append(r.DeviceRequests, client.DeviceRequest{Driver: "cdi", DeviceIDs: []string{d}})
			continue
		}
		r.Devices = append(r.Devices, m)
	}
	for _, g := range o.gpus {
		req, err := parseGPUs(g)
		if err != nil {
			return err
		}
		r.DeviceRequests = append(r.DeviceRequests, req)
	}
	return nil
}

// security reads seccomp profiles: the daemon may be on another machine, so it gets the text.
func (o *runOptions) security(_ *command, b *client.CreateBody) error {
	for _, opt := range o.securityOpt {
		if opt == "systempaths=unconfined" {
			none, none2 := []string{}, []string{}
			b.HostConfig.MaskedPaths, b.HostConfig.ReadonlyPaths = &none, &none2
			continue
		}
		key, value, ok := strings.Cut(opt, "=")
		if !ok && key != "no-new-privileges" {
			if key, value, ok = strings.Cut(opt, ":"); !ok {
				//lint:ignore ST1005 docker's words
				return fmt.Errorf("Invalid --security-opt: %q", opt)
			}
		}
		if key == "seccomp" && value != "unconfined" && value != "builtin" {
			text, err := os.ReadFile(value)
			if err != nil {
				return fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
			}
			var compact bytes.Buffer
			if err := json.Compact(&compact, text); err != nil {
				return fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", value, err)
			}
			opt = "seccomp=" + compact.String()
		}
		b.HostConfig.SecurityOpt = append(b.HostConfig.SecurityOpt, opt)
	}
	return nil
}

// names sets what /etc/hosts and /etc/resolv.conf say, and links.
func (o *runOptions) names(_ *command, b *client.CreateBody) error {
	h := b.HostConfig
	h.DNS, h.DNSOptions, h.DNSSearch, h.ExtraHosts, h.Links = o.dns, o.dnsOption, o.dnsSearch, o.addHost, o.link
	if o.mac != "" {
		if _, err := net.ParseMAC(strings.TrimSpace(o.mac)); err != nil {
			return fmt.Errorf("%s is not a valid mac address", o.mac)
		}
	}
	return nil
}

// lifetime sets restart, removal and logs.
func (o *runOptions) lifetime(c *command, b *client.CreateBody) error {
	h := b.HostConfig
	p, err := parseRestart(o.restart)
	if err != nil {
		return err
	}
	if o.rm && p != nil {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	h.RestartPolicy, h.AutoRemove, h.ContainerIDFile = p, o.rm, o.cidfile
	if o.logDriver == "none" && len(o.logOpt) > 0 {
		return errors.New("invalid logging opts for driver none")
	}
	if o.logDriver != "" || len(o.logOpt) > 0 {
		h.LogConfig = &client.LogConfig{Type: o.logDriver, Config: pairs(o.logOpt)}
	}
	for _, s := range o.storageOpt {
		if !strings.Contains(s, "=") {
			return fmt.Errorf("invalid storage option")
		}
	}
	h.StorageOpt = pairs(o.storageOpt)
	if o.apiSocket {
		return errors.New("--use-api-socket is not supported: mount the daemon's socket with -v and hand credentials over with -e")
	}
	return nil
}

func parseRestart(s string) (*client.RestartPolicy, error) {
	if s == "" || s == "no" {
		return nil, nil
	}
	name, count, has := strings.Cut(s, ":")
	if has && name == "" {
		return nil, errors.New("invalid restart policy format: no policy provided before colon")
	}
	p := &client.RestartPolicy{Name: name}
	if count != "" {
		n, err := strconv.Atoi(count)
		if err != nil {
			return nil, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	return p, nil
}

// parseDevice reads path[:path[:permissions]]. cdi says that it is the name of a CDI device (vendor/class=name).
func parseDevice(s string) (m client.DeviceMapping, cdi bool, err error) {
	if !strings.HasPrefix(s, "/") {
		vendor, rest, ok := strings.Cut(s, "/")
		class, name, ok2 := strings.Cut(rest, "=")
		if ok && ok2 && vendor != "" && class != "" && name != "" {
			return m, true, nil
		}
		return m, false, fmt.Errorf("%s is not an absolute path", s)
	}
	mode := func(p string) bool {
		return p != "" && strings.Trim(p, "rwm") == "" && strings.Count(p, "r") < 2 && strings.Count(p, "w") < 2 && strings.Count(p, "m") < 2
	}
	m = client.DeviceMapping{CgroupPermissions: "rwm"}
	parts := strings.Split(s, ":")
	switch {
	case len(parts) > 3:
		return m, false, fmt.Errorf("invalid device specification: %s", s)
	case len(parts) == 3:
		m.CgroupPermissions, m.PathInContainer = parts[2], parts[1]
	case len(parts) == 2 && mode(parts[1]):
		m.CgroupPermissions = parts[1]
	case len(parts) == 2:
		m.PathInContainer = parts[1]
	}
	m.PathOnHost = parts[0]
	if m.PathInContainer == "" {
		m.PathInContainer = m.PathOnHost
	}
	if !strings.HasPrefix(m.PathInContainer, "/") {
		return m, false, fmt.Errorf("%s is not an absolute path", m.PathInContainer)
	}
	if !mode(m.CgroupPermissions) {
		return m, false, fmt.Errorf("bad mode specified: %s", m.CgroupPermissions)
	}
	return m, false, nil
}

// parseGPUs reads --gpus: "all", a number, or driver=,count=,device=,capabilities=,options=.
func parseGPUs(s string) (client.DeviceRequest, error) {
	req := client.DeviceRequest{}
	fields, err := csvFields(s)
	if err != nil {
		return req, err
	}
	seen := map[string]bool{}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			key, value = "count", f
		}
		if seen[key] {
			return req, fmt.Errorf("gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		switch key {
		case "driver":
			req.Driver = value
		case "count":
			if value == "all" {
				req.Count = -1
				break
			}
			if req.Count, err = strconv.Atoi(value); err != nil {
				return req, fmt.Errorf("invalid count (%s): value must be either \"all\" or an integer: %w", value, errors.Unwrap(err))
			}
		case "device":
			req.DeviceIDs = strings.Split(value, ",")
		case "capabilities":
			req.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case "options":
			req.Options = pairs(strings.Split(value, ","))
		default:
			return req, fmt.Errorf("unexpected key '%s' in '%s'", key, f)
		}
	}
	if !seen["count"] && len(req.DeviceIDs) == 0 {
		req.Count = 1
	}
	if req.Capabilities == nil {
		req.Capabilities = [][]string{{"gpu"}}
	}
	return req, nil
}

func checkAttach(s string) (string, error) {
	switch l := strings.ToLower(s); l {
	case "stdin", "stdout", "stderr":
		return l, nil
	}
	return "", errors.New("valid streams are STDIN, STDOUT and STDERR")
}

func checkLabel(s string) (string, error) {
	if key, _, _ := strings.Cut(s, "="); key == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", s)
	}
	return s, nil
}

func checkPair(s string) (string, error) {
	if key, _, ok := strings.Cut(s, "="); !ok || key == "" {
		return "", fmt.Errorf("'%s' is not key=value", s)
	}
	return s, nil
}

func checkIP(s string) (string, error) {
	ip, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return "", fmt.Errorf("IP address is not correctly formatted: %s", s)
	}
	return ip.String(), nil
}

// checkExtraHost reads host:ip or host=ip; the address may be in brackets, or "host-gateway".
func checkExtraHost(s string) (string, error) {
	name, ip, ok := strings.Cut(s, "=")
	if !ok {
		name, ip, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" {
		return "", fmt.Errorf("bad format for add-host: %q", s)
	}
	if ip == "host-gateway" {
		return name + ":" + ip, nil
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return name + ":" + ip, nil
}

func checkSearch(s string) (string, error) {
	d := strings.TrimSpace(s)
	if d == "." {
		return d, nil
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(d, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", fmt.Errorf("invalid domain: %s", s)
		}
	}
	return d, nil
}

func checkLink(s string) (string, error) {
	if s == "" {
		return "", errors.New("empty string specified for links")
	}
	if strings.Count(s, ":") > 1 {
		return "", fmt.Errorf("bad format for links: %s", s)
	}
	return s, nil
}

// checkDeviceRule checks "c 1:3 rwm" (cgroup v1, devices.allow).
func checkDeviceRule(s string) (string, error) {
	bad := fmt.Errorf("invalid device cgroup format '%s'", s)
	f := strings.Split(s, " ")
	if len(f) != 3 || len(f[0]) != 1 || !strings.Contains("acb", f[0]) {
		return "", bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	number := func(n string) bool { return n == "*" || n != "" && strings.Trim(n, "0123456789") == "" }
	if !ok || !number(major) || !number(minor) || f[2] == "" || len(f[2]) > 3 || strings.Trim(f[2], "rwm") != "" {
		return "", bad
	}
	return s, nil
}
