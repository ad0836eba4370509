package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"skiff/client"
)

func setupLogs(c *command) {
	var o client.LogOptions
	f := c.flags
	f.BoolVar(&o.Details, "details", false, "Print the attributes of each line")
	f.BoolVarP(&o.Follow, "follow", "f", false, "Go on with what is written from now on")
	f.StringVar(&o.Since, "since", "", `Lines since a time ("2013-01-02T13:23:37Z") or for a while ("42m")`)
	f.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines from the end")
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Print the time of each line")
	f.StringVar(&o.Until, "until", "", `Lines before a time ("2013-01-02T13:23:37Z") or a while ago ("42m")`)
	c.words = func(ctx context.Context, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return c.containers(anyState)(ctx)
	}
	c.run = func(ctx context.Context, args []string) error {
		var err error
		now := time.Now()
		if o.Since, err = timestamp(o.Since, now); err != nil {
			return fmt.Errorf("invalid value for \"since\": %w", err)
		}
		if o.Until, err = timestamp(o.Until, now); err != nil {
			return fmt.Errorf("invalid value for \"until\": %w", err)
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		r, framed, err := cl.Logs(ctx, args[0], o)
		if err != nil {
			return err
		}
		defer r.Close()
		if framed == nil {
			info, err := c.inspectContainer(ctx, cl, args[0])
			if err != nil {
				return err
			}
			yes := !info.Config.Tty
			framed = &yes
		}
		if *framed {
			return client.Demux(c.Out, c.Err, r)
		}
		_, err = io.Copy(c.Out, r)
		return err
	}
}

// timestamp turns what people write for a time into the API's "seconds.nanoseconds": a Go duration counts back from now; dates
// without a zone are local; a number is handed on.
func timestamp(s string, now time.Time) (string, error) {
	if s == "" || s == "0" {
		return s, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return unixTime(now.Add(-d)), nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return s, nil
	}
	layouts := []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
		"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	}
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l, strings.TrimSpace(s), now.Location()); err == nil {
			return unixTime(t), nil
		}
	}
	return "", fmt.Errorf("failed to parse value as time or duration: %q", s)
}

func unixTime(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
