package config

import (
	"encoding/json"
	"slices"
	"strings"
)

// absent is an option of dockerd that skiff does not have. It is known by name, so that it can be refused by name, and values
// that ask for what skiff does anyway are accepted.
type absent struct {
	flag, key string
	boolean   bool     // the flag needs no value
	fine      []string // values that change nothing, as text
	why       string   // "": it is not there yet
}

var missing = []absent{
	{flag: "add-runtime", key: "runtimes", fine: []string{"{}"}},
	{flag: "authorization-plugin", key: "authorization-plugins", fine: []string{"[]"}},
	{flag: "allow-direct-routing", key: "allow-direct-routing", boolean: true, fine: []string{"false"}},
	{flag: "bip6", key: "bip6", fine: []string{""}},
	{flag: "bridge-accept-fwmark", key: "bridge-accept-fwmark", fine: []string{""}},
	{flag: "cdi-spec-dir", key: "cdi-spec-dirs", fine: []string{"[]"}},
	{flag: "containerd", key: "containerd", fine: []string{""}, why: "skiff needs no containerd"},
	{flag: "containerd-namespace", key: "containerd-namespace", why: "skiff needs no containerd"},
	{flag: "containerd-plugins-namespace", key: "containerd-plugins-namespace", why: "skiff needs no containerd"},
	{flag: "cpu-rt-period", key: "cpu-rt-period", fine: []string{"0"}},
	{flag: "cpu-rt-runtime", key: "cpu-rt-runtime", fine: []string{"0"}},
	{flag: "default-gateway", key: "default-gateway", fine: []string{""}},
	{flag: "default-gateway-v6", key: "default-gateway-v6", fine: []string{""}},
	{flag: "default-ipc-mode", key: "default-ipc-mode", fine: []string{"private"}},
	{flag: "default-network-opt", key: "default-network-opts", fine: []string{"{}"}},
	{flag: "exec-opt", key: "exec-opts", fine: []string{"native.cgroupdriver=cgroupfs", "[]"}, why: "native.cgroupdriver=cgroupfs is the only one"},
	{flag: "experimental", key: "experimental", boolean: true, fine: []string{"false"}, why: "there are no experimental features"},
	{flag: "feature", key: "features", fine: []string{"{}"}, why: "skiff has no optional features"},
	{flag: "firewall-backend", key: "firewall-backend", fine: []string{"", "nftables"}, why: "nftables is the only one"},
	{flag: "fixed-cidr-v6", key: "fixed-cidr-v6", fine: []string{""}},
	{flag: "ip-forward-no-drop", key: "ip-forward-no-drop", boolean: true, fine: []string{"true"}, why: "skiff never sets the FORWARD policy to DROP"},
	{flag: "ip6tables", key: "ip6tables", boolean: true, fine: []string{"true", "false"}},
	{flag: "iptables", key: "iptables", boolean: true, fine: []string{"true"}, why: "skiff keeps its nftables table, apart from all others"},
	{flag: "ipv6", key: "ipv6", boolean: true, fine: []string{"false"}},
	{flag: "max-concurrent-uploads", key: "max-concurrent-uploads"},
	{flag: "metrics-addr", key: "metrics-addr", fine: []string{""}},
	{flag: "network-control-plane-mtu", key: "network-control-plane-mtu"},
	{flag: "no-new-privileges", key: "no-new-privileges", boolean: true, fine: []string{"false"}},
	{flag: "node-generic-resource", key: "node-generic-resources", fine: []string{"[]"}},
	{flag: "oom-score-adjust", key: "oom-score-adjust", fine: []string{"0"}},
	{flag: "raw-logs", key: "raw-logs", boolean: true, fine: []string{"true", "false"}},
	{flag: "rootless", key: "", boolean: true, fine: []string{"false"}},
	{flag: "selinux-enabled", key: "selinux-enabled", boolean: true, fine: []string{"false"}},
	{flag: "storage-opt", key: "storage-opts", fine: []string{"[]"}},
	{flag: "swarm-default-advertise-addr", key: "swarm-default-advertise-addr", fine: []string{""}},
	{flag: "userland-proxy", key: "userland-proxy", boolean: true, fine: []string{"true", "false"}},
	{flag: "userland-proxy-path", key: "userland-proxy-path", fine: []string{""}, why: "skiff needs no proxy program"},
	{flag: "userns-remap", key: "userns-remap", fine: []string{""}},
	{key: "builder", fine: []string{"{}"}},
	{key: "allow-nondistributable-artifacts", fine: []string{"[]"}},
}

// refuse gives the text of why a value can't be had, "" if it asks for nothing else than what is.
func (a absent) refuse(value string) string {
	if slices.Contains(a.fine, value) {
		return ""
	}
	name := a.key
	if name == "" {
		name = a.flag
	}
	if a.why != "" {
		return name + " (" + a.why + ")"
	}
	return name
}

// refused is the flag of an option that is not there.
type refused struct {
	absent
	seen *[]string
}

func (r refused) Set(value string) error {
	if text := r.refuse(value); text != "" {
		*r.seen = append(*r.seen, text)
	}
	return nil
}
func (r refused) String() string { return "" }
func (r refused) Type() string   { return "" }

// textOf gives a JSON value the form that a flag's has; lists of one string are that string.
func textOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var one []string
	if json.Unmarshal(raw, &one) == nil && len(one) == 1 {
		return one[0]
	}
	return strings.Join(strings.Fields(string(raw)), "")
}
