package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"skiff/client"
)

func setupTag(c *command) {
	c.words = func(ctx context.Context, args []string) []string {
		if len(args) > 1 {
			return nil
		}
		return c.images()(ctx)
	}
	c.run = func(ctx context.Context, args []string) error {
		if _, err := parseRef(args[0]); err != nil && !looksLikeID(args[0]) {
			return fmt.Errorf("error parsing reference: %q is not a valid repository/tag: %w", args[0], err)
		}
		target, err := parseRef(args[1])
		if err != nil {
			return fmt.Errorf("error parsing reference: %q is not a valid repository/tag: %w", args[1], err)
		}
		if target.digest != "" {
			return errors.New("refusing to create a tag with a digest reference")
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		return cl.Tag(ctx, args[0], target.familiar(), target.withTag().tag)
	}
}

func setupRmi(c *command) {
	var force, noPrune bool
	var platforms []string
	c.flags.BoolVarP(&force, "force", "f", false, "Remove it although it is in use by a stopped container or has several names")
	c.flags.BoolVar(&noPrune, "no-prune", false, "Leave untagged parents")
	c.flags.Var(&listValue{p: &platforms}, "platform", "Only this platform of a multi-platform image, as linux/arm64")
	c.words = c.all(c.images())
	c.run = func(ctx context.Context, args []string) error {
		ps, err := platformList(platforms)
		if err != nil {
			return err
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		var problems []string
		fatal := false
		for _, name := range args {
			steps, err := cl.RemoveImage(ctx, name, force, noPrune, ps)
			if err != nil {
				fatal = fatal || !client.IsNotFound(err)
				problems = append(problems, err.Error())
				continue
			}
			for _, s := range steps {
				if s.Deleted != "" {
					fmt.Fprintf(c.Out, "Deleted: %s\n", s.Deleted)
				} else {
					fmt.Fprintf(c.Out, "Untagged: %s\n", s.Untagged)
				}
			}
		}
		if len(problems) == 0 {
			return nil
		}
		text := strings.Join(problems, "\n")
		if force && !fatal {
			fmt.Fprintln(c.Err, text)
			return nil
		}
		return errors.New(text)
	}
}

func platformList(list []string) ([]string, error) {
	var out []string
	for _, s := range list {
		for p := range strings.SplitSeq(s, ",") {
			j, err := platformJSON(p)
			if err != nil {
				return nil, err
			}
			out = append(out, j)
		}
	}
	return out, nil
}

func setupLoad(c *command) {
	var input string
	var quiet bool
	var platforms []string
	c.flags.StringVarP(&input, "input", "i", "", "File to read instead of the standard input")
	c.flags.BoolVarP(&quiet, "quiet", "q", false, "No progress")
	c.flags.Var(&listValue{p: &platforms}, "platform", "Only this platform of a multi-platform image, as linux/arm64")
	c.run = func(ctx context.Context, args []string) error {
		ps, err := platformList(platforms)
		if err != nil {
			return err
		}
		in := c.In
		if input != "" {
			f, err := os.Open(input)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		} else if _, tty := terminal(in); tty {
			return errors.New("requested load from stdin, but stdin is empty")
		}
		if _, tty := terminal(c.Out); !tty {
			quiet = true
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		stream, err := cl.Load(ctx, in, quiet, ps)
		if err != nil {
			return err
		}
		defer stream.Close()
		return showProgress(c.Out, stream, nil)
	}
}

func setupSave(c *command) {
	var output string
	var platforms []string
	c.flags.StringVarP(&output, "output", "o", "", "File to write instead of the standard output")
	c.flags.Var(&listValue{p: &platforms}, "platform", "Only this platform of a multi-platform image, as linux/arm64")
	c.words = c.all(c.images())
	c.run = func(ctx context.Context, args []string) error {
		ps, err := platformList(platforms)
		if err != nil {
			return err
		}
		if _, tty := terminal(c.Out); tty && output == "" {
			return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		if output != "" {
			if err := checkOutput(output); err != nil {
				return fmt.Errorf("failed to save image: %w", err)
			}
		}
		stream, err := cl.Save(ctx, args, ps)
		if err != nil {
			return err
		}
		defer stream.Close()
		if output == "" {
			_, err := io.Copy(c.Out, stream)
			return err
		}
		return writeFile(output, stream)
	}
}

// checkOutput refuses a path that can't become a file before anything is transferred.
func checkOutput(path string) error {
	dir := filepath.Dir(path)
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return fmt.Errorf("invalid output path: directory %q does not exist", dir)
	}
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return fmt.Errorf("invalid output path: %q is a directory", path)
	}
	return nil
}

// writeFile writes beside the file and renames: a transfer that breaks off leaves no half file.
func writeFile(path string, r io.Reader) error {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, r); err != nil {
			_ = f.Close()
			return err
		}
		return f.Close()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".skiff_temp_")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func setupImport(c *command) {
	var o client.ImportOptions
	c.flags.VarP(&listValue{p: &o.Changes}, "change", "c", "Dockerfile instruction for the image")
	c.flags.StringVarP(&o.Message, "message", "m", "", "Comment on the image")
	c.flags.StringVar(&o.Platform, "platform", c.Getenv("DOCKER_DEFAULT_PLATFORM"), "Platform of the image, as linux/arm64")
	c.run = func(ctx context.Context, args []string) error {
		if len(args) > 1 {
			o.Ref = args[1]
			if _, err := parseRef(o.Ref); err != nil {
				return err
			}
		}
		o.Source = "-"
		var body io.Reader
		switch {
		case args[0] == "-":
			body = c.In
		case strings.HasPrefix(args[0], "http://"), strings.HasPrefix(args[0], "https://"):
			o.Source, body = args[0], strings.NewReader("")
		default:
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			body = f
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		stream, err := cl.Import(ctx, body, o)
		if err != nil {
			return err
		}
		defer stream.Close()
		return showProgress(c.Out, stream, nil)
	}
}

// historyRow has the words of history's templates.
type historyRow struct {
	Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string
}

func setupHistory(c *command) {
	var format, platform string
	humanSizes, noTrunc, quiet := true, false, false
	c.flags.StringVar(&format, "format", "", "Form of the output: 'table', 'table TEMPLATE', 'json', or a TEMPLATE")
	c.flags.BoolVarP(&humanSizes, "human", "H", true, "Sizes and times for people")
	c.flags.BoolVar(&noTrunc, "no-trunc", false, "Don't cut anything")
	c.flags.BoolVarP(&quiet, "quiet", "q", false, "Only ids")
	c.flags.StringVar(&platform, "platform", "", "Platform of a multi-platform image, as linux/arm64")
	c.choices("format", "json", "table")
	c.words = func(ctx context.Context, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return c.images()(ctx)
	}
	c.run = func(ctx context.Context, args []string) error {
		p, err := platformJSON(platform)
		if err != nil {
			return err
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		items, err := cl.History(ctx, args[0], p)
		if err != nil {
			return err
		}
		rows := make([]any, len(items))
		now := time.Now()
		for i, it := range items {
			r := historyRow{
				Comment: it.Comment, CreatedBy: strings.ReplaceAll(it.CreatedBy, "\t", " "), ID: idOf(it.ID, noTrunc),
				CreatedAt: time.Unix(it.Created, 0).Format(time.RFC3339), CreatedSince: "N/A", Size: human(it.Size),
			}
			if !noTrunc {
				r.CreatedBy = ellipsis(r.CreatedBy, 45)
			}
			if it.Created > 0 {
				r.CreatedSince = ago(it.Created, now)
			}
			if !humanSizes {
				r.CreatedSince, r.Size = r.CreatedAt, fmt.Sprint(it.Size)
			}
			rows[i] = &r
		}
		switch {
		case quiet:
			format = "{{.ID}}"
		case format == "" || format == "table":
			format = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
		}
		l := listing{w: c.Out, format: format, headers: header{
			"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
		}}
		return l.print(rows)
	}
}

// compactJSON is JSON without spaces.
func compactJSON(text json.RawMessage) string {
	b, err := json.Marshal(text)
	if err != nil {
		return string(text)
	}
	return string(b)
}
