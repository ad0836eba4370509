package client

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// ConfigFile is the client's configuration file, config.json in docker's folder, as far as we use it.
type ConfigFile struct {
	CurrentContext string                `json:"currentContext"`
	DetachKeys     string                `json:"detachKeys"`
	PsFormat       string                `json:"psFormat"`
	ImagesFormat   string                `json:"imagesFormat"`
	HTTPHeaders    map[string]string     `json:"HttpHeaders"`
	Auths          map[string]AuthEntry  `json:"auths"`
	CredsStore     string                `json:"credsStore"`
	CredHelpers    map[string]string     `json:"credHelpers"`
	Proxies        map[string]ProxyEntry `json:"proxies"`
}

// AuthEntry are a registry's stored credentials.
type AuthEntry struct {
	Auth          string `json:"auth"` // base64 of user:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// ProxyEntry are the proxies that containers of one daemon get as environment variables.
type ProxyEntry struct {
	HTTPProxy  string `json:"httpProxy"`
	HTTPSProxy string `json:"httpsProxy"`
	NoProxy    string `json:"noProxy"`
	FTPProxy   string `json:"ftpProxy"`
	AllProxy   string `json:"allProxy"`
}

// LoadConfig reads config.json in dir. A missing file is an empty one, and so is one that can't be read: no command may
// fail for it.
func LoadConfig(dir string) ConfigFile {
	var c ConfigFile
	if b, err := os.ReadFile(filepath.Join(dir, "config.json")); err == nil {
		_ = json.Unmarshal(b, &c)
	}
	return c
}

// Context is a named daemon of docker's context store.
type Context struct {
	Name string
	Host string
	TLS  *TLS
}

// LoadContext reads a context of the store in dir: contexts/meta/ID/meta.json, and its certificates in contexts/tls/ID/docker,
// where ID is a hash of the name.
func LoadContext(dir, name string) (Context, error) {
	metas := filepath.Join(dir, "contexts", "meta")
	ids, err := os.ReadDir(metas)
	if err != nil && !os.IsNotExist(err) {
		return Context{}, fmt.Errorf("context %q: %w", name, err)
	}
	for _, id := range ids {
		b, err := os.ReadFile(filepath.Join(metas, id.Name(), "meta.json"))
		if err != nil {
			continue
		}
		var meta struct {
			Name      string
			Endpoints map[string]struct {
				Host          string
				SkipTLSVerify bool
			}
		}
		if json.Unmarshal(b, &meta) != nil || meta.Name != name {
			continue
		}
		ep, ok := meta.Endpoints["docker"]
		if !ok || ep.Host == "" {
			return Context{}, fmt.Errorf("context %q has no docker endpoint", name)
		}
		return Context{Name: name, Host: ep.Host, TLS: contextTLS(filepath.Join(dir, "contexts", "tls", id.Name(), "docker"), ep.SkipTLSVerify)}, nil
	}
	return Context{}, fmt.Errorf("context %q: context not found: no folder of %s has that name", name, metas)
}

// ContextNames lists the contexts of the store in dir.
func ContextNames(dir string) []string {
	names := []string{"default"}
	metas := filepath.Join(dir, "contexts", "meta")
	ids, _ := os.ReadDir(metas)
	for _, id := range ids {
		var meta struct{ Name string }
		if b, err := os.ReadFile(filepath.Join(metas, id.Name(), "meta.json")); err == nil && json.Unmarshal(b, &meta) == nil && meta.Name != "" {
			names = append(names, meta.Name)
		}
	}
	return names
}

func contextTLS(dir string, skipVerify bool) *TLS {
	t := &TLS{Verify: !skipVerify}
	for name, p := range map[string]*string{"ca.pem": &t.CA, "cert.pem": &t.Cert, "key.pem": &t.Key} {
		if f := filepath.Join(dir, name); fileExists(f) {
			*p = f
		}
	}
	if t.CA == "" && t.Cert == "" && !skipVerify {
		return nil
	}
	return t
}

func fileExists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}
