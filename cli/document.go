package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"
	"text/template"
)

// document is JSON that the daemon sent, for templates. Objects are maps, so that {{.State.Running}} works for whatever the
// daemon knows, today's fields and tomorrow's; the order of their keys is kept beside them for {{json .}}.
type document struct {
	root  any
	order map[uintptr][]string // by the address of the map
}

// dict is a JSON object.
type dict map[string]any

// String prints an object as docker's templates do: without the names that were added, and a port's binding as {address port}.
func (o dict) String() string {
	if port, ok := o["HostPort"]; ok {
		return fmt.Sprintf("{%v %v}", o["HostIp"], port)
	}
	plain := make(map[string]any, len(o))
	for k, v := range o {
		if jsonName, alias := goNames()[k]; alias {
			if _, both := o[jsonName]; both {
				continue
			}
		}
		plain[k] = v
	}
	return fmt.Sprint(plain)
}

var errTrailing = errors.New("text after the JSON value")

// parseDocument reads JSON. Whole numbers become int64, others float64.
func parseDocument(text []byte) (*document, error) {
	d := &document{order: map[uintptr][]string{}}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var err error
	if d.root, err = d.value(dec); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errTrailing
	}
	return d, nil
}

func (d *document) value(dec *json.Decoder) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '[' {
			return d.list(dec)
		}
		return d.object(dec)
	case json.Number:
		if n, err := t.Int64(); err == nil {
			return n, nil
		}
		return t.Float64()
	}
	return t, nil
}

func (d *document) list(dec *json.Decoder) (any, error) {
	l := []any{}
	for dec.More() {
		v, err := d.value(dec)
		if err != nil {
			return nil, err
		}
		l = append(l, v)
	}
	_, err := dec.Token()
	return l, err
}

func (d *document) object(dec *json.Decoder) (any, error) {
	o := dict{}
	keys := []string{}
	for dec.More() {
		k, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key := k.(string) // the decoder allows nothing else
		if _, twice := o[key]; !twice {
			keys = append(keys, key)
		}
		if o[key], err = d.value(dec); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	d.order[reflect.ValueOf(o).Pointer()] = keys
	return o, err
}

// funcs are the template functions; json keeps the order of keys.
func (d *document) funcs() template.FuncMap {
	f := templateFuncs()
	f["json"] = func(v any) (string, error) {
		b, err := d.append(nil, v)
		return string(b), err
	}
	return f
}

func (d *document) append(b []byte, v any) ([]byte, error) {
	var err error
	switch x := v.(type) {
	case dict:
		if x == nil {
			return append(b, "null"...), nil
		}
		b = append(b, '{')
		for i, k := range d.keys(x) {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = d.append(b, k); err != nil {
				return nil, err
			}
			b = append(b, ':')
			if b, err = d.append(b, x[k]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case []any:
		if x == nil {
			return append(b, "null"...), nil
		}
		b = append(b, '[')
		for i, e := range x {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = d.append(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	}
	text, err := encodeJSON(v)
	return append(b, text...), err
}

func (d *document) keys(o dict) []string {
	if keys, ok := d.order[reflect.ValueOf(o).Pointer()]; ok {
		return keys
	}
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// complete gives names to what docker's templates can name although the daemon left it out or calls it otherwise: fields that
// are empty, and those that Go's name has another case than JSON's. They are not in {{json .}}.
func (d *document) complete(absent map[string]map[string]any, alias map[string]string) {
	d.visit("", d.root, func(path string, o dict) {
		for k, v := range absent[path] {
			if have, ok := o[k]; !ok || have == nil {
				o[k] = v
			}
		}
		if userKeys(path) {
			return
		}
		for goName, jsonName := range alias {
			if v, ok := o[jsonName]; ok {
				if _, taken := o[goName]; !taken {
					o[goName] = v
				}
			}
		}
	})
}

// userKeys reports whether an object's keys are chosen by users.
func userKeys(path string) bool {
	for _, end := range []string{"Labels", "Annotations", "Options", "Sysctls", "Tmpfs", "Volumes", "ExposedPorts", "PortBindings", "Ports", "Networks", "DriverOpts", "Config.Config"} {
		if strings.HasSuffix(path, end) {
			return true
		}
	}
	return false
}

func (d *document) visit(path string, v any, f func(path string, o dict)) {
	switch x := v.(type) {
	case dict:
		// The order was noted by the keys that JSON had; f may add more.
		for _, k := range d.keys(x) {
			p := k
			if path != "" {
				p = path + "." + k
			}
			d.visit(p, x[k], f)
		}
		f(path, x)
	case []any:
		for _, e := range x {
			d.visit(path, e, f)
		}
	}
}

// containerAbsent are the fields of a container that the API leaves out when they are empty, by the path of their object
// (moby/api types/container, the fields with omitempty).
func containerAbsent() map[string]map[string]any {
	var noMap dict
	var noList []any
	var noNumber *int
	var noFlag *bool
	return map[string]map[string]any{
		"":      {"SizeRw": noNumber, "SizeRootFs": noNumber, "GraphDriver": noMap, "ExecIDs": noList, "Mounts": noList},
		"State": {"Health": noNumber}, // prints as <nil>, and is false
		"Config": {
			"ExposedPorts": noMap, "Healthcheck": noMap, "ArgsEscaped": false, "NetworkDisabled": false, "OnBuild": noList,
			"StopSignal": "", "StopTimeout": noNumber, "Shell": noList, "Env": noList, "Cmd": noList, "Entrypoint": noList,
			"Labels": noMap, "Volumes": noMap, "MacAddress": "",
		},
		"HostConfig": {
			"Annotations": noMap, "StorageOpt": noMap, "Tmpfs": noMap, "Sysctls": noMap, "Runtime": "", "Mounts": noList, "Init": noFlag,
			"Binds": noList, "CapAdd": noList, "CapDrop": noList, "Dns": noList, "DnsOptions": noList, "DnsSearch": noList,
			"ExtraHosts": noList, "GroupAdd": noList, "Links": noList, "SecurityOpt": noList, "VolumesFrom": noList, "Devices": noList,
			"DeviceRequests": noList, "Ulimits": noList, "PortBindings": noMap,
		},
		"NetworkSettings": {"Ports": noMap, "Networks": noMap},
	}
}

// imageAbsent are those of an image.
func imageAbsent() map[string]map[string]any {
	var noMap dict
	var noList []any
	return map[string]map[string]any{
		"": {
			"Comment": "", "Created": "", "Author": "", "Variant": "", "OsVersion": "", "RepoTags": noList, "RepoDigests": noList,
			"Config": noMap, "GraphDriver": noMap, "Parent": "", "Container": "", "DockerVersion": "",
		},
		"Config": {
			"Env": noList, "Cmd": noList, "Entrypoint": noList, "ExposedPorts": noMap, "Labels": noMap, "Volumes": noMap,
			"User": "", "WorkingDir": "", "StopSignal": "", "OnBuild": noList, "Healthcheck": noMap, "Shell": noList,
		},
	}
}

// goNames are the Go names that templates use, by the JSON names that differ from them.
func goNames() map[string]string {
	return map[string]string{
		"ID": "Id", "CPUShares": "CpuShares", "NanoCPUs": "NanoCpus", "CPUPeriod": "CpuPeriod", "CPUQuota": "CpuQuota",
		"CPURealtimePeriod": "CpuRealtimePeriod", "CPURealtimeRuntime": "CpuRealtimeRuntime", "CPUCount": "CpuCount",
		"CPUPercent": "CpuPercent", "DNS": "Dns", "DNSOptions": "DnsOptions", "DNSSearch": "DnsSearch", "HostIP": "HostIp",
	}
}
