package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"
	"time"

	"skiff/client"
	"skiff/internal/version"
)

func setupEvents(c *command) {
	var since, until, format string
	var filters client.Filters
	c.flags.VarP(filterValue{&filters}, "filter", "f", "What the events have to be like (key=value)")
	c.flags.StringVar(&since, "since", "", "Also events since a time")
	c.flags.StringVar(&until, "until", "", "Only events until a time")
	c.flags.StringVar(&format, "format", "", "Form of the output: 'json', or a TEMPLATE")
	c.choices("format", "json")
	c.value("filter", func(context.Context) []string {
		return []string{"config=", "container=", "daemon=", "event=", "image=", "label=", "network=", "type=", "volume="}
	})
	c.run = func(ctx context.Context, args []string) error {
		now := time.Now()
		var err error
		if since, err = timestamp(since, now); err != nil {
			return fmt.Errorf("invalid value for \"since\": %w", err)
		}
		if until, err = timestamp(until, now); err != nil {
			return fmt.Errorf("invalid value for \"until\": %w", err)
		}
		show, err := eventPrinter(c.Out, format)
		if err != nil {
			return &statusError{code: 64, text: err.Error()}
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		stream, err := cl.Events(ctx, since, until, filters)
		if err != nil {
			return err
		}
		defer stream.Close()
		return client.Decode(stream, show)
	}
}

// eventPrinter prints a line for each event.
func eventPrinter(w io.Writer, format string) (func(*json.RawMessage) error, error) {
	if format == "" {
		return func(text *json.RawMessage) error {
			var e client.Event
			if err := json.Unmarshal(*text, &e); err != nil {
				return err
			}
			_, err := io.WriteString(w, eventLine(&e))
			return err
		}, nil
	}
	if format == "json" {
		format = "{{json .}}"
	}
	tmpl, err := parseTemplate(unescape(format))
	if err != nil {
		return nil, err
	}
	return func(text *json.RawMessage) error {
		d, err := parseDocument(*text)
		if err != nil {
			return err
		}
		if o, ok := d.root.(dict); ok {
			// Docker's templates use Go's names, and the fields of older API versions.
			for from, to := range map[string]string{"scope": "Scope", "time": "Time", "timeNano": "TimeNano"} {
				if v, ok := o[from]; ok {
					o[to] = v
				}
			}
			if actor, ok := o["Actor"].(dict); ok {
				o["ID"], o["Status"] = actor["ID"], o["Action"]
				if attrs, ok := actor["Attributes"].(dict); ok {
					o["From"] = attrs["image"]
				}
			}
		}
		var b bytes.Buffer
		if err := tmpl.Funcs(d.funcs()).Execute(&b, d.root); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		b.WriteByte('\n')
		_, err = w.Write(b.Bytes())
		return err
	}, nil
}

// eventLine is "time type action id (key=value, …)".
func eventLine(e *client.Event) string {
	var b strings.Builder
	const layout = "2006-01-02T15:04:05.000000000Z07:00"
	switch {
	case e.TimeNano != 0:
		b.WriteString(time.Unix(0, e.TimeNano).Format(layout) + " ")
	case e.Time != 0:
		b.WriteString(time.Unix(e.Time, 0).Format(layout) + " ")
	}
	b.WriteString(e.Type + " " + e.Action + " " + e.Actor.ID)
	if len(e.Actor.Attributes) > 0 {
		attrs := make([]string, 0, len(e.Actor.Attributes))
		for k, v := range e.Actor.Attributes {
			attrs = append(attrs, k+"="+v)
		}
		sort.Strings(attrs)
		b.WriteString(" (" + strings.Join(attrs, ", ") + ")")
	}
	b.WriteByte('\n')
	return b.String()
}

func setupDialStdio(c *command) {
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		conn, err := cl.RawConn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		answered := make(chan error, 1)
		go func() {
			_, err := io.Copy(c.Out, conn)
			answered <- err
		}()
		asked := make(chan error, 1)
		go func() {
			_, err := io.Copy(conn, c.In)
			if cw, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
				err = cw.CloseWrite()
			}
			asked <- err
		}()
		select {
		case err := <-answered:
			return err
		case err := <-asked:
			if err != nil {
				return err
			}
			return <-answered
		}
	}
}

// clientVersion is what `skiff version` tells of the client.
type clientVersion struct {
	Version, ApiVersion, DefaultAPIVersion, GitCommit, GoVersion, Os, Arch, BuildTime, Context string //nolint:revive,staticcheck // docker's names
}

func setupVersion(c *command) {
	var format string
	c.flags.StringVarP(&format, "format", "f", "", "Form of the output: 'json', or a TEMPLATE")
	c.choices("format", "json")
	c.run = func(ctx context.Context, args []string) error {
		v := clientVersion{
			Version: version.Version, ApiVersion: client.MaxVersion, DefaultAPIVersion: client.MaxVersion, GitCommit: version.Commit,
			GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, Context: "default",
		}
		var server json.RawMessage
		cl, err := c.client()
		if err == nil {
			server, err = cl.ServerVersion(ctx)
			v.ApiVersion, v.Context = cl.Version(), c.where.context
		}
		if perr := c.printVersion(v, server, format); perr != nil {
			return perr
		}
		return err
	}
}

func (a *App) printVersion(v clientVersion, server json.RawMessage, format string) error {
	if format != "" {
		cj, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if server == nil {
			server = json.RawMessage("null")
		}
		text := fmt.Sprintf(`{"Client":%s,"Server":%s}`, cj, compactJSON(server))
		if format == "json" {
			format = "{{json .}}"
		}
		return a.printDocument([]byte(text), format, map[string]string{"APIVersion": "ApiVersion"})
	}
	rows := [][2]string{
		{"Version:", v.Version},
		{"API version:", v.ApiVersion},
		{"Go version:", v.GoVersion},
		{"Git commit:", v.GitCommit},
		{"OS/Arch:", v.Os + "/" + v.Arch},
		{"Context:", v.Context},
	}
	if v.ApiVersion != v.DefaultAPIVersion {
		rows[1][1] += " (downgraded from " + v.DefaultAPIVersion + ")"
	}
	fmt.Fprint(a.Out, "Client:\n")
	for _, r := range rows {
		fmt.Fprintf(a.Out, " %-18s %s\n", r[0], r[1])
	}
	if server == nil {
		return nil
	}
	return a.printServerVersion(server)
}

// serverVersion is the part of GET /version that is printed.
type serverVersion struct {
	Platform                                                     struct{ Name string }
	Version, ApiVersion, MinAPIVersion, GitCommit, GoVersion, Os string //nolint:revive,staticcheck // the API's names
	Arch, KernelVersion, BuildTime                               string
	Experimental                                                 bool
	Components                                                   []struct {
		Name, Version string
		Details       map[string]string
	}
}

func (a *App) printServerVersion(text json.RawMessage) error {
	var s serverVersion
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("read the daemon's version: %w", err)
	}
	name := ""
	if s.Platform.Name != "" {
		name = " " + s.Platform.Name
	}
	fmt.Fprintf(a.Out, "\nServer:%s\n", name)
	line := func(k, v string) { fmt.Fprintf(a.Out, "  %-17s %s\n", k+":", v) }
	if len(s.Components) == 0 {
		fmt.Fprint(a.Out, " Engine:\n")
		line("Version", s.Version)
		line("API version", s.ApiVersion+" (minimum version "+s.MinAPIVersion+")")
	}
	for _, comp := range s.Components {
		fmt.Fprintf(a.Out, " %s:\n", comp.Name)
		line("Version", comp.Version)
		d := comp.Details
		if comp.Name == "Engine" {
			line("API version", d["ApiVersion"]+" (minimum version "+d["MinAPIVersion"]+")")
			line("Go version", d["GoVersion"])
			line("Git commit", d["GitCommit"])
			if t := d["BuildTime"]; t != "" {
				if parsed, err := time.Parse(time.RFC3339Nano, t); err == nil {
					t = parsed.Format(time.ANSIC)
				}
				line("Built", t)
			}
			line("OS/Arch", d["Os"]+"/"+d["Arch"])
			line("Experimental", d["Experimental"])
			continue
		}
		keys := make([]string, 0, len(d))
		for k := range d {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			line(k, d[k])
		}
	}
	return nil
}

// printDocument executes a template on JSON.
func (a *App) printDocument(text []byte, format string, alias map[string]string) error {
	tmpl, err := parseTemplate(format)
	if err != nil {
		return &statusError{code: 64, text: err.Error()}
	}
	d, err := parseDocument(text)
	if err != nil {
		return err
	}
	d.complete(nil, alias)
	var b bytes.Buffer
	if err := tmpl.Funcs(d.funcs()).Option("missingkey=error").Execute(&b, d.root); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	b.WriteByte('\n')
	_, err = a.Out.Write(b.Bytes())
	return err
}
