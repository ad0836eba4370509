package api

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apicontainer "github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var update = flag.Bool("update", false, "write golden files")

// golden compares an answer with testdata/NAME.json.
func golden(t *testing.T, name string, body []byte) {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%s: %v: %s", name, err, body)
	}
	got, _ := json.MarshalIndent(v, "", "  ") // maps: the order of keys does not matter
	path := filepath.Join("testdata", name+".json")
	if *update {
		_ = os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != string(got)+"\n" {
		t.Errorf("%s differs (%v):\n%s", path, err, got)
	}
}

func sampleContainer() apicontainer.InspectResponse {
	mac, _ := network.HardwareAddr{2, 0x42, 0xac, 0x11, 0, 2}, 0
	return apicontainer.InspectResponse{
		ID:    strings.Repeat("0123456789ab", 5) + "cdef",
		Name:  "/web",
		Args:  []string{},
		State: &apicontainer.State{Status: "running", Running: true},
		Config: &apicontainer.Config{
			Image: "x", Cmd: []string{"sh"}, Labels: map[string]string{},
			ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): struct{}{}},
		},
		HostConfig:              &apicontainer.HostConfig{NetworkMode: "bridge"},
		ImageManifestDescriptor: &ocispec.Descriptor{MediaType: "m", Size: 1},
		NetworkSettings: &apicontainer.NetworkSettings{
			SandboxID: "s", Ports: network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: netip.MustParseAddr("0.0.0.0"), HostPort: "8080"}}},
			Networks: map[string]*network.EndpointSettings{
				"bridge": {
					Gateway: netip.MustParseAddr("172.17.0.1"), IPAddress: netip.MustParseAddr("172.17.0.2"), IPPrefixLen: 16, MacAddress: mac,
					Aliases: []string{"a"},
				},
			},
		},
	}
}

func TestContainerViews(t *testing.T) {
	for _, v := range []string{"1.41", "1.44", "1.50", "1.52"} {
		f := &fake{inspect: sampleContainer()}
		w := ask(t, f, "GET", "/v"+v+"/containers/web/json", "")
		golden(t, "container-"+v, w.Body.Bytes())
		if a := f.inspect.NetworkSettings.Networks["bridge"].Aliases; len(a) != 1 {
			t.Errorf("%s: the manager's own structure was changed: %v", v, a)
		}
	}
}

func TestContainerListViews(t *testing.T) {
	for _, v := range []string{"1.41", "1.47", "1.52"} {
		s := apicontainer.Summary{ID: "a", ImageManifestDescriptor: &ocispec.Descriptor{}, Health: &apicontainer.HealthSummary{Status: "healthy"}}
		s.HostConfig.Annotations = map[string]string{"a": "b"}
		w := ask(t, &fake{list: []apicontainer.Summary{s}}, "GET", "/v"+v+"/containers/json", "")
		golden(t, "containers-"+v, w.Body.Bytes())
	}
	if w := ask(t, &fake{}, "GET", "/containers/json", ""); w.Body.String() != "[]\n" {
		t.Errorf("no containers: %s", w.Body)
	}
}

func TestImageViews(t *testing.T) {
	for _, v := range []string{"1.41", "1.44", "1.47", "1.49", "1.51", "1.52"} {
		f := &fake{
			image: apiimage.InspectResponse{
				ID: "sha256:1", RepoTags: []string{"a:1"}, RepoDigests: []string{}, Size: 5, Os: "linux", Architecture: "amd64",
				Config:     &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Env: []string{"A=b"}}},
				Descriptor: &ocispec.Descriptor{MediaType: "m"}, Identity: &apiimage.Identity{},
			},
			images: []apiimage.Summary{{ID: "sha256:1", Size: 5, Containers: 2, Descriptor: &ocispec.Descriptor{MediaType: "m"}, RepoTags: []string{}, RepoDigests: []string{}}},
		}
		golden(t, "image-"+v, ask(t, f, "GET", "/v"+v+"/images/a/json", "").Body.Bytes())
		golden(t, "images-"+v, ask(t, f, "GET", "/v"+v+"/images/json", "").Body.Bytes())
	}
}

func TestInfoViews(t *testing.T) {
	info := system.Info{
		ID: "me", Runtimes: map[string]system.RuntimeWithStatus{"skiff": {Status: map[string]string{"a": "b"}}}, Warnings: []string{},
		RegistryConfig: &registry.ServiceConfig{Mirrors: []string{}}, FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
	}
	for _, v := range []Version{41, 43, 48, 49, 50, 56} {
		b, err := json.Marshal(infoFor(v, info))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "info-"+v.String(), b)
	}
}

func TestDiskUsageViews(t *testing.T) {
	f := &fake{
		images: []apiimage.Summary{{ID: "a", Size: 100, SharedSize: 40, Containers: 1}, {ID: "b", Size: 60, SharedSize: 40}},
		list:   []apicontainer.Summary{{ID: "c", SizeRw: 7, State: "running"}, {ID: "d", SizeRw: 5, State: "exited"}},
	}
	for _, path := range []string{"/v1.41/system/df", "/v1.50/system/df?type=container", "/v1.52/system/df", "/v1.52/system/df?verbose=1", "/v1.56/system/df"} {
		name := strings.NewReplacer("/", "-", "?", "-", "=", "-", "/v", "").Replace(strings.TrimPrefix(path, "/v"))
		golden(t, name, ask(t, f, "GET", path, "").Body.Bytes())
	}
	if w := ask(t, f, "GET", "/system/df?type=foo", ""); w.Code != 400 || !strings.Contains(w.Body.String(), "unknown object type: foo") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestNetworkViews(t *testing.T) {
	f := &fake{networks: []network.Summary{{Network: network.Network{Name: "bridge", ID: "1", Driver: "bridge"}}, {Network: network.Network{Name: "none", ID: "2", Driver: "null"}}}}
	for filter, want := range map[string]int{
		`{}`: 2, `{"driver":["bridge"]}`: 1, `{"name":["no"]}`: 1, `{"type":["custom"]}`: 0, `{"type":["builtin"],"id":["2"]}`: 1,
		`{"label":["x"]}`: 0, `{"dangling":["false"]}`: 2, `{"dangling":["true"]}`: 0,
	} {
		var got []network.Inspect
		w := ask(t, f, "GET", "/v1.50/networks?filters="+filter, "")
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got) != want {
			t.Errorf("%s: %s", filter, w.Body)
		}
	}
}

// TestCreateAcrossVersions: what reaches the manager from clients of different ages.
func TestCreateAcrossVersions(t *testing.T) {
	for _, c := range []struct {
		version, body string
		check         func(f *fake) bool
	}{
		{"1.56", `{"Image":"a"}`, func(f *fake) bool {
			o := f.created
			return o.HostConfig.NetworkMode == "bridge" && o.NetworkingConfig != nil && o.Config.Image == "a" && o.Platform.Architecture == "arm64" && o.Name == "n"
		}},
		{"1.40", `{"Image":"a"}`, func(f *fake) bool { return f.created.Platform == nil && f.created.HostConfig.CgroupnsMode == "host" }},
		{"1.41", `{"Image":"a"}`, func(f *fake) bool { return f.created.HostConfig.CgroupnsMode == "" }},
		{"1.41", `{"Cmd":"one string","Entrypoint":["a","b"]}`, func(f *fake) bool {
			return len(f.created.Config.Cmd) == 1 && f.created.Config.Cmd[0] == "one string" && len(f.created.Config.Entrypoint) == 2
		}},
		{"1.41", `{"Image":"a","HostConfig":{"ConsoleSize":[1,2],"Annotations":{"a":"b"},"PidsLimit":-1,"KernelMemory":5}}`, func(f *fake) bool {
			h := f.created.HostConfig
			return h.ConsoleSize == [2]uint{} && h.Annotations == nil && h.PidsLimit == nil
		}},
		{"1.43", `{"Image":"a","HostConfig":{"ConsoleSize":[1,2],"Annotations":{"a":"b"}}}`, func(f *fake) bool {
			h := f.created.HostConfig
			return h.ConsoleSize == [2]uint{1, 2} && h.Annotations["a"] == "b"
		}},
		{"1.41", `{"Image":"a","MacAddress":"02:42:ac:11:00:09"}`, func(f *fake) bool {
			return f.created.NetworkingConfig.EndpointsConfig["bridge"].MacAddress.String() == "02:42:ac:11:00:09"
		}},
		{"1.50", `{"Image":"a","MacAddress":"02:42:ac:11:00:09","NetworkingConfig":{"EndpointsConfig":{"default":{"Aliases":["x"]}}}}`, func(f *fake) bool {
			ep := f.created.NetworkingConfig.EndpointsConfig["bridge"]
			return ep.MacAddress.String() == "02:42:ac:11:00:09" && ep.Aliases[0] == "x"
		}},
		{"1.52", `{"Image":"a","MacAddress":"02:42:ac:11:00:09"}`, func(f *fake) bool { return f.created.NetworkingConfig.EndpointsConfig == nil }},
		{"1.43", `{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"x":{"MacAddress":"02:42:ac:11:00:09"}}}}`, func(f *fake) bool {
			return f.created.NetworkingConfig.EndpointsConfig["x"].MacAddress == nil
		}},
		{"1.43", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Target":"/a","BindOptions":{"ReadOnlyForceRecursive":true,"CreateMountpoint":true}}]}}`, func(f *fake) bool {
			o := f.created.HostConfig.Mounts[0].BindOptions
			return !o.ReadOnlyForceRecursive && o.CreateMountpoint
		}},
	} {
		f := &fake{}
		w := ask(t, f, "POST", "/v"+c.version+"/containers/create?name=n&platform=linux/arm64", c.body)
		if w.Code != 201 || !c.check(f) {
			t.Errorf("%s %s: %d %s\n%+v\n%+v", c.version, c.body, w.Code, w.Body, f.created.HostConfig, f.created.NetworkingConfig)
		}
	}
	for _, c := range []struct{ version, body, want string }{
		{"1.43", `{"Image":"a","NetworkingConfig":{"EndpointsConfig":{"x":{},"y":{}}}}`, "needs API version 1.44"},
		{"1.43", `{"Image":"a","MacAddress":"02:42:ac:11:00:09","HostConfig":{"NetworkMode":"host"}}`, "conflicting options: mac-address and the network mode"},
		{"1.43", `{"Image":"a","MacAddress":"zz"}`, "zz is not a valid mac address"},
		{"1.50", `{"Image":"a","MacAddress":"02:42:ac:11:00:09","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:42:ac:11:00:08"}}}}`, "must match the endpoint-specific MAC address"},
		{"1.44", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"volume","Target":"/a","VolumeOptions":{"Subpath":"x"}}]}}`, "VolumeOptions.Subpath needs API v1.45 or newer"},
		{"1.47", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"image","Target":"/a"}]}}`, `Mount type \"Image\" needs API v1.48 or newer`},
		{"1.47", `{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Target":"/a","TmpfsOptions":{}}]}}`, "don't fit its type"},
	} {
		w := ask(t, &fake{}, "POST", "/v"+c.version+"/containers/create", c.body)
		if w.Code != 400 || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s", c.version, c.body, w.Code, w.Body)
		}
	}
}

func TestPlatforms(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64/", "amd64": "linux/amd64/", "linux": "linux/amd64/", "aarch64": "linux/arm64/", "linux/arm64/v8": "linux/arm64/",
		"linux/arm/7": "linux/arm/v7", "armhf": "linux/arm/v7", "Linux/X86_64": "linux/amd64/", "windows/amd64": "windows/amd64/", "linux/amd64/v1": "linux/amd64/",
		"linux/amd64/v3": "linux/amd64/v3", "a/b/c/d": "", "linux/": "", "li nux": "", "/": "",
	} {
		p, err := platformOf(in)
		got := ""
		if err == nil {
			got = p.OS + "/" + p.Architecture + "/" + p.Variant
		}
		if got != want {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
}

func BenchmarkListThousand(b *testing.B) {
	s := sampleContainer()
	list := make([]apicontainer.Summary, 1000)
	for i := range list {
		list[i] = apicontainer.Summary{
			ID: s.ID, Names: []string{"/x"}, Image: "busybox", ImageID: "sha256:" + s.ID, Command: "sh", State: "running", Status: "Up 3 hours",
			Labels: map[string]string{}, NetworkSettings: &apicontainer.NetworkSettingsSummary{Networks: s.NetworkSettings.Networks},
			Mounts: []apicontainer.MountPoint{},
		}
	}
	f := &fake{list: list}
	srv := newServer(f)
	b.ReportAllocs()
	for b.Loop() {
		discardAnswer(srv, "/v1.50/containers/json?all=1")
	}
}
