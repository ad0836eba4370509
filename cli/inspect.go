package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"

	"skiff/client"
)

type inspectCommand struct {
	*command
	format, kind, platform string
	size                   bool
}

func setupInspect(c *command) {
	i := inspectFlags(c)
	c.flags.StringVar(&i.kind, "type", "", "Only objects of this type")
	c.flags.BoolVarP(&i.size, "size", "s", false, "Also sizes, for containers")
	c.choices("type", "container", "image")
	c.words = c.all(func(ctx context.Context) []string { return append(c.containers(anyState)(ctx), c.images()(ctx)...) })
}

func setupInspectContainer(c *command) {
	i := inspectFlags(c)
	i.kind = "container"
	c.flags.BoolVarP(&i.size, "size", "s", false, "Also sizes")
	c.words = c.all(c.containers(anyState))
}

func setupInspectImage(c *command) {
	i := inspectFlags(c)
	i.kind = "image"
	c.flags.StringVar(&i.platform, "platform", "", "Platform of a multi-platform image, as linux/arm64")
	c.words = c.all(c.images())
}

func inspectFlags(c *command) *inspectCommand {
	i := &inspectCommand{command: c}
	c.flags.StringVarP(&i.format, "format", "f", "", "Form of the output: 'json', or a TEMPLATE")
	c.choices("format", "json")
	c.run = i.run
	return i
}

func (i *inspectCommand) run(ctx context.Context, names []string) error {
	switch i.kind {
	case "", "container", "image":
	default:
		return fmt.Errorf("unknown type: %q: must be one of \"container\", \"image\"", i.kind)
	}
	platform, err := platformJSON(i.platform)
	if err != nil {
		return err
	}
	cl, err := i.client()
	if err != nil {
		return err
	}
	out := &inspectOutput{format: i.format}
	if err := out.parse(); err != nil {
		return &statusError{code: 64, text: err.Error()}
	}
	var problems []string
	for _, name := range names {
		text, kind, err := i.find(ctx, cl, name, platform)
		if err == nil {
			err = out.add(text, kind)
		}
		if err != nil {
			problems = append(problems, err.Error())
		}
	}
	if _, err := i.Out.Write(out.bytes()); err != nil {
		return err
	}
	if len(problems) > 0 {
		return &statusError{code: 1, text: strings.Join(problems, "\n")}
	}
	return nil
}

// find asks for a container and, if there is none of that name, for an image.
func (i *inspectCommand) find(ctx context.Context, cl *client.Client, name, platform string) (json.RawMessage, string, error) {
	if i.kind != "image" {
		text, err := cl.InspectContainer(ctx, name, i.size)
		if err == nil || i.kind == "container" || !client.IsNotFound(err) {
			return text, "container", err
		}
	}
	text, err := cl.InspectImage(ctx, name, platform)
	if err != nil && i.kind == "" && client.IsNotFound(err) {
		return nil, "", fmt.Errorf("Error: No such object: %s", name)
	}
	return text, "image", err
}

// inspectOutput collects what is printed: an indented array, a line of JSON each, or what a template makes of each.
type inspectOutput struct {
	format string
	tmpl   *template.Template
	out    bytes.Buffer
	list   []json.RawMessage
}

func (o *inspectOutput) parse() error {
	if o.format == "" || o.format == "json" {
		return nil
	}
	var err error
	o.tmpl, err = parseTemplate(o.format)
	return err
}

func (o *inspectOutput) add(text json.RawMessage, kind string) error {
	if o.tmpl == nil {
		o.list = append(o.list, text)
		return nil
	}
	d, err := parseDocument(text)
	if err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	absent := containerAbsent()
	if kind == "image" {
		absent = imageAbsent()
	}
	d.complete(absent, goNames())
	var b bytes.Buffer
	if err := o.tmpl.Funcs(d.funcs()).Option("missingkey=error").Execute(&b, d.root); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	o.out.Write(b.Bytes())
	o.out.WriteByte('\n')
	return nil
}

func (o *inspectOutput) bytes() []byte {
	if o.tmpl != nil {
		if o.out.Len() == 0 {
			return []byte("\n")
		}
		return o.out.Bytes()
	}
	if len(o.list) == 0 {
		return []byte("[]\n")
	}
	all := []byte("[") // not json.Marshal: it would escape < and >
	for i, text := range o.list {
		if i > 0 {
			all = append(all, ',')
		}
		all = append(all, text...)
	}
	all = append(all, ']')
	var b bytes.Buffer
	if o.format == "json" {
		b.Write(all)
	} else if json.Indent(&b, all, "", "    ") != nil {
		return []byte("[]\n")
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// platformJSON turns os/arch/variant into the API's JSON.
func platformJSON(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return "", fmt.Errorf("invalid platform %q: it must be of the form os/arch[/variant]", s)
	}
	p := map[string]string{"os": parts[0], "architecture": parts[1]}
	if len(parts) == 3 {
		p["variant"] = parts[2]
	}
	b, err := json.Marshal(p)
	return string(b), err
}
