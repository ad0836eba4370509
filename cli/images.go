package cli

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"skiff/client"
)

func setupImages(c *command) {
	i := &imagesCommand{command: c}
	f := c.flags
	f.BoolVarP(&i.o.All, "all", "a", false, "Also images that only others are made of")
	f.BoolVar(&i.digests, "digests", false, "Also digests")
	f.VarP(filterValue{&i.o.Filters}, "filter", "f", "What the images have to be like (key=value)")
	f.StringVar(&i.format, "format", "", "Form of the output: 'table', 'table TEMPLATE', 'json', or a TEMPLATE")
	f.BoolVar(&i.noTrunc, "no-trunc", false, "Don't cut anything")
	f.BoolVarP(&i.quiet, "quiet", "q", false, "Only ids")
	f.BoolVar(&i.tree, "tree", false, "Also the platforms of each image")
	c.value("filter", func(context.Context) []string {
		return []string{"before=", "dangling=", "label=", "reference=", "since=", "until="}
	})
	c.choices("format", "json", "table")
	c.words = func(ctx context.Context, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return c.images()(ctx)
	}
	c.run = i.run
}

type imagesCommand struct {
	*command
	o                             client.ImageListOptions
	digests, noTrunc, quiet, tree bool
	format                        string
}

func (i *imagesCommand) run(ctx context.Context, args []string) error {
	if len(args) == 1 {
		if i.o.Filters == nil {
			i.o.Filters = client.Filters{}
		}
		i.o.Filters.Add("reference", args[0])
	}
	if i.tree {
		switch {
		case i.quiet:
			return fmt.Errorf("--quiet is not yet supported with --tree")
		case i.noTrunc:
			return fmt.Errorf("--no-trunc is not yet supported with --tree")
		case i.digests:
			return fmt.Errorf("--show-digest is not yet supported with --tree")
		case i.format != "":
			return fmt.Errorf("--format is not yet supported with --tree")
		}
	}
	cl, err := i.client()
	if err != nil {
		return err
	}
	if i.format == "" && !i.quiet {
		i.format = client.LoadConfig(i.configDir()).ImagesFormat
	}
	_, tty := terminal(i.Out)
	usage := i.tree || tty && i.format == "" && !i.quiet && !i.digests && !i.noTrunc
	i.o.Manifests = usage
	list, err := cl.Images(ctx, i.o)
	if err != nil {
		return err
	}
	if usage {
		return i.usageTable(list)
	}
	return i.print(list)
}

// imageRow has the words of images' templates.
type imageRow struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Repository, SharedSize, Size, Tag, UniqueSize string
}

func (i *imagesCommand) print(list []client.Image) error {
	needDigest := i.digests || strings.Contains(i.format, ".Digest")
	now := time.Now()
	var rows []imageRow
	for k := range list {
		rows = append(rows, imageRows(&list[k], needDigest, i.noTrunc, now)...)
	}
	switch {
	case i.quiet && (i.format == "" || i.format == "table"):
		var b strings.Builder
		for _, r := range rows {
			b.WriteString(r.ID + "\n")
		}
		_, err := i.Out.Write([]byte(b.String()))
		return err
	case i.format == "" || i.format == "table":
		t := newTable(i.Out, 10)
		if i.digests {
			t.row("REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE")
		} else {
			t.row("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")
		}
		for _, r := range rows {
			if i.digests {
				t.row(r.Repository, r.Tag, r.Digest, r.ID, r.CreatedSince, r.Size)
			} else {
				t.row(r.Repository, r.Tag, r.ID, r.CreatedSince, r.Size)
			}
		}
		return t.flush()
	}
	all := make([]any, len(rows))
	for k := range rows {
		all[k] = &rows[k]
	}
	l := listing{w: i.Out, format: i.format, headers: header{
		"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
		"Size": "SIZE", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
	}}
	return l.print(all)
}

// imageRows makes a row of every name of an image.
func imageRows(im *client.Image, needDigest, noTrunc bool, now time.Time) []imageRow {
	base := imageRow{
		ID: im.ID, CreatedSince: "N/A", CreatedAt: time.Unix(im.Created, 0).String(), Size: units.HumanSizeWithPrecision(float64(im.Size), 3),
		Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A", Digest: "<none>", Repository: "<none>", Tag: "<none>",
	}
	if !noTrunc {
		base.ID = shortID(im.ID)
	}
	if im.Created > 0 {
		base.CreatedSince = ago(im.Created, now)
	}
	if im.Containers >= 0 {
		base.Containers = strconv.FormatInt(im.Containers, 10)
	}
	if im.SharedSize >= 0 {
		base.SharedSize = units.HumanSize(float64(im.SharedSize))
		base.UniqueSize = units.HumanSize(float64(im.Size - im.SharedSize))
	}
	tags, digests := namesByRepo(im)
	if len(tags) == 0 && len(digests) == 0 {
		return []imageRow{base}
	}
	var rows []imageRow
	for _, repo := range sortedKeys(tags, digests) {
		row := base
		row.Repository = repo
		for _, tag := range tags[repo] {
			row.Tag = tag
			if !needDigest || len(digests[repo]) == 0 {
				rows = append(rows, row)
				continue
			}
			for _, d := range digests[repo] {
				r := row
				r.Digest = d
				rows = append(rows, r)
			}
		}
		if len(tags[repo]) == 0 {
			for _, d := range digests[repo] {
				r := row
				r.Digest = d
				rows = append(rows, r)
				if !needDigest {
					break
				}
			}
		}
	}
	return rows
}

func namesByRepo(im *client.Image) (tags, digests map[string][]string) {
	tags, digests = map[string][]string{}, map[string][]string{}
	for _, t := range im.RepoTags {
		if r, err := parseRef(t); err == nil && r.tag != "" {
			tags[r.familiar()] = append(tags[r.familiar()], r.tag)
		}
	}
	for _, d := range im.RepoDigests {
		if r, err := parseRef(d); err == nil && r.digest != "" {
			digests[r.familiar()] = append(digests[r.familiar()], r.digest)
		}
	}
	return tags, digests
}

func sortedKeys(maps ...map[string][]string) []string {
	seen := map[string]bool{}
	var keys []string
	for _, m := range maps {
		for k := range m {
			if !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
	}
	sort.Strings(keys)
	return keys
}

// usageTable is what a terminal shows: one line for each name, with what it takes on the disk, and whether it is in use.
func (i *imagesCommand) usageTable(list []client.Image) error {
	t := newTable(i.Out, 10)
	t.row("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
	for k := range list {
		im := &list[k]
		names := append([]string(nil), im.RepoTags...)
		sort.Strings(names)
		if len(names) == 0 {
			names = []string{"<untagged>"}
		}
		extra := ""
		if im.Containers > 0 {
			extra = "U"
		}
		var total, content int64
		for _, m := range im.Manifests {
			if m.Available {
				total, content = total+m.Size.Total, content+m.Size.Content
			}
			if m.ImageData != nil && len(m.ImageData.Containers) > 0 {
				extra = "U"
			}
		}
		if total == 0 {
			total = im.Size
		}
		for _, n := range names {
			t.row(n, shortID(im.ID), human(total), human(content), extra)
			i.platforms(t, im)
		}
	}
	return t.flush()
}

// platforms adds the lines of --tree.
func (i *imagesCommand) platforms(t *table, im *client.Image) {
	if !i.tree {
		return
	}
	var shown []client.ImageManifest
	for _, m := range im.Manifests {
		if m.ImageData != nil {
			shown = append(shown, m)
		}
	}
	for k, m := range shown {
		branch := "├─ "
		if k == len(shown)-1 {
			branch = "└─ "
		}
		p := m.ImageData.Platform
		name := p.OS + "/" + p.Architecture
		if p.Variant != "" {
			name += "/" + p.Variant
		}
		extra := ""
		if len(m.ImageData.Containers) > 0 {
			extra = "U"
		}
		t.row(branch+name, shortID(m.ID), human(m.Size.Total), human(m.Size.Content), extra)
	}
}

func human(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
