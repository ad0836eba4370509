package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"skiff/client"
)

// DefaultHost is where skiffd listens if nobody says otherwise.
const DefaultHost = "unix:///run/skiff/skiff.sock"

// globalOptions are the options before the command.
type globalOptions struct {
	config, context, logLevel      string
	hosts                          []string
	debug, tls, tlsVerify, version bool
	help                           bool
	ca, cert, key                  string
	set                            *pflag.FlagSet
}

// flags defines the options once.
func (g *globalOptions) flags(a *App) *pflag.FlagSet {
	if g.set != nil {
		return g.set
	}
	f := pflag.NewFlagSet("skiff", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SetInterspersed(false)
	certs := a.Getenv("DOCKER_CERT_PATH")
	if certs == "" {
		certs = a.configDir()
	}
	f.StringVar(&g.config, "config", a.configDir(), "Folder of the client's configuration")
	f.StringVarP(&g.context, "context", "c", "", "Context that says which daemon is meant; goes before DOCKER_HOST and the context in use")
	f.BoolVarP(&g.debug, "debug", "D", false, "Say more")
	f.VarP(&listValue{p: &g.hosts}, "host", "H", "Address of the daemon's socket")
	f.StringVarP(&g.logLevel, "log-level", "l", "info", `Least important message that is printed ("debug", "info", "warn", "error", "fatal")`)
	f.BoolVar(&g.tls, "tls", false, "Use TLS; --tlsverify includes it")
	f.StringVar(&g.ca, "tlscacert", filepath.Join(certs, "ca.pem"), "Certificates that the daemon's has to be signed by")
	f.StringVar(&g.cert, "tlscert", filepath.Join(certs, "cert.pem"), "Own TLS certificate")
	f.StringVar(&g.key, "tlskey", filepath.Join(certs, "key.pem"), "Key of the own TLS certificate")
	f.BoolVar(&g.tlsVerify, "tlsverify", a.Getenv("DOCKER_TLS_VERIFY") != "", "Use TLS and check the daemon's certificate")
	f.BoolVarP(&g.version, "version", "v", false, "Print the version and end")
	f.BoolVarP(&g.help, "help", "h", false, "Print help")
	_ = f.MarkHidden("help")
	g.set = f
	return f
}

// check refuses what does not go together.
func (g *globalOptions) check() error {
	if len(g.hosts) > 1 {
		return errors.New("specify only one -H")
	}
	if len(g.hosts) > 0 && g.context != "" {
		return errors.New("conflicting options: cannot specify both --host and --context")
	}
	switch strings.ToLower(g.logLevel) {
	case "", "debug", "info", "warn", "warning", "error", "fatal", "panic", "trace":
	default:
		return fmt.Errorf("unable to parse logging level: %s", g.logLevel)
	}
	return nil
}

// configDir is the folder that skiff shares with docker: credentials and contexts are the same.
func (a *App) configDir() string {
	if a.global.config != "" {
		return a.global.config
	}
	if d := a.Getenv("DOCKER_CONFIG"); d != "" {
		return d
	}
	home := a.Getenv("HOME")
	if home == "" {
		home, _ = os.UserHomeDir()
	}
	return filepath.Join(home, ".docker")
}

// endpoint is a daemon, and where we know it from.
type endpoint struct {
	context string // name of the context, "default" without one
	host    string
	tls     *client.TLS
	implied bool // nobody asked for this daemon: it is the default, and may be started
}

// endpoint finds out which daemon is meant: --context, -H, SKIFF_HOST, DOCKER_HOST, DOCKER_CONTEXT, the context in use,
// the default.
func (a *App) endpoint() (endpoint, error) {
	g := &a.global
	if g.context != "" {
		return a.contextEndpoint(g.context)
	}
	host := ""
	if len(g.hosts) > 0 {
		host = g.hosts[0]
	} else if host = a.Getenv("SKIFF_HOST"); host == "" {
		host = a.Getenv("DOCKER_HOST")
	}
	if host == "" {
		name := a.Getenv("DOCKER_CONTEXT")
		if name == "" {
			name = client.LoadConfig(a.configDir()).CurrentContext
		}
		if name != "" && name != "default" {
			return a.contextEndpoint(name)
		}
		return endpoint{context: "default", host: DefaultHost, implied: true}, nil
	}
	tls := g.tlsOptions()
	h, err := client.ParseHost(host, tls != nil)
	if err != nil {
		return endpoint{}, err
	}
	return endpoint{context: "default", host: h, tls: tls}, nil
}

// tlsOptions are nil without TLS.
func (g *globalOptions) tlsOptions() *client.TLS {
	f := g.set
	if f == nil || !g.tls && !g.tlsVerify {
		return nil
	}
	file := func(flag, path string) string {
		if f.Changed(flag) {
			return path
		}
		if _, err := os.Stat(path); err != nil {
			return "" // the default files need not be there
		}
		return path
	}
	return &client.TLS{
		CA: file("tlscacert", g.ca), Cert: file("tlscert", g.cert), Key: file("tlskey", g.key),
		Verify: g.tlsVerify,
	}
}

func (a *App) contextEndpoint(name string) (endpoint, error) {
	if name == "default" {
		return endpoint{context: name, host: DefaultHost, implied: true}, nil
	}
	c, err := client.LoadContext(a.configDir(), name)
	if err != nil {
		return endpoint{}, err
	}
	h, err := client.ParseHost(c.Host, c.TLS != nil)
	if err != nil {
		return endpoint{}, fmt.Errorf("context %q: %w", name, err)
	}
	return endpoint{context: name, host: h, tls: c.TLS}, nil
}

// client returns the connection to the daemon, and makes it at first use.
func (a *App) client() (*client.Client, error) {
	if a.cl != nil {
		return a.cl, nil
	}
	where, err := a.endpoint()
	if err != nil {
		return nil, err
	}
	header, err := customHeaders(a.Getenv("DOCKER_CUSTOM_HEADERS"))
	if err != nil {
		return nil, err
	}
	cl, err := client.New(client.Options{
		Host: where.host, TLS: where.tls, Version: a.Getenv("DOCKER_API_VERSION"), Header: header,
	})
	if err != nil {
		return nil, err
	}
	if where.implied {
		cl.OnUnreachable(a.autostart)
	}
	a.cl, a.where = cl, where
	return cl, nil
}

// customHeaders reads DOCKER_CUSTOM_HEADERS: name=value pairs, separated by commas; a value may be in double quotes.
func customHeaders(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	fields, err := csvFields(s)
	if err != nil {
		return nil, fmt.Errorf("invalid DOCKER_CUSTOM_HEADERS: %w", err)
	}
	var out []string
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(f, "\r\n") || strings.ContainsAny(name, ": ") {
			return nil, fmt.Errorf("invalid DOCKER_CUSTOM_HEADERS: %q is not name=value", f)
		}
		out = append(out, name+": "+value)
	}
	return out, nil
}
