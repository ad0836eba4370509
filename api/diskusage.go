package api

import (
	"net/http"

	"github.com/moby/moby/api/types/build"
	apicontainer "github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"skiff/container"
	"skiff/image"
)

// diskUsageV52 is /system/df with the lists and sizes of versions up to 1.52 beside those of 1.52 and newer.
type diskUsageV52 struct {
	system.DiskUsage
	LayersSize  *int64              `json:",omitempty"`
	Images      any                 `json:",omitempty"`
	Containers  any                 `json:",omitempty"`
	Volumes     any                 `json:",omitempty"`
	BuildCache  []build.CacheRecord `json:",omitempty"`
	BuilderSize *int64              `json:",omitempty"` // until 1.41
}

// diskUsage counts what takes space on the disk: images and containers; there are neither volumes nor a build cache yet.
func (s *Server) diskUsage(c *call) error {
	want, err := diskUsageTypes(c)
	if err != nil {
		return err
	}
	var out diskUsageV52
	verbose := c.version >= 52 && c.flag("verbose")
	legacy := c.version < 53 && !verbose
	if want[system.ImageObject] {
		list, err := s.Images.List(c.Context(), image.ListOptions{All: true, SharedSize: true})
		if err != nil {
			return err
		}
		u := imagesUsage(list)
		if legacy {
			out.LayersSize, out.Images = &u.TotalSize, imagesFor(c.version, append([]apiimage.Summary{}, list...))
		}
		if verbose {
			u.Items = list
		}
		out.ImageUsage = u
	}
	if want[system.ContainerObject] {
		list, err := s.Containers.List(c.Context(), container.ListOptions{All: true, Size: true})
		if err != nil {
			return err
		}
		u := containersUsage(list)
		if legacy {
			out.Containers = summariesFor(c.version, append([]apicontainer.Summary{}, list...))
		}
		if verbose {
			u.Items = list
		}
		out.ContainerUsage = u
	}
	if want[system.VolumeObject] {
		out.VolumeUsage = &volume.DiskUsage{}
		if legacy {
			out.Volumes = []volume.Volume{}
		}
	}
	if want[system.BuildCacheObject] {
		out.BuildCacheUsage = &build.DiskUsage{}
	}
	if c.version < 52 {
		out.DiskUsage = system.DiskUsage{}
	}
	if c.version < 42 {
		out.BuilderSize = new(int64)
	}
	return c.answer(http.StatusOK, out)
}

// imagesUsage adds up images. Bytes that several images share are counted once for each image that has them, less what the
// list says is shared: exact as long as no layer is in three images or more.
func imagesUsage(list []apiimage.Summary) *apiimage.DiskUsage {
	u := &apiimage.DiskUsage{TotalCount: int64(len(list))}
	var shared int64
	for _, m := range list {
		own := m.Size
		if m.SharedSize > 0 {
			own -= m.SharedSize
			shared += m.SharedSize
		}
		u.TotalSize += own
		if m.Containers > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += own
		}
	}
	u.TotalSize += shared / 2
	return u
}

func containersUsage(list []apicontainer.Summary) *apicontainer.DiskUsage {
	u := &apicontainer.DiskUsage{TotalCount: int64(len(list))}
	for _, m := range list {
		u.TotalSize += m.SizeRw
		switch m.State {
		case apicontainer.StateRunning, apicontainer.StatePaused, apicontainer.StateRestarting:
			u.ActiveCount++
		default:
			u.Reclaimable += m.SizeRw
		}
	}
	return u
}
