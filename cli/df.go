package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"skiff/client"
)

// usage is what one kind of object takes on the disk.
type usage struct {
	Type, TotalCount, Active, Size, Reclaimable string
}

// diskUsage is GET /system/df: of API 1.52 and newer the …Usage fields, of older ones the lists.
type diskUsage struct {
	ImageUsage, ContainerUsage, VolumeUsage, BuildCacheUsage *struct {
		ActiveCount, TotalCount, Reclaimable, TotalSize int64
	}
	LayersSize int64
	Images     []client.Image
	Containers []client.Summary
	Volumes    []struct {
		UsageData *struct{ RefCount, Size int64 }
	}
	BuildCache []struct {
		InUse, Shared bool
		Size          int64
	}
}

func setupDf(c *command) {
	var format string
	var verbose bool
	c.flags.StringVar(&format, "format", "", "Form of the output: 'table', 'table TEMPLATE', 'json', or a TEMPLATE")
	c.flags.BoolVarP(&verbose, "verbose", "v", false, "Also every single object")
	c.choices("format", "json", "table")
	c.run = func(ctx context.Context, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		text, err := cl.DiskUsage(ctx, verbose)
		if err != nil {
			return err
		}
		var du diskUsage
		if err := json.Unmarshal(text, &du); err != nil {
			return fmt.Errorf("read the daemon's disk usage: %w", err)
		}
		if verbose {
			return c.printUsageOf(&du)
		}
		rows := du.rows()
		if format == "" || format == "table" {
			format = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
		}
		l := listing{w: c.Out, format: format, headers: header{
			"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
		}}
		return l.print(rows)
	}
}

func (d *diskUsage) rows() []any {
	row := func(kind string, total, active, size, reclaimable int64) any {
		r := &usage{Type: kind, TotalCount: fmt.Sprint(total), Active: fmt.Sprint(active), Size: human(size), Reclaimable: human(max(0, reclaimable))}
		if size > 0 && kind != "Build Cache" {
			r.Reclaimable += fmt.Sprintf(" (%d%%)", max(0, reclaimable)*100/size)
		}
		return r
	}
	if u := d.ImageUsage; u != nil {
		rows := []any{row("Images", u.TotalCount, u.ActiveCount, u.TotalSize, u.Reclaimable)}
		for _, k := range []struct {
			name string
			u    *struct{ ActiveCount, TotalCount, Reclaimable, TotalSize int64 }
		}{{"Containers", d.ContainerUsage}, {"Local Volumes", d.VolumeUsage}, {"Build Cache", d.BuildCacheUsage}} {
			if k.u == nil {
				rows = append(rows, row(k.name, 0, 0, 0, 0))
				continue
			}
			rows = append(rows, row(k.name, k.u.TotalCount, k.u.ActiveCount, k.u.TotalSize, k.u.Reclaimable))
		}
		return rows
	}
	var images, containers, volumes, cache struct{ active, size, reclaimable int64 }
	used := int64(0)
	for _, i := range d.Images {
		if i.Containers > 0 {
			images.active++
			if i.SharedSize >= 0 {
				used += i.Size - i.SharedSize
			}
		}
	}
	for i := range d.Containers {
		s := &d.Containers[i]
		containers.size += s.SizeRw
		if s.State == "running" || s.State == "paused" || s.State == "restarting" {
			containers.active++
		} else {
			containers.reclaimable += s.SizeRw
		}
	}
	for _, v := range d.Volumes {
		if u := v.UsageData; u != nil && u.Size >= 0 {
			volumes.size += u.Size
			if u.RefCount == 0 {
				volumes.reclaimable += u.Size
			} else {
				volumes.active++
			}
		}
	}
	for _, b := range d.BuildCache {
		if b.InUse {
			cache.active++
		}
		if !b.Shared {
			cache.size += b.Size
			if !b.InUse {
				cache.reclaimable += b.Size
			}
		}
	}
	return []any{
		row("Images", int64(len(d.Images)), images.active, d.LayersSize, d.LayersSize-used),
		row("Containers", int64(len(d.Containers)), containers.active, containers.size, containers.reclaimable),
		row("Local Volumes", int64(len(d.Volumes)), volumes.active, volumes.size, volumes.reclaimable),
		row("Build Cache", int64(len(d.BuildCache)), cache.active, cache.size, cache.reclaimable),
	}
}

// printUsageOf prints single images and containers.
func (a *App) printUsageOf(d *diskUsage) error {
	fmt.Fprint(a.Out, "Images space usage:\n\n")
	rows := make([]any, 0, len(d.Images))
	for i := range d.Images {
		for _, r := range imageRows(&d.Images[i], false, false, time.Now()) {
			rows = append(rows, &r)
		}
	}
	l := listing{w: a.Out, headers: header{
		"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
		"SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
	}}
	words := []string{"Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"}
	l.format = "table {{." + strings.Join(words, "}}\t{{.") + "}}"
	if err := l.print(rows); err != nil {
		return err
	}
	fmt.Fprint(a.Out, "\nContainers space usage:\n\n")
	rows = rows[:0]
	for i := range d.Containers {
		r := psRowOf(&d.Containers[i], false, time.Now())
		rows = append(rows, &r)
	}
	l.headers = psHeaders()
	words = []string{"ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"}
	l.format = "table {{." + strings.Join(words, "}}\t{{.") + "}}"
	return l.print(rows)
}
