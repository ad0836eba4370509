package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"strings"

	"skiff/client"
)

// hubKey is the name under which docker keeps Docker Hub's credentials.
const hubKey = "https://index.docker.io/v1/"

// registryAuth gives the X-Registry-Auth header for a registry: what docker login stored, in the configuration file or with a
// credential helper; "" for none.
func (a *App) registryAuth(domain string) string {
	conf := client.LoadConfig(a.configDir())
	key := domain
	if domain == "docker.io" {
		key = hubKey
	}
	entry, ok := storedAuth(&conf, key)
	if !ok {
		return ""
	}
	if entry.Auth != "" && entry.Username == "" {
		plain, err := base64.StdEncoding.DecodeString(entry.Auth)
		if err == nil {
			user, password, _ := strings.Cut(string(plain), ":")
			entry.Username, entry.Password = user, strings.Trim(password, "\x00")
		}
	}
	b, err := json.Marshal(map[string]string{
		"username": entry.Username, "password": entry.Password, "identitytoken": entry.IdentityToken,
		"registrytoken": entry.RegistryToken, "serveraddress": key,
	})
	if err != nil {
		return ""
	}
	return base64.URLEncoding.EncodeToString(b)
}

func storedAuth(conf *client.ConfigFile, key string) (client.AuthEntry, bool) {
	helper := conf.CredsStore
	for k, h := range conf.CredHelpers {
		if registryName(k) == registryName(key) {
			helper = h
		}
	}
	if helper != "" {
		if e, ok := helperAuth(helper, key); ok {
			return e, true
		}
	}
	for k, e := range conf.Auths {
		if registryName(k) == registryName(key) && (e.Auth != "" || e.Username != "" || e.IdentityToken != "" || e.RegistryToken != "") {
			return e, true
		}
	}
	return client.AuthEntry{}, false
}

// registryName is a registry's host: older files have URLs for keys.
func registryName(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	return host
}

// helperAuth asks docker-credential-NAME for a registry's credentials.
func helperAuth(name, key string) (client.AuthEntry, bool) {
	cmd := exec.Command("docker-credential-"+name, "get")
	cmd.Stdin = strings.NewReader(key)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return client.AuthEntry{}, false
	}
	var r struct{ Username, Secret string }
	if json.Unmarshal(out.Bytes(), &r) != nil || r.Secret == "" {
		return client.AuthEntry{}, false
	}
	if r.Username == "<token>" {
		return client.AuthEntry{IdentityToken: r.Secret}, true
	}
	return client.AuthEntry{Username: r.Username, Password: r.Secret}, true
}
