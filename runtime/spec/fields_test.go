package spec

import (
	"os"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"skiff/internal/errs"
)

// elsewhere are the fields of HostConfig that other packages honour, and who.
var elsewhere = map[string]string{
	"ContainerIDFile": "the client",
	"LogConfig":       "keeper",
	"PortBindings":    "network",
	"PublishAllPorts": "network",
	"RestartPolicy":   "container",
	"AutoRemove":      "container",
	"DNS":             "network (resolv.conf)",
	"DNSOptions":      "network (resolv.conf)",
	"DNSSearch":       "network (resolv.conf)",
	"ExtraHosts":      "network (hosts)",
	"Runtime":         "container",
	"Init":            "container: it becomes Input.Init",
	"UsernsMode":      "nobody needs to: only \"\" and \"host\" are valid, and mean the same without user namespaces",
}

// honoured are fields of HostConfig with a value that changes the specification.
func honoured(disk string) map[string]any {
	dev := []*blkiodev.ThrottleDevice{{Path: disk, Rate: 5}}
	return map[string]any{
		"Binds":             []string{"/a:/b"},
		"NetworkMode":       container.NetworkMode("host"),
		"ConsoleSize":       [2]uint{1, 2},
		"Annotations":       map[string]string{"a": "b"},
		"CapAdd":            []string{"SYS_ADMIN"},
		"CapDrop":           []string{"CHOWN"},
		"CgroupnsMode":      container.CgroupnsMode("private"),
		"GroupAdd":          []string{"7"},
		"IpcMode":           container.IpcMode("host"),
		"OomScoreAdj":       5,
		"PidMode":           container.PidMode("host"),
		"Privileged":        true,
		"ReadonlyRootfs":    true,
		"SecurityOpt":       []string{"no-new-privileges"},
		"Tmpfs":             map[string]string{"/x": ""},
		"UTSMode":           container.UTSMode("host"),
		"ShmSize":           int64(4096),
		"Sysctls":           map[string]string{"kernel.sem": "1"},
		"Umask":             ptr(uint32(7)),
		"Mounts":            []mount.Mount{{Type: mount.TypeTmpfs, Target: "/x"}},
		"MaskedPaths":       []string{"/x"},
		"ReadonlyPaths":     []string{"/x"},
		"CPUShares":         int64(5),
		"Memory":            int64(64 << 20),
		"NanoCPUs":          int64(1e9),
		"CgroupParent":      "/x",
		"BlkioWeight":       uint16(10),
		"BlkioWeightDevice": []*blkiodev.WeightDevice{{Path: disk, Weight: 50}},

		"BlkioDeviceReadBps": dev, "BlkioDeviceWriteBps": dev, "BlkioDeviceReadIOps": dev, "BlkioDeviceWriteIOps": dev,

		"CPUPeriod":          int64(5000),
		"CPUQuota":           int64(5000),
		"CPURealtimePeriod":  int64(5000),
		"CPURealtimeRuntime": int64(5000),
		"CpusetCpus":         "0",
		"CpusetMems":         "0",
		"Devices":            []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/n"}},
		"DeviceCgroupRules":  []string{"c 1:1 r"},
		"MemoryReservation":  int64(64 << 20),
		"MemorySwap":         int64(64 << 20),
		"MemorySwappiness":   ptr(int64(5)),
		"OomKillDisable":     ptr(true),
		"PidsLimit":          ptr(int64(5)),
		"Ulimits":            []*container.Ulimit{{Name: "nofile", Soft: 1, Hard: 1}},
	}
}

// refused are fields of HostConfig that nobody honours, with a value that must be refused by the field's JSON name.
var refused = map[string]any{
	"VolumeDriver":       "nfs",
	"VolumesFrom":        []string{"x"},
	"Links":              []string{"x"},
	"Cgroup":             container.CgroupSpec("container:x"),
	"StorageOpt":         map[string]string{"size": "1"},
	"DeviceRequests":     []container.DeviceRequest{{Count: -1}},
	"Isolation":          container.IsolationHyperV,
	"CPUCount":           int64(1),
	"CPUPercent":         int64(1),
	"IOMaximumIOps":      uint64(1),
	"IOMaximumBandwidth": uint64(1),
}

// TestEveryField walks all fields of HostConfig, so that a new one in the API can't be forgotten.
func TestEveryField(t *testing.T) {
	disk := blockNode(t)
	good := honoured(disk)
	seen := map[string]bool{}
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		for f := range fields(typ) {
			if f.Anonymous {
				walk(f.Type)
				continue
			}
			seen[f.Name] = true
			val, isGood := good[f.Name]
			bad, isBad := refused[f.Name]
			_, isElse := elsewhere[f.Name]
			switch {
			case isGood && !isBad && !isElse:
				checkHonoured(t, f.Name, val)
			case isBad && !isGood && !isElse:
				checkRefused(t, f, bad)
			case isElse && !isGood && !isBad:
			default:
				t.Errorf("HostConfig.%s must be in exactly one of honoured, refused and elsewhere", f.Name)
			}
		}
	}
	walk(reflect.TypeFor[container.HostConfig]())
	for _, m := range []map[string]any{good, refused} {
		for name := range m {
			if !seen[name] {
				t.Errorf("HostConfig has no field %s any more", name)
			}
		}
	}
	for name := range elsewhere {
		if !seen[name] {
			t.Errorf("HostConfig has no field %s any more", name)
		}
	}
}

func fields(typ reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range typ.NumField() {
			if !yield(typ.Field(i)) {
				return
			}
		}
	}
}

// blockNode makes a block device node, for those limits that need one.
func blockNode(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	name := t.TempDir() + "/disk"
	if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 77))); err != nil {
		t.Fatal(err)
	}
	return name
}

func with(t *testing.T, name string, val any) Input {
	in := testInput(t)
	in.Config.Tty = true
	reflect.ValueOf(in.HostConfig).Elem().FieldByName(name).Set(reflect.ValueOf(val))
	return in
}

func checkHonoured(t *testing.T, name string, val any) {
	t.Helper()
	base := testInput(t)
	base.Config.Tty = true
	before, _, err := Build(base)
	if err != nil {
		t.Fatal(err)
	}
	in := with(t, name, val)
	after, _, err := Build(in)
	if err != nil {
		t.Errorf("HostConfig.%s: %v", name, err)
		return
	}
	if cmp.Equal(before, after) {
		t.Errorf("HostConfig.%s changes nothing", name)
	}
}

func checkRefused(t *testing.T, f reflect.StructField, val any) {
	t.Helper()
	in := with(t, f.Name, val)
	name := f.Name
	if tag := f.Tag.Get("json"); tag != "" && tag[0] != ',' {
		name = tag
	}
	_, _, err := Build(in)
	_, verr := Validate(in.Config, in.HostConfig, in.Kernel)
	want := "HostConfig." + name + " is not implemented"
	for _, err := range []error{err, verr} {
		if !errs.Is(err, errs.NotImplemented) || err.Error() != want {
			t.Errorf("HostConfig.%s: %v, want %q", f.Name, err, want)
		}
	}
}
