package cli

import (
	"context"
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"skiff/client"
)

func setupPs(c *command) {
	var o client.ListOptions
	var last int
	var latest, noTrunc, quiet bool
	var format string
	f := c.flags
	f.BoolVarP(&o.All, "all", "a", false, "Also containers that don't run")
	f.VarP(filterValue{&o.Filters}, "filter", "f", "What the containers have to be like (key=value)")
	f.StringVar(&format, "format", "", "Form of the output: 'table', 'table TEMPLATE', 'json', or a TEMPLATE")
	f.IntVarP(&last, "last", "n", -1, "The newest n containers, in any state")
	f.BoolVarP(&latest, "latest", "l", false, "The newest container, in any state")
	f.BoolVar(&noTrunc, "no-trunc", false, "Don't cut anything")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only ids")
	f.BoolVarP(&o.Size, "size", "s", false, "Also the sizes of the files")
	c.value("filter", func(context.Context) []string {
		return []string{"ancestor=", "before=", "exited=", "expose=", "health=", "id=", "is-task=", "label=", "name=", "network=", "publish=", "since=", "status=", "volume="}
	})
	c.choices("format", "json", "table")
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		o.Limit = last
		if latest && last < 0 {
			o.Limit = 1
		}
		if format == "" && !quiet {
			format = client.LoadConfig(c.configDir()).PsFormat
		}
		if strings.Contains(format, ".Size") {
			o.Size = true
		}
		list, err := cl.List(ctx, o)
		if err != nil {
			return err
		}
		return printContainers(c.App, list, format, quiet, noTrunc, o.Size)
	}
}

func printContainers(a *App, list []client.Summary, format string, quiet, noTrunc, size bool) error {
	switch {
	case quiet && (format == "" || format == "table"):
		var b strings.Builder
		for i := range list {
			id := list[i].ID
			if !noTrunc {
				id = shortID(id)
			}
			b.WriteString(id + "\n")
		}
		_, err := a.Out.Write([]byte(b.String()))
		return err
	case format == "" || format == "table":
		return containerTable(a, list, noTrunc, size)
	}
	if format == "raw" {
		format = rawPs
		if quiet {
			format = "container_id: {{.ID}}"
		} else if size {
			format += "size: {{.Size}}\n"
		}
	}
	rows := make([]any, len(list))
	now := time.Now()
	for i := range list {
		r := psRowOf(&list[i], noTrunc, now)
		rows[i] = &r
	}
	l := listing{w: a.Out, format: format, headers: psHeaders()}
	return l.print(rows)
}

const rawPs = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{.State}}\nstatus: {{.Status}}\nnames: {{.Names}}\nlabels: {{.Labels}}\nports: {{.Ports}}\n"

// containerTable is the default output. It does without a template: the list may be long.
func containerTable(a *App, list []client.Summary, noTrunc, size bool) error {
	t := newTable(a.Out, 10)
	head := []string{"CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"}
	if size {
		head = append(head, "SIZE")
	}
	t.row(head...)
	now := time.Now()
	for i := range list {
		s := &list[i]
		cells := []string{
			idOf(s.ID, noTrunc), imageOf(s, noTrunc), commandOf(s, noTrunc), ago(s.Created, now), s.Status, portList(s.Ports), namesOf(s, noTrunc),
		}
		if size {
			cells = append(cells, sizeOf(s))
		}
		t.row(cells...)
	}
	return t.flush()
}

// psRow has the words of ps's templates.
type psRow struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks string
	Platform                                                                     *psPlatform
	Ports, RunningFor, Size, State, Status                                       string

	labels map[string]string
}

type psPlatform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

// Label is a container's label.
func (r *psRow) Label(name string) string { return r.labels[name] }

func psHeaders() header {
	return header{
		"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
		"Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS",
		"LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
	}
}

func psRowOf(s *client.Summary, noTrunc bool, now time.Time) psRow {
	r := psRow{
		ID: idOf(s.ID, noTrunc), Image: imageOf(s, noTrunc), Command: commandOf(s, noTrunc), Names: namesOf(s, noTrunc),
		CreatedAt: time.Unix(s.Created, 0).String(), RunningFor: ago(s.Created, now), Ports: portList(s.Ports),
		State: s.State, Status: s.Status, Size: sizeOf(s), Labels: labelList(s.Labels), labels: s.Labels,
	}
	if d := s.ImageManifestDescriptor; d != nil && d.Platform != nil {
		r.Platform = &psPlatform{Architecture: d.Platform.Architecture, OS: d.Platform.OS, Variant: d.Platform.Variant}
	}
	var mounts []string
	volumes := 0
	for _, m := range s.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if !noTrunc {
			name = ellipsis(name, 15)
		}
		mounts = append(mounts, name)
		if m.Driver == "local" {
			volumes++
		}
	}
	r.Mounts, r.LocalVolumes = strings.Join(mounts, ","), strconv.Itoa(volumes)
	if s.NetworkSettings != nil {
		var networks []string
		for n := range s.NetworkSettings.Networks {
			networks = append(networks, n)
		}
		sort.Strings(networks)
		r.Networks = strings.Join(networks, ",")
	}
	return r
}

func labelList(m map[string]string) string {
	list := make([]string, 0, len(m))
	for k, v := range m {
		list = append(list, k+"="+v)
	}
	sort.Strings(list)
	return strings.Join(list, ",")
}

func idOf(id string, full bool) string {
	if full {
		return id
	}
	return shortID(id)
}

func imageOf(s *client.Summary, noTrunc bool) string {
	if s.Image == "" {
		return "<no image>"
	}
	if noTrunc {
		return s.Image
	}
	if id := shortID(s.ImageID); id != "" && id == shortID(s.Image) {
		return id
	}
	if name, _, ok := strings.Cut(s.Image, "@"); ok {
		if r, err := parseRef(name); err == nil && r.tag != "" {
			return r.String()
		}
	}
	return s.Image
}

func commandOf(s *client.Summary, noTrunc bool) string {
	c := s.Command
	if !noTrunc {
		c = ellipsis(c, 20)
	}
	return strconv.Quote(c)
}

// namesOf drops the leading slash, and names that are links (more than one slash).
func namesOf(s *client.Summary, noTrunc bool) string {
	names := make([]string, 0, len(s.Names))
	for _, n := range s.Names {
		n = strings.TrimPrefix(n, "/")
		if !noTrunc && strings.Contains(n, "/") {
			continue
		}
		names = append(names, n)
	}
	return strings.Join(names, ",")
}

func sizeOf(s *client.Summary) string {
	out := units.HumanSizeWithPrecision(float64(s.SizeRw), 3)
	if s.SizeRootFs > 0 {
		out = fmt.Sprintf("%s (virtual %s)", out, units.HumanSizeWithPrecision(float64(s.SizeRootFs), 3))
	}
	return out
}

func ago(created int64, now time.Time) string {
	return units.HumanDuration(now.Sub(time.Unix(created, 0))) + " ago"
}

// portList joins ports; neighbours that are published at neighbours become ranges.
func portList(ports []client.Port) string {
	type key struct{ ip, proto string }
	type span struct{ first, last uint16 }
	sorted := append([]client.Port(nil), ports...)
	sort.SliceStable(sorted, func(i, j int) bool {
		a, b := sorted[i], sorted[j]
		switch {
		case a.PrivatePort != b.PrivatePort:
			return a.PrivatePort < b.PrivatePort
		case a.IP != b.IP:
			return a.IP < b.IP
		case a.PublicPort != b.PublicPort:
			return a.PublicPort < b.PublicPort
		}
		return a.Type < b.Type
	})
	spans := map[key]*span{}
	var order []key
	var out, single []string
	for _, p := range sorted {
		k := key{"", p.Type}
		if p.PublicPort > 0 {
			if p.PublicPort != p.PrivatePort {
				single = append(single, fmt.Sprintf("%s->%d/%s", hostPort(p.IP, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
			k.ip = p.IP
		}
		if s := spans[k]; s == nil {
			spans[k] = &span{p.PrivatePort, p.PrivatePort}
			order = append(order, k)
		} else if p.PrivatePort == s.last+1 {
			s.last = p.PrivatePort
		} else {
			out = append(out, spanText(k.ip, k.proto, s.first, s.last))
			*s = span{p.PrivatePort, p.PrivatePort}
		}
	}
	for _, k := range order {
		out = append(out, spanText(k.ip, k.proto, spans[k].first, spans[k].last))
	}
	return strings.Join(append(out, single...), ", ")
}

func spanText(ip, proto string, first, last uint16) string {
	s := strconv.Itoa(int(first))
	if first != last {
		s += "-" + strconv.Itoa(int(last))
	}
	if ip != "" {
		s = hostPort(ip, s) + "->" + s
	}
	return s + "/" + proto
}

func hostPort(ip, port string) string {
	if a, err := netip.ParseAddr(ip); err == nil && a.Is6() {
		return "[" + ip + "]:" + port
	}
	return ip + ":" + port
}
