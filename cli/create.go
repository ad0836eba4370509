package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"skiff/client"
)

func setupCreate(c *command) {
	o := &runOptions{}
	o.define(c)
	c.run = func(ctx context.Context, args []string) error {
		if err := o.checkPull(); err != nil {
			return withHelp(err, "create", 125)
		}
		body, err := o.body(c, args)
		if err != nil {
			return withHelp(err, "create", 125)
		}
		id, err := c.create(ctx, o, body)
		if err != nil {
			return withHelp(err, "create", 1)
		}
		fmt.Fprintln(c.Out, id)
		return nil
	}
}

func withHelp(err error, command string, code int) error {
	return &statusError{code: code, text: errWithHelp(err, command), err: err}
}

func (o *runOptions) checkPull() error {
	switch o.pull {
	case "always", "missing", "never", "":
		return nil
	}
	return fmt.Errorf("invalid pull option: '%s': must be one of %q, %q or %q", o.pull, "always", "missing", "never")
}

// create makes the container, pulls its image if that is missing, and prints warnings.
func (a *App) create(ctx context.Context, o *runOptions, body *client.CreateBody) (string, error) {
	cl, err := a.client()
	if err != nil {
		return "", err
	}
	file, err := openIDFile(o.cidfile)
	if err != nil {
		return "", err
	}
	defer file.close()
	ref, refErr := parseRef(body.Image)
	if refErr != nil && !looksLikeID(body.Image) {
		return "", refErr
	}
	a.addProxies(body)
	if h, w, ok := a.ttySize(); ok && body.Tty {
		body.HostConfig.ConsoleSize = &[2]uint{h, w}
	}
	if o.pull == "always" && refErr == nil {
		if err := a.pullFor(ctx, o, ref); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	id, warnings, err := cl.Create(ctx, o.name, o.platform, b)
	if client.IsNotFound(err) && refErr == nil && (o.pull == "missing" || o.pull == "") && isNoImage(err) {
		if !o.quiet {
			fmt.Fprintf(a.Err, "Unable to find image '%s' locally\n", ref.withTag())
		}
		if err := a.pullFor(ctx, o, ref); err != nil {
			return "", err
		}
		id, warnings, err = cl.Create(ctx, o.name, o.platform, b)
	}
	if err != nil {
		return "", err
	}
	for _, w := range warnings {
		fmt.Fprintf(a.Err, "WARNING: %s\n", w)
	}
	return id, file.write(id)
}

// isNoImage tells a missing image from another missing object (a network, a container whose namespace is to be joined).
func isNoImage(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "no such image") || strings.Contains(text, "image") && strings.Contains(text, "not found")
}

func looksLikeID(s string) bool {
	h := strings.TrimPrefix(s, "sha256:")
	return h != "" && len(h) <= 64 && strings.Trim(h, "0123456789abcdef") == ""
}

// pullFor pulls the image of a container that is going to be made; progress is no result, so it goes to the standard error.
func (a *App) pullFor(ctx context.Context, o *runOptions, ref imageRef) error {
	cl, err := a.client()
	if err != nil {
		return err
	}
	ref = ref.withTag()
	stream, err := cl.Pull(ctx, client.PullOptions{
		Image: ref.familiar(), Tag: ref.pullTag(), Platform: o.platform, Auth: a.registryAuth(ref.domain),
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	w := a.Err
	if o.quiet {
		w = io.Discard
	}
	return showProgress(w, stream, nil)
}

// addProxies hands the proxies of the configuration file to the container; what -e says goes first.
func (a *App) addProxies(body *client.CreateBody) {
	conf := client.LoadConfig(a.configDir())
	p, ok := conf.Proxies[a.where.host]
	if !ok {
		if p, ok = conf.Proxies["default"]; !ok {
			return
		}
	}
	have := pairs(body.Env)
	for _, e := range []struct{ name, value string }{
		{"HTTP_PROXY", p.HTTPProxy},
		{"HTTPS_PROXY", p.HTTPSProxy},
		{"NO_PROXY", p.NoProxy},
		{"FTP_PROXY", p.FTPProxy},
		{"ALL_PROXY", p.AllProxy},
	} {
		for _, name := range []string{e.name, strings.ToLower(e.name)} {
			if _, set := have[name]; !set && e.value != "" {
				body.Env = append(body.Env, name+"="+e.value)
			}
		}
	}
}

// idFile is the file of --cidfile. It is made before the container, and taken away if no id came to be.
type idFile struct {
	f    *os.File
	done bool
}

func openIDFile(path string) (*idFile, error) {
	if path == "" {
		return &idFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &idFile{f: f}, nil
}

func (i *idFile) write(id string) error {
	if i.f == nil {
		return nil
	}
	if _, err := i.f.WriteString(id); err != nil {
		return fmt.Errorf("failed to write the container ID to the file: %w", err)
	}
	i.done = true
	return nil
}

func (i *idFile) close() {
	if i.f == nil {
		return
	}
	_ = i.f.Close()
	if !i.done {
		_ = os.Remove(i.f.Name())
	}
}
