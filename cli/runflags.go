package cli

import (
	"context"
	"os"
	"time"

	"skiff/client"
)

// runOptions are the flags of create and run that describe the container.
type runOptions struct {
	addHost, attach, capAdd, capDrop, device, deviceRules   []string
	dns, dnsOption, dnsSearch, env, envFile, expose         []string
	groupAdd, label, labelFile, link, linkLocalIP, logOpt   []string
	mount, network, networkAlias, publish, securityOpt      []string
	storageOpt, tmpfs, volume, volumesFrom                  []string
	annotation, sysctl                                      map[string]string
	blkioWeight                                             uint16
	blkioWeightDevice                                       []client.WeightDevice
	readBps, readIops, writeBps, writeIops                  []client.ThrottleDevice
	cgroupParent, cgroupns, cidfile, cpusetCpus, cpusetMems string
	cpuCount, cpuPercent, cpuPeriod, cpuQuota               int64
	cpuRtPeriod, cpuRtRuntime, cpuShares, cpus              int64
	domainname, entrypoint                                  string
	gpus                                                    []string
	healthCmd                                               string
	healthInterval, healthStartInterval, healthStartPeriod  time.Duration
	healthTimeout                                           time.Duration
	healthRetries                                           int
	hostname, ip, ip6, ipc, isolation, logDriver, mac       string
	init, interactive, noHealthcheck, oomKillDisable        bool
	ioMaxBandwidth, kernelMemory, memory, memoryReservation int64
	ioMaxIops                                               uint64
	memorySwap, swappiness, shmSize                         int64
	oomScoreAdj                                             int
	pid, restart, runtime, stopSignal, user, userns, uts    string
	pidsLimit                                               int64
	privileged, publishAll, readOnly, rm, tty, apiSocket    bool
	stopTimeout                                             int
	ulimit                                                  []client.Ulimit
	volumeDriver, workdir                                   string

	name, platform, pull string
	quiet, noTrust       bool
}

// define adds the flags to a command.
func (o *runOptions) define(c *command) {
	f := c.flags
	f.SetInterspersed(false)
	list := func(p *[]string, name, short, usage string, check func(string) (string, error)) {
		f.VarP(&listValue{p: p, check: check}, name, short, usage)
	}
	o.defineProcess(c, list)
	o.defineLimits(c)
	o.defineNetwork(c, list)
	o.defineFiles(c, list)
	f.StringVar(&o.name, "name", "", "Name of the container")
	f.StringVar(&o.platform, "platform", c.Getenv("DOCKER_DEFAULT_PLATFORM"), "Platform of the image, as linux/arm64")
	f.StringVar(&o.pull, "pull", "missing", `When to pull the image ("always", "missing", "never")`)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "No progress of a pull")
	f.BoolVar(&o.noTrust, "disable-content-trust", true, "Don't check the image's signature")
	o.complete(c)
}

type listFlag func(p *[]string, name, short, usage string, check func(string) (string, error))

func (o *runOptions) defineProcess(c *command, list listFlag) {
	f := c.flags
	list(&o.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR", checkAttach)
	f.Var(&mapValue{p: &o.annotation}, "annotation", "Annotation for the container, handed to the OCI runtime")
	list(&o.capAdd, "cap-add", "", "Capability to add", nil)
	list(&o.capDrop, "cap-drop", "", "Capability to drop", nil)
	f.StringVar(&o.cidfile, "cidfile", "", "File to write the container's id to")
	f.StringVar(&o.entrypoint, "entrypoint", "", "Replaces the image's ENTRYPOINT")
	list(&o.env, "env", "e", "Environment variable", envValue(os.LookupEnv))
	list(&o.envFile, "env-file", "", "File of environment variables", nil)
	list(&o.groupAdd, "group-add", "", "Further group of the process", nil)
	list(&o.gpus, "gpus", "", "GPUs for the container ('all' for every GPU)", checked(parseGPUs))
	f.Lookup("gpus").Value = renamed{f.Lookup("gpus").Value, "gpu-request"}
	f.StringVar(&o.healthCmd, "health-cmd", "", "Command that checks the health")
	f.DurationVar(&o.healthInterval, "health-interval", 0, "Time between two checks (ms|s|m|h)")
	f.IntVar(&o.healthRetries, "health-retries", 0, "Failed checks in a row that make the container unhealthy")
	f.DurationVar(&o.healthStartInterval, "health-start-interval", 0, "Time between two checks during the start period (ms|s|m|h)")
	f.DurationVar(&o.healthStartPeriod, "health-start-period", 0, "Time to come up before failed checks count (ms|s|m|h)")
	f.DurationVar(&o.healthTimeout, "health-timeout", 0, "Longest time that a check may take (ms|s|m|h)")
	f.BoolVar(&o.noHealthcheck, "no-healthcheck", false, "Turn the image's HEALTHCHECK off")
	f.BoolVar(&o.init, "init", false, "Run an init inside that forwards signals and reaps processes")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if it is not attached")
	list(&o.label, "label", "l", "Label of the container", checkLabel)
	list(&o.labelFile, "label-file", "", "File of labels, one a line", nil)
	f.StringVar(&o.logDriver, "log-driver", "", "Log driver of the container")
	list(&o.logOpt, "log-opt", "", "Option of the log driver", nil)
	f.BoolVar(&o.privileged, "privileged", false, "Nearly all rights of the host")
	f.StringVar(&o.restart, "restart", "no", "Whether a container that ended is started again")
	f.BoolVar(&o.rm, "rm", false, "Remove the container and its anonymous volumes when it ends")
	f.StringVar(&o.runtime, "runtime", "", "OCI runtime for the container")
	list(&o.securityOpt, "security-opt", "", "Security option", nil)
	f.StringVar(&o.stopSignal, "stop-signal", "", "Signal that asks the container to stop")
	f.IntVar(&o.stopTimeout, "stop-timeout", 0, "Seconds until a container that does not stop is killed")
	f.Var(&mapValue{p: &o.sysctl, check: checkPair}, "sysctl", "Kernel parameter")
	f.BoolVarP(&o.tty, "tty", "t", false, "Give the process a terminal")
	f.BoolVar(&o.apiSocket, "use-api-socket", false, "Mount the API's socket and hand credentials over")
	f.StringVarP(&o.user, "user", "u", "", "User name or UID (<name|uid>[:<group|gid>])")
	f.StringVarP(&o.workdir, "workdir", "w", "", "Working folder inside the container")
	f.StringVar(&o.cgroupns, "cgroupns", "", "Cgroup namespace ('host', 'private'; '' for the daemon's default)")
	f.StringVar(&o.ipc, "ipc", "", "IPC namespace")
	f.StringVar(&o.pid, "pid", "", "PID namespace")
	f.StringVar(&o.userns, "userns", "", "User namespace")
	f.StringVar(&o.uts, "uts", "", "UTS namespace")
	f.StringVar(&o.isolation, "isolation", "", "Isolation technology of the container")
}

func (o *runOptions) defineLimits(c *command) {
	f := c.flags
	f.Uint16Var(&o.blkioWeight, "blkio-weight", 0, "Share of block I/O between 10 and 1000, or 0 for none")
	f.Var(weightValue{&o.blkioWeightDevice}, "blkio-weight-device", "Share of a device's I/O (path:weight)")
	f.StringVar(&o.cgroupParent, "cgroup-parent", "", "Cgroup above the container's")
	f.Int64Var(&o.cpuCount, "cpu-count", 0, "Number of CPUs (Windows only)")
	f.Int64Var(&o.cpuPercent, "cpu-percent", 0, "Percent of the CPUs (Windows only)")
	f.Int64Var(&o.cpuPeriod, "cpu-period", 0, "Period of the CPU quota, in microseconds")
	f.Int64Var(&o.cpuQuota, "cpu-quota", 0, "CPU time in each period, in microseconds")
	f.Int64Var(&o.cpuRtPeriod, "cpu-rt-period", 0, "Period of real-time CPU, in microseconds")
	f.Int64Var(&o.cpuRtRuntime, "cpu-rt-runtime", 0, "Real-time CPU in each period, in microseconds")
	f.Int64VarP(&o.cpuShares, "cpu-shares", "c", 0, "Share of CPU time")
	f.Var(cpusValue{&o.cpus}, "cpus", "Number of CPUs")
	f.StringVar(&o.cpusetCpus, "cpuset-cpus", "", "CPUs to run on (0-3, 0,1)")
	f.StringVar(&o.cpusetMems, "cpuset-mems", "", "Memory nodes to use (0-3, 0,1)")
	f.Var(throttleValue{&o.readBps, true}, "device-read-bps", "Bytes a second that may be read of a device (path:rate)")
	f.Var(throttleValue{&o.readIops, false}, "device-read-iops", "Reads a second of a device (path:rate)")
	f.Var(throttleValue{&o.writeBps, true}, "device-write-bps", "Bytes a second that may be written to a device (path:rate)")
	f.Var(throttleValue{&o.writeIops, false}, "device-write-iops", "Writes a second to a device (path:rate)")
	f.Var(bytesValue{&o.ioMaxBandwidth}, "io-maxbandwidth", "Bandwidth of the system drive (Windows only)")
	f.Var(uintValue{&o.ioMaxIops}, "io-maxiops", "I/O operations a second of the system drive (Windows only)")
	f.Var(bytesValue{&o.kernelMemory}, "kernel-memory", "Kernel memory")
	f.VarP(bytesValue{&o.memory}, "memory", "m", "Memory")
	f.Var(bytesValue{&o.memoryReservation}, "memory-reservation", "Memory below which nothing is reclaimed")
	f.Var(swapValue{bytesValue{&o.memorySwap}}, "memory-swap", "Memory and swap together: '-1' for no limit on swap")
	f.Int64Var(&o.swappiness, "memory-swappiness", -1, "How eagerly memory is swapped out (0 to 100)")
	f.BoolVar(&o.oomKillDisable, "oom-kill-disable", false, "Turn the OOM killer off")
	f.IntVar(&o.oomScoreAdj, "oom-score-adj", 0, "How readily the OOM killer takes it (-1000 to 1000)")
	f.Int64Var(&o.pidsLimit, "pids-limit", 0, "Number of processes (-1 for no limit)")
	f.Var(bytesValue{&o.shmSize}, "shm-size", "Size of /dev/shm")
	f.Var(ulimitValue{&o.ulimit}, "ulimit", "Resource limit (name=soft[:hard])")
}

func (o *runOptions) defineNetwork(c *command, list listFlag) {
	f := c.flags
	list(&o.addHost, "add-host", "", "Line for /etc/hosts (host:ip)", checkExtraHost)
	list(&o.dns, "dns", "", "DNS server", checkIP)
	list(&o.dnsOption, "dns-option", "", "DNS option", nil)
	list(&o.dnsOption, "dns-opt", "", "DNS option", nil)
	_ = f.MarkHidden("dns-opt")
	list(&o.dnsSearch, "dns-search", "", "DNS search domain", checkSearch)
	f.StringVar(&o.domainname, "domainname", "", "NIS domain name")
	list(&o.expose, "expose", "", "Port, or range of ports, that the container listens at", nil)
	f.StringVarP(&o.hostname, "hostname", "h", "", "Host name of the container")
	f.StringVar(&o.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	f.StringVar(&o.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	list(&o.link, "link", "", "Link to another container", checkLink)
	list(&o.linkLocalIP, "link-local-ip", "", "Link-local IPv4 or IPv6 address", checkIP)
	f.StringVar(&o.mac, "mac-address", "", "MAC address (e.g., 92:d0:c6:0a:29:33)")
	list(&o.network, "network", "", "Network to connect to", checked(parseNetwork))
	list(&o.network, "net", "", "Network to connect to", checked(parseNetwork))
	_ = f.MarkHidden("net")
	f.Lookup("network").Value = renamed{f.Lookup("network").Value, "network"}
	list(&o.networkAlias, "network-alias", "", "Further name in the network", nil)
	list(&o.networkAlias, "net-alias", "", "Further name in the network", nil)
	_ = f.MarkHidden("net-alias")
	list(&o.publish, "publish", "p", "Publish a port on the host ([[ip:]hostPort:]containerPort[/protocol])", nil)
	f.BoolVarP(&o.publishAll, "publish-all", "P", false, "Publish all exposed ports at random ones")
}

func (o *runOptions) defineFiles(c *command, list listFlag) {
	f := c.flags
	list(&o.device, "device", "", "Device of the host (path[:path[:rwm]])", nil)
	list(&o.deviceRules, "device-cgroup-rule", "", "Rule for the cgroup's devices", checkDeviceRule)
	list(&o.mount, "mount", "", "File system to mount (type=…,source=…,target=…)", checked(parseMount))
	f.Lookup("mount").Value = renamed{f.Lookup("mount").Value, "mount"}
	f.BoolVar(&o.readOnly, "read-only", false, "Mount the root file system read-only")
	list(&o.storageOpt, "storage-opt", "", "Option of the storage driver", nil)
	list(&o.tmpfs, "tmpfs", "", "Folder on a tmpfs (path[:options])", nil)
	list(&o.volume, "volume", "v", "Folder of the host or volume (source:path[:options])", nil)
	f.StringVar(&o.volumeDriver, "volume-driver", "", "Driver of the container's volumes")
	list(&o.volumesFrom, "volumes-from", "", "Container whose volumes are mounted", nil)
}

// checked makes a flag's check of a parser.
func checked[T any](parse func(string) (T, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		_, err := parse(s)
		return s, err
	}
}

// renamed is a value whose kind has another name in help texts.
type renamed struct {
	value
	kind string
}

type value interface {
	String() string
	Set(string) error
	Type() string
}

func (r renamed) Type() string { return r.kind }

func (o *runOptions) complete(c *command) {
	c.choices("pull", "always", "missing", "never")
	c.choices("attach", "stdin", "stdout", "stderr")
	c.choices("restart", "no", "always", "on-failure", "on-failure:", "unless-stopped")
	c.choices("cgroupns", "host", "private")
	c.choices("ipc", "host", "none", "private", "shareable", "container:")
	c.choices("pid", "host", "container:")
	c.choices("uts", "host")
	c.choices("userns", "host")
	c.choices("network", "bridge", "host", "none", "container:")
	c.choices("log-driver", "json-file", "local", "none")
	c.choices("security-opt", "apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined")
	c.choices("stop-signal", signalNames()...)
	c.choices("cap-add", capabilities()...)
	c.choices("cap-drop", capabilities()...)
	c.choices("platform", "linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/ppc64le", "linux/riscv64", "linux/s390x")
	c.choices("ulimit", "as=", "core=", "cpu=", "data=", "fsize=", "memlock=", "nofile=", "nproc=", "stack=")
	c.value("volumes-from", c.containers(anyState))
	c.value("link", c.containers(running))
	c.words = func(ctx context.Context, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return c.images()(ctx)
	}
}
