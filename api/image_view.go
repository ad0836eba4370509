package api

import (
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apicontainer "github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
)

// imageSummaryV43 is an entry of the list with the size under its old second name.
type imageSummaryV43 struct {
	apiimage.Summary
	VirtualSize int64
}

// withoutCounts hides how many containers an image has, which GET /images/json did not tell before 1.51.
func withoutCounts(v Version, list []apiimage.Summary) []apiimage.Summary {
	for i := range list {
		if v < 51 {
			list[i].Containers = -1
		}
	}
	return list
}

// imagesFor gives a list of images the form that version v has.
func imagesFor(v Version, list []apiimage.Summary) any {
	if list == nil {
		list = []apiimage.Summary{}
	}
	if v >= 48 {
		return list
	}
	for i := range list {
		m := &list[i]
		m.Descriptor = nil
		if v < 43 && len(m.RepoTags) == 0 && len(m.RepoDigests) == 0 {
			m.RepoTags, m.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
	}
	if v >= 44 {
		return list
	}
	old := make([]imageSummaryV43, len(list))
	for i := range list {
		old[i] = imageSummaryV43{Summary: list[i], VirtualSize: list[i].Size}
	}
	return old
}

// imageV51 is an image as versions up to 1.51 showed it: fields of the classic builder are there even if they are
// empty, and the configuration too. Its fields hide the embedded ones.
type imageV51 struct {
	apiimage.InspectResponse
	Parent        string
	Comment       string
	DockerVersion string
	Author        string
	Config        any

	Container       *string              `json:",omitempty"` // until 1.44
	ContainerConfig *apicontainer.Config `json:",omitempty"` // until 1.44
	VirtualSize     int64                `json:",omitempty"` // until 1.43
}

// imageConfigV51 shows what the image does not set, too.
type imageConfigV51 struct {
	User         string
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string
	Cmd          []string
	Healthcheck  *dockerspec.HealthcheckConfig `json:",omitempty"`
	ArgsEscaped  bool                          `json:",omitempty"`
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	OnBuild      []string
	Labels       map[string]string
	StopSignal   string   `json:",omitempty"`
	Shell        []string `json:",omitempty"`
}

// imageConfigV49 has a container's settings, always unset.
type imageConfigV49 struct {
	imageConfigV51
	Hostname, Domainname                    string
	AttachStdin, AttachStdout, AttachStderr bool
	Tty, OpenStdin, StdinOnce               bool
	Image                                   string
}

// imageFor gives an image the form that version v has.
func imageFor(v Version, r apiimage.InspectResponse) any {
	if v < 53 {
		r.Identity = nil
	}
	if v >= 52 {
		return r
	}
	if v < 48 {
		r.Descriptor, r.Manifests = nil, nil
	}
	if v < 44 && r.Created == "" {
		r.Created = time.Time{}.Format(time.RFC3339Nano)
	}
	old := imageV51{InspectResponse: r, Comment: r.Comment, Author: r.Author}
	if r.Config != nil {
		cfg := configOf(r.Config)
		old.Config = cfg
		if v < 50 {
			old.Config = imageConfigV49{imageConfigV51: cfg}
		}
	}
	if v < 45 {
		old.Container = new(string)
		old.ContainerConfig = &apicontainer.Config{ExposedPorts: network.PortSet{}}
	}
	if v < 44 {
		old.VirtualSize = r.Size
	}
	return old
}

func configOf(c *dockerspec.DockerOCIImageConfig) imageConfigV51 {
	return imageConfigV51{
		User: c.User, ExposedPorts: c.ExposedPorts, Env: c.Env, Cmd: c.Cmd, Healthcheck: c.Healthcheck,
		//lint:ignore SA1019 shown as it is
		ArgsEscaped: c.ArgsEscaped, Volumes: c.Volumes, WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint,
		OnBuild: c.OnBuild, Labels: c.Labels, StopSignal: c.StopSignal, Shell: c.Shell,
	}
}
