package api

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skiff/image"
	"skiff/internal/errs"
)

func (s *Server) imagesJSON(c *call) error {
	filters, err := c.filters()
	if err != nil {
		return err
	}
	if old := c.query("filter"); old != "" && c.version < 41 {
		if filters == nil {
			filters = map[string][]string{}
		}
		filters["reference"] = append(filters["reference"], old)
	}
	list, err := s.Images.List(c.Context(), image.ListOptions{
		All:        c.flag("all"),
		Digests:    c.flag("digests"),
		SharedSize: c.version >= 42 && c.flag("shared-size"),
		Manifests:  c.version >= 47 && c.flag("manifests"),
		Filters:    filters,
	})
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, imagesFor(c.version, withoutCounts(c.version, list)))
}

func (s *Server) imageJSON(c *call) error {
	platform, err := c.onePlatform(49)
	if err != nil {
		return err
	}
	manifests := c.version >= 48 && c.flag("manifests")
	if manifests && platform != nil {
		return errs.New(errs.Invalid, "conflicting options: manifests and platform options cannot both be set")
	}
	r, err := s.Images.Inspect(c.Context(), c.name, platform, manifests)
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, imageFor(c.version, r))
}

func (s *Server) imageHistory(c *call) error {
	platform, err := c.onePlatform(48)
	if err != nil {
		return err
	}
	list, err := s.Images.History(c.Context(), c.name, platform)
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, list)
}

func (s *Server) imageTag(c *call) error {
	target := c.query("repo")
	if tag := c.query("tag"); tag != "" {
		target += ":" + tag
	}
	if err := s.Images.Tag(c.Context(), c.name, target); err != nil {
		return err
	}
	return c.done(http.StatusCreated)
}

func (s *Server) imageDelete(c *call) error {
	if len(c.params["platforms"]) > 0 && c.version >= 50 {
		return errs.New(errs.NotImplemented, "skiff: DELETE /images/{name} with platforms is not there yet")
	}
	list, err := s.Images.Remove(c.Context(), c.name, image.RemoveOptions{
		Force:   c.flag("force"),
		NoPrune: c.flag("noprune"),
	})
	if err != nil {
		return err
	}
	return c.answer(http.StatusOK, list)
}

// imagesCreate pulls (fromImage) or imports (fromSrc).
func (s *Server) imagesCreate(c *call) error {
	if c.query("fromImage") != "" {
		return s.imagePull(c)
	}
	if c.query("fromSrc") == "" {
		return errs.New(errs.Invalid, "POST /images/create needs either fromImage (pull) or fromSrc (import)")
	}
	return s.imageImport(c)
}

func (s *Server) imagePull(c *call) error {
	platform, err := platformOf(c.query("platform"))
	if err != nil {
		return err
	}
	credentials, err := c.credentials()
	if err != nil {
		return err
	}
	ref, err := pullReference(c.query("fromImage"), c.query("tag"))
	if err != nil {
		return err
	}
	p := progress{c: c}
	err = s.Images.Pull(c.Context(), ref, image.PullOptions{
		Platform:    platform,
		Credentials: credentials,
		Progress:    p.message,
	})
	return p.end(err)
}

// pullReference joins the two parameters of a pull.
func pullReference(name, tag string) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", errs.New(errs.Invalid, "invalid reference format: %q: %w", name, err)
	}
	if _, pinned := ref.(reference.Digested); pinned { // a digest says more than any tag
		return name, nil
	}
	if strings.Contains(tag, ":") {
		return reference.FamiliarName(ref) + "@" + tag, nil
	}
	if tag != "" {
		return reference.FamiliarName(ref) + ":" + tag, nil
	}
	if reference.IsNameOnly(ref) {
		return "", errs.New(errs.NotImplemented, "skiff: pulling all tags of %s is not there yet: name one, as in %s:latest", name, name)
	}
	return name, nil
}

// credentials decodes X-Registry-Auth.
func (c *call) credentials() (image.Credentials, error) {
	header := c.Request.Header.Get("X-Registry-Auth")
	if header == "" {
		return image.Credentials{}, nil
	}
	a, err := authconfig.Decode(header)
	if err != nil {
		return image.Credentials{}, errs.As(errs.Invalid, err)
	}
	return image.Credentials{
		Username:      a.Username,
		Password:      a.Password,
		IdentityToken: a.IdentityToken,
		RegistryToken: a.RegistryToken,
	}, nil
}

func (s *Server) imageImport(c *call) error {
	platform, err := platformOf(c.query("platform"))
	if err != nil {
		return err
	}
	opt := image.ImportOptions{
		Repo:     c.query("repo"),
		Tag:      c.query("tag"),
		Message:  c.query("message"),
		Changes:  c.params["changes"],
		Platform: platform,
	}
	p := progress{c: c}
	src := io.ReadCloser(c.Body)
	if from := c.query("fromSrc"); from != "-" {
		if src, err = fetch(c.Context(), from); err != nil {
			return err
		}
		p.send(progressLine{Status: "Downloading from " + from})
	}
	defer src.Close()
	id, err := s.Images.Import(c.Context(), src, opt)
	if err == nil {
		p.send(progressLine{Status: id})
	}
	return p.end(err)
}

// fetch opens the address that an import names. A bare host name means http, as in dockerd.
func fetch(ctx context.Context, from string) (io.ReadCloser, error) {
	url := from
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errs.New(errs.Invalid, "import from %s: %w", from, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, errs.New(errs.Invalid, "import from %s: %w", from, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, errs.New(errs.Invalid, "import from %s: the server answered %s", from, resp.Status)
	}
	return resp.Body, nil
}

func (s *Server) imagesLoad(c *call) error {
	var p progress
	p.c = c
	platforms, err := c.platforms(52, 48)
	if err != nil {
		return err
	}
	report := p.message
	if c.flag("quiet") {
		report = func(image.Message) {}
	}
	loaded, err := s.Images.Load(c.Context(), c.Body, platforms, report)
	for _, name := range loaded {
		if strings.HasPrefix(name, "sha256:") {
			p.send(progressLine{Stream: "Loaded image ID: " + name + "\n"})
		} else {
			p.send(progressLine{Stream: "Loaded image: " + name + "\n"})
		}
	}
	return p.end(err)
}

// platforms decodes the platform parameter of load and save: several since one version, one since another, none before.
func (c *call) platforms(several, one Version) (all []ocispec.Platform, err error) {
	if c.version < one {
		return nil, nil
	}
	if c.version < several && len(c.params["platform"]) > 1 {
		return nil, errs.New(errs.Invalid, "several platforms need API version %s or newer, this request is of version %s", several, c.version)
	}
	return platformsOf(c.params["platform"])
}

func (s *Server) imageGet(c *call) error {
	return s.save(c, []string{c.name})
}

func (s *Server) imagesGet(c *call) error {
	names := c.params["names"]
	if len(names) == 0 {
		return errs.New(errs.Invalid, "GET /images/get needs at least one name")
	}
	return s.save(c, names)
}

func (s *Server) save(c *call, names []string) error {
	platforms, err := c.platforms(52, 48)
	if err != nil {
		return err
	}
	out := &watched{w: c}
	c.Header().Set("Content-Type", mediaTar)
	err = s.Images.Save(c.Context(), names, platforms, out)
	if err != nil && out.failed {
		return nil // the client left
	}
	return err
}
