package api

import (
	"context"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"

	"skiff/image"
	"skiff/internal/errs"
)

// System is what the API needs to know of the daemon as a whole.
type System interface {
	Info(ctx context.Context) (system.Info, error)
	Version(ctx context.Context) (system.VersionResponse, error)
}

// Login checks credentials against a registry.
type Login interface {
	// Login asks the registry at address (a host, or "https://index.docker.io/v1/" for Docker Hub) whether it takes the
	// credentials. errs.Unauthorized if not. token is an identity token to use from now on instead of the password, or "".
	Login(ctx context.Context, address string, cred image.Credentials) (token string, err error)
}

// ping tells clients what they talk to before they know a version. There is no Builder-Version header as long as there
// is no builder: docker then lets its own default decide.
func (s *Server) ping(c *call) error {
	h := c.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if c.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return c.done(http.StatusOK)
	}
	_, _ = io.WriteString(c, "OK")
	return nil
}

func (s *Server) info(c *call) error {
	info, err := s.System.Info(c.Context())
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, infoFor(c.version, info))
}

func (s *Server) versionInfo(c *call) error {
	v, err := s.System.Version(c.Context())
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, v)
}

func (s *Server) auth(c *call) error {
	var a registry.AuthConfig
	if err := c.read(&a); err != nil {
		return err
	}
	token, err := s.Login.Login(c.Context(), a.ServerAddress, image.Credentials{
		Username:      a.Username,
		Password:      a.Password,
		IdentityToken: a.IdentityToken,
		RegistryToken: a.RegistryToken,
	})
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, registry.AuthResponse{Status: "Login Succeeded", IdentityToken: token})
}

// infoV52 are the fields of /info that came and went.
type infoV52 struct {
	system.Info
	KernelMemory      *bool     `json:",omitempty"` // until 1.41
	KernelMemoryTCP   *bool     `json:",omitempty"` // until 1.41
	BridgeNfIptables  *bool     `json:",omitempty"` // until 1.49
	BridgeNfIP6tables *bool     `json:"BridgeNfIp6tables,omitempty"`
	ContainerdCommit  commitV48 // Expected until 1.48
	RuncCommit        commitV48 // Expected until 1.48
	InitCommit        commitV48 // Expected until 1.48
	Runtimes          any       // without status until 1.43
	RegistryConfig    any       `json:",omitempty"`
}

type commitV48 struct {
	ID       string
	Expected *string `json:",omitempty"`
}

// registryConfigV48 has the lists of foreign layers' registries, always null since dockerd 28.
type registryConfigV48 struct {
	*registry.ServiceConfig
	AllowNondistributableArtifactsCIDRs     []string
	AllowNondistributableArtifactsHostnames []string
}

// infoFor gives the daemon's information the form that version v has.
func infoFor(v Version, info system.Info) any {
	if v < 53 {
		info.NRI = nil
	}
	if v < 49 {
		info.FirewallBackend = nil
	}
	if v < 50 {
		info.DiscoveredDevices = nil
	}
	if v >= 50 {
		return info
	}
	no := new(bool)
	old := infoV52{Info: info, BridgeNfIptables: no, BridgeNfIP6tables: no, Runtimes: info.Runtimes, RegistryConfig: info.RegistryConfig}
	old.ContainerdCommit.ID, old.RuncCommit.ID, old.InitCommit.ID = info.ContainerdCommit.ID, info.RuncCommit.ID, info.InitCommit.ID
	if v < 49 {
		for _, commit := range []*commitV48{&old.ContainerdCommit, &old.RuncCommit, &old.InitCommit} {
			expected := commit.ID
			commit.Expected = &expected
		}
		old.RegistryConfig = registryConfigV48{ServiceConfig: info.RegistryConfig}
	}
	if v < 44 {
		runtimes := map[string]system.Runtime{}
		for name, r := range info.Runtimes {
			runtimes[name] = r.Runtime
		}
		old.Runtimes = runtimes
	}
	if v < 42 {
		old.KernelMemory, old.KernelMemoryTCP = no, no
	}
	return old
}

// diskUsageTypes reads the type parameter of /system/df; everything is wanted if it is not there.
func diskUsageTypes(c *call) (map[system.DiskUsageObject]bool, error) {
	known := []system.DiskUsageObject{system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject}
	want := map[system.DiskUsageObject]bool{}
	if c.version < 42 || len(c.params["type"]) == 0 {
		for _, k := range known {
			want[k] = true
		}
		return want, nil
	}
	for _, t := range c.params["type"] {
		found := false
		for _, k := range known {
			if string(k) == t {
				want[k], found = true, true
			}
		}
		if !found {
			return nil, errs.New(errs.Invalid, "unknown object type: %s", t)
		}
	}
	return want, nil
}
