package client

import "encoding/json"

// The bodies of requests, as the Engine API defines them (moby/api types/container, types/mount, types/network). Values that
// are zero are left out: a daemon takes a missing value for zero. A test compares names and kinds with moby's own types.

// CreateBody is the body of POST /containers/create.
type CreateBody struct {
	Config
	HostConfig       *HostConfig       `json:",omitempty"`
	NetworkingConfig *NetworkingConfig `json:",omitempty"`
}

// Config is the part of a container's configuration that is independent of the host.
type Config struct {
	Hostname        string              `json:",omitempty"`
	Domainname      string              `json:",omitempty"`
	User            string              `json:",omitempty"`
	AttachStdin     bool                `json:",omitempty"`
	AttachStdout    bool                `json:",omitempty"`
	AttachStderr    bool                `json:",omitempty"`
	ExposedPorts    map[string]struct{} `json:",omitempty"`
	Tty             bool                `json:",omitempty"`
	OpenStdin       bool                `json:",omitempty"`
	StdinOnce       bool                `json:",omitempty"`
	Env             []string            `json:",omitempty"`
	Cmd             []string            `json:",omitempty"`
	Healthcheck     *HealthConfig       `json:",omitempty"`
	Image           string              `json:",omitempty"`
	Volumes         map[string]struct{} `json:",omitempty"`
	WorkingDir      string              `json:",omitempty"`
	Entrypoint      []string            `json:",omitempty"`
	NetworkDisabled bool                `json:",omitempty"`
	// MacAddress is the container-wide address of API versions before 1.44.
	MacAddress  string            `json:",omitempty"`
	Labels      map[string]string `json:",omitempty"`
	StopSignal  string            `json:",omitempty"`
	StopTimeout *int              `json:",omitempty"`
}

// HealthConfig is how a container's health is checked. Times are nanoseconds.
type HealthConfig struct {
	Test          []string `json:",omitempty"`
	Interval      int64    `json:",omitempty"`
	Timeout       int64    `json:",omitempty"`
	StartPeriod   int64    `json:",omitempty"`
	StartInterval int64    `json:",omitempty"`
	Retries       int      `json:",omitempty"`
}

// HostConfig is the part of a container's configuration that depends on the host.
type HostConfig struct {
	Binds           []string                 `json:",omitempty"`
	ContainerIDFile string                   `json:",omitempty"`
	LogConfig       *LogConfig               `json:",omitempty"`
	NetworkMode     string                   `json:",omitempty"`
	PortBindings    map[string][]PortBinding `json:",omitempty"`
	RestartPolicy   *RestartPolicy           `json:",omitempty"`
	AutoRemove      bool                     `json:",omitempty"`
	VolumeDriver    string                   `json:",omitempty"`
	VolumesFrom     []string                 `json:",omitempty"`
	ConsoleSize     *[2]uint                 `json:",omitempty"` // height, width
	Annotations     map[string]string        `json:",omitempty"`
	CapAdd          []string                 `json:",omitempty"`
	CapDrop         []string                 `json:",omitempty"`
	CgroupnsMode    string                   `json:",omitempty"`
	DNS             []string                 `json:"Dns,omitempty"`
	DNSOptions      []string                 `json:"DnsOptions,omitempty"`
	DNSSearch       []string                 `json:"DnsSearch,omitempty"`
	ExtraHosts      []string                 `json:",omitempty"`
	GroupAdd        []string                 `json:",omitempty"`
	IpcMode         string                   `json:",omitempty"`
	Links           []string                 `json:",omitempty"`
	OomScoreAdj     int                      `json:",omitempty"`
	PidMode         string                   `json:",omitempty"`
	Privileged      bool                     `json:",omitempty"`
	PublishAllPorts bool                     `json:",omitempty"`
	ReadonlyRootfs  bool                     `json:",omitempty"`
	SecurityOpt     []string                 `json:",omitempty"`
	StorageOpt      map[string]string        `json:",omitempty"`
	Tmpfs           map[string]string        `json:",omitempty"`
	UTSMode         string                   `json:",omitempty"`
	UsernsMode      string                   `json:",omitempty"`
	ShmSize         int64                    `json:",omitempty"`
	Sysctls         map[string]string        `json:",omitempty"`
	Runtime         string                   `json:",omitempty"`
	Isolation       string                   `json:",omitempty"`
	Resources
	Mounts        []Mount   `json:",omitempty"`
	MaskedPaths   *[]string `json:",omitempty"` // nil: the daemon's own list
	ReadonlyPaths *[]string `json:",omitempty"` // nil: the daemon's own list
	Init          *bool     `json:",omitempty"`
}

// Resources are a container's limits. Sizes are bytes.
type Resources struct {
	CPUShares            int64            `json:"CpuShares,omitempty"`
	Memory               int64            `json:",omitempty"`
	NanoCPUs             int64            `json:"NanoCpus,omitempty"` // billionths of a CPU
	CgroupParent         string           `json:",omitempty"`
	BlkioWeight          uint16           `json:",omitempty"`
	BlkioWeightDevice    []WeightDevice   `json:",omitempty"`
	BlkioDeviceReadBps   []ThrottleDevice `json:",omitempty"`
	BlkioDeviceWriteBps  []ThrottleDevice `json:",omitempty"`
	BlkioDeviceReadIOps  []ThrottleDevice `json:",omitempty"`
	BlkioDeviceWriteIOps []ThrottleDevice `json:",omitempty"`
	CPUPeriod            int64            `json:"CpuPeriod,omitempty"` // microseconds
	CPUQuota             int64            `json:"CpuQuota,omitempty"`  // microseconds
	CPURealtimePeriod    int64            `json:"CpuRealtimePeriod,omitempty"`
	CPURealtimeRuntime   int64            `json:"CpuRealtimeRuntime,omitempty"`
	CpusetCpus           string           `json:",omitempty"`
	CpusetMems           string           `json:",omitempty"`
	Devices              []DeviceMapping  `json:",omitempty"`
	DeviceCgroupRules    []string         `json:",omitempty"`
	DeviceRequests       []DeviceRequest  `json:",omitempty"`
	MemoryReservation    int64            `json:",omitempty"`
	MemorySwap           int64            `json:",omitempty"`
	MemorySwappiness     *int64           `json:",omitempty"`
	OomKillDisable       *bool            `json:",omitempty"`
	PidsLimit            *int64           `json:",omitempty"`
	Ulimits              []Ulimit         `json:",omitempty"`
}

// LogConfig names a log driver and its options.
type LogConfig struct {
	Type   string            `json:",omitempty"`
	Config map[string]string `json:",omitempty"`
}

// PortBinding is where on the host a port is published.
type PortBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// RestartPolicy says whether a container that ended is started again.
type RestartPolicy struct {
	Name              string `json:",omitempty"`
	MaximumRetryCount int    `json:",omitempty"`
}

// WeightDevice is a device's relative share of I/O.
type WeightDevice struct {
	Path   string
	Weight uint16
}

// ThrottleDevice limits a device's I/O: bytes or operations a second.
type ThrottleDevice struct {
	Path string
	Rate uint64
}

// DeviceMapping is a host's device in a container.
type DeviceMapping struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

// DeviceRequest asks a device driver for devices.
type DeviceRequest struct {
	Driver       string            `json:",omitempty"`
	Count        int               `json:",omitempty"`
	DeviceIDs    []string          `json:",omitempty"`
	Capabilities [][]string        `json:",omitempty"`
	Options      map[string]string `json:",omitempty"`
}

// Ulimit is a limit of setrlimit(2).
type Ulimit struct {
	Name string
	Hard int64
	Soft int64
}

// Mount is a mount of --mount.
type Mount struct {
	Type          string          `json:",omitempty"`
	Source        string          `json:",omitempty"`
	Target        string          `json:",omitempty"`
	ReadOnly      bool            `json:",omitempty"`
	Consistency   string          `json:",omitempty"`
	BindOptions   *BindOptions    `json:",omitempty"`
	VolumeOptions *VolumeOptions  `json:",omitempty"`
	ImageOptions  *SubpathOptions `json:",omitempty"`
	TmpfsOptions  *TmpfsOptions   `json:",omitempty"`
}

// BindOptions are the options of a bind mount.
type BindOptions struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	CreateMountpoint       bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

// VolumeOptions are the options of a volume mount.
type VolumeOptions struct {
	NoCopy       bool              `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Subpath      string            `json:",omitempty"`
	DriverConfig *VolumeDriver     `json:",omitempty"`
}

// VolumeDriver names a volume driver and its options.
type VolumeDriver struct {
	Name    string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

// SubpathOptions are the options of an image mount.
type SubpathOptions struct {
	Subpath string `json:",omitempty"`
}

// TmpfsOptions are the options of a tmpfs mount.
type TmpfsOptions struct {
	SizeBytes int64  `json:",omitempty"`
	Mode      uint32 `json:",omitempty"` // permission bits
}

// NetworkingConfig are a new container's endpoints by network.
type NetworkingConfig struct {
	EndpointsConfig map[string]*EndpointSettings `json:",omitempty"`
}

// EndpointSettings are the wishes for one endpoint.
type EndpointSettings struct {
	IPAMConfig *IPAMConfig       `json:",omitempty"`
	Links      []string          `json:",omitempty"`
	Aliases    []string          `json:",omitempty"`
	DriverOpts map[string]string `json:",omitempty"`
	GwPriority int               `json:",omitempty"`
	MacAddress string            `json:",omitempty"`
}

// IPAMConfig are an endpoint's fixed addresses.
type IPAMConfig struct {
	IPv4Address  string   `json:",omitempty"`
	IPv6Address  string   `json:",omitempty"`
	LinkLocalIPs []string `json:",omitempty"`
}

// ExecBody is the body of POST /containers/NAME/exec.
type ExecBody struct {
	User         string   `json:",omitempty"`
	Privileged   bool     `json:",omitempty"`
	Tty          bool     `json:",omitempty"`
	ConsoleSize  *[2]uint `json:",omitempty"` // height, width
	AttachStdin  bool     `json:",omitempty"`
	AttachStderr bool     `json:",omitempty"`
	AttachStdout bool     `json:",omitempty"`
	DetachKeys   string   `json:",omitempty"`
	Env          []string `json:",omitempty"`
	WorkingDir   string   `json:",omitempty"`
	Cmd          []string `json:",omitempty"`
}

// ExecStartBody is the body of POST /exec/ID/start.
type ExecStartBody struct {
	Detach      bool     `json:",omitempty"`
	Tty         bool     `json:",omitempty"`
	ConsoleSize *[2]uint `json:",omitempty"`
}

// Summary is a container in a list.
type Summary struct {
	ID         string `json:"Id"`
	Names      []string
	Image      string
	ImageID    string
	Command    string
	Created    int64 // seconds since 1970
	Ports      []Port
	SizeRw     int64
	SizeRootFs int64
	Labels     map[string]string
	State      string
	Status     string
	HostConfig struct {
		NetworkMode string
	}
	NetworkSettings *struct {
		Networks map[string]json.RawMessage
	}
	Mounts                  []MountPoint
	ImageManifestDescriptor *struct {
		Platform *Platform `json:"platform"`
	}
}

// Platform is an operating system and processor.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// Port is a port of a container in a list.
type Port struct {
	IP          string
	PrivatePort uint16
	PublicPort  uint16
	Type        string
}

// MountPoint is a mount of a container in a list.
type MountPoint struct {
	Type, Name, Source, Destination, Driver string
}

// Image is an image in a list.
type Image struct {
	Containers  int64
	Created     int64  // seconds since 1970
	ID          string `json:"Id"`
	Labels      map[string]string
	ParentID    string `json:"ParentId"`
	RepoDigests []string
	RepoTags    []string
	SharedSize  int64
	Size        int64
	Manifests   []ImageManifest
}

// ImageManifest is one platform's (or an attestation's) manifest of a listed image.
type ImageManifest struct {
	ID        string
	Available bool
	Kind      string
	Size      struct {
		Content, Total int64
	}
	ImageData *struct {
		Platform   Platform
		Containers []string
		Size       struct{ Unpacked int64 }
	}
}

// Deleted is a step of an image's removal.
type Deleted struct {
	Deleted, Untagged string
}

// Top is a container's processes.
type Top struct {
	Titles    []string
	Processes [][]string
}

// Event is something that happened in the daemon.
type Event struct {
	Type   string
	Action string
	Actor  struct {
		ID         string
		Attributes map[string]string
	}
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}
