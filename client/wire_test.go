package client

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
)

// TestWireTypes holds our types against the Engine API's own: every JSON name that we send or read must be there, of the same
// kind.
func TestWireTypes(t *testing.T) {
	gone := map[string]bool{ // for older daemons
		"Config.MacAddress":     true,
		"CreateBody.MacAddress": true,
		"Progress.error":        true,
	}
	for _, p := range []struct{ ours, theirs any }{
		{CreateBody{}, container.CreateRequest{}},
		{Config{}, container.Config{}},
		{HostConfig{}, container.HostConfig{}},
		{Mount{}, mount.Mount{}},
		{NetworkingConfig{}, network.NetworkingConfig{}},
		{ExecBody{}, container.ExecCreateRequest{}},
		{ExecStartBody{}, container.ExecStartRequest{}},
		{Summary{}, container.Summary{}},
		{Image{}, image.Summary{}},
		{HistoryItem{}, image.HistoryResponseItem{}},
		{Deleted{}, image.DeleteResponse{}},
		{Top{}, container.TopResponse{}},
		{Event{}, events.Message{}},
		{ExecState{}, container.ExecInspectResponse{}},
		{Progress{}, jsonstream.Message{}},
	} {
		ours, theirs := reflect.TypeOf(p.ours), reflect.TypeOf(p.theirs)
		t.Run(ours.Name(), func(t *testing.T) { compareTypes(t, ours.Name(), ours, theirs, gone) })
	}
}

func compareTypes(t *testing.T, path string, ours, theirs reflect.Type, gone map[string]bool) {
	t.Helper()
	ours, theirs = deref(ours), deref(theirs)
	if theirs.Implements(reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()) {
		theirs = reflect.TypeFor[string]()
	}
	if ours == reflect.TypeFor[json.RawMessage]() || theirs == reflect.TypeFor[json.RawMessage]() {
		return
	}
	if ours.Kind() != theirs.Kind() && !bothNumbers(ours, theirs) {
		t.Errorf("%s is %s here and %s in the API", path, ours, theirs)
		return
	}
	switch ours.Kind() {
	case reflect.Struct:
		api := jsonFields(theirs)
		for name, f := range jsonFields(ours) {
			p := path + "." + name
			other, ok := api[name]
			if !ok {
				if !gone[p] {
					t.Errorf("%s is not in the API", p)
				}
				continue
			}
			compareTypes(t, p, f, other, gone)
		}
	case reflect.Slice, reflect.Array, reflect.Map:
		compareTypes(t, path+"[]", ours.Elem(), theirs.Elem(), gone)
	}
}

func bothNumbers(a, b reflect.Type) bool {
	number := func(k reflect.Kind) bool { return k >= reflect.Int && k <= reflect.Float64 }
	return number(a.Kind()) && number(b.Kind())
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// jsonFields lists a struct's fields by their JSON names.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			for k, v := range jsonFields(deref(f.Type)) {
				out[k] = v
			}
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		out[name] = f.Type
	}
	return out
}

// TestCreateBodyDecodes sends a full body through the API's own decoder.
func TestCreateBodyDecodes(t *testing.T) {
	yes, seconds, n := true, 3, int64(5)
	in := CreateBody{
		Config: Config{Image: "i", StopTimeout: &seconds, ExposedPorts: map[string]struct{}{"80/tcp": {}}},
		HostConfig: &HostConfig{
			DNS: []string{"1.1.1.1"}, PortBindings: map[string][]PortBinding{"80/tcp": {{HostIP: "::1", HostPort: "8080"}, {HostPort: "81"}}},
			Init: &yes, Resources: Resources{NanoCPUs: 5, PidsLimit: &n, Ulimits: []Ulimit{{Name: "core", Hard: 1}}},
			Mounts: []Mount{{Type: "tmpfs", Target: "/x", TmpfsOptions: &TmpfsOptions{Mode: 0o1700}}},
		},
		NetworkingConfig: &NetworkingConfig{EndpointsConfig: map[string]*EndpointSettings{
			"n": {MacAddress: "02:00:00:00:00:01", IPAMConfig: &IPAMConfig{IPv4Address: "10.0.0.1"}},
		}},
	}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out container.CreateRequest
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	if out.HostConfig.NanoCPUs != 5 || *out.StopTimeout != 3 || !*out.HostConfig.Init || len(out.HostConfig.PortBindings) != 1 {
		t.Errorf("the API reads %+v", out.HostConfig)
	}
	if m := out.HostConfig.Mounts[0].TmpfsOptions.Mode; m != 0o1700 {
		t.Errorf("tmpfs mode is %o", m)
	}
}
