package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"skiff/client"
)

// attachment is one --network.
type attachment struct {
	name                      string
	aliases, links, linkLocal []string
	options                   map[string]string
	ip, ip6, mac              string
	priority                  int
}

// networks sets the network mode and the endpoints.
func (o *runOptions) networks(_ *command, b *client.CreateBody) error {
	var list []attachment
	for _, s := range o.network {
		n, err := parseNetwork(s)
		if err != nil {
			return err
		}
		list = append(list, n)
	}
	if len(list) == 0 {
		list = []attachment{{name: "default"}}
	}
	if err := o.intoFirst(&list[0]); err != nil {
		return err
	}
	endpoints := map[string]*client.EndpointSettings{}
	for i := range list {
		n := &list[i]
		user := !builtinNetwork(n.name)
		switch {
		case len(list) > 1 && !user:
			return errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		case endpoints[n.name] != nil:
			return fmt.Errorf("network %q is specified multiple times", n.name)
		case !user && n.name != "default" && n.name != "bridge" && (len(n.aliases) > 0 || len(n.links) > 0):
			return fmt.Errorf("network-scoped aliases are only supported for user-defined networks")
		}
		if ep := n.settings(); ep != nil {
			endpoints[n.name] = ep
		} else if len(list) > 1 {
			endpoints[n.name] = &client.EndpointSettings{}
		}
	}
	b.HostConfig.NetworkMode = list[0].name
	if len(endpoints) > 0 {
		b.NetworkingConfig = &client.NetworkingConfig{EndpointsConfig: endpoints}
	}
	return nil
}

// intoFirst applies the flags that belong to the first network.
func (o *runOptions) intoFirst(n *attachment) error {
	switch {
	case n.ip != "" && o.ip != "":
		return errors.New("conflicting options: cannot specify both --ip and per-network IPv4 address")
	case n.ip6 != "" && o.ip6 != "":
		return errors.New("conflicting options: cannot specify both --ip6 and per-network IPv6 address")
	case n.mac != "" && o.mac != "":
		return errors.New("conflicting options: cannot specify both --mac-address and per-network MAC address")
	case len(n.aliases) > 0 && len(o.networkAlias) > 0:
		return errors.New("conflicting options: cannot specify both --network-alias and per-network alias")
	case len(n.links) > 0 && len(o.link) > 0:
		return errors.New("conflicting options: cannot specify both --link and per-network links")
	case len(n.linkLocal) > 0 && len(o.linkLocalIP) > 0:
		return errors.New("conflicting options: cannot specify both --link-local-ip and per-network link-local IP addresses")
	}
	if o.ip != "" {
		ip, err := checkIP(o.ip)
		if err != nil {
			return fmt.Errorf("invalid IPv4 address: %s", o.ip)
		}
		n.ip = ip
	}
	if o.ip6 != "" {
		ip, err := checkIP(o.ip6)
		if err != nil {
			return fmt.Errorf("invalid IPv6 address: %s", o.ip6)
		}
		n.ip6 = ip
	}
	if o.mac != "" {
		n.mac = strings.TrimSpace(o.mac)
	}
	n.aliases = append(n.aliases, o.networkAlias...)
	n.linkLocal = append(n.linkLocal, o.linkLocalIP...)
	if len(o.link) > 0 && !builtinNetwork(n.name) {
		n.links = append(n.links, o.link...)
	}
	return nil
}

// builtinNetwork reports whether a network mode names none that a user made.
func builtinNetwork(name string) bool {
	switch name {
	case "default", "bridge", "host", "none":
		return true
	}
	return strings.HasPrefix(name, "container:")
}

// settings are nil if there is no wish.
func (n *attachment) settings() *client.EndpointSettings {
	ep := &client.EndpointSettings{
		Links: n.links, Aliases: n.aliases, DriverOpts: n.options, GwPriority: n.priority, MacAddress: n.mac,
	}
	if n.ip != "" || n.ip6 != "" || len(n.linkLocal) > 0 {
		ep.IPAMConfig = &client.IPAMConfig{IPv4Address: n.ip, IPv6Address: n.ip6, LinkLocalIPs: n.linkLocal}
	}
	if ep.IPAMConfig == nil && len(ep.Links) == 0 && len(ep.Aliases) == 0 && len(ep.DriverOpts) == 0 && ep.GwPriority == 0 && ep.MacAddress == "" {
		return nil
	}
	return ep
}

// parseNetwork reads a name, or name=…,alias=…,ip=… .
func parseNetwork(s string) (attachment, error) {
	n := attachment{}
	if !strings.Contains(s, "=") {
		n.name = s
		return n, nil
	}
	fields, err := csvFields(s)
	if err != nil {
		return n, err
	}
	for _, f := range fields {
		key, value, ok := strings.Cut(strings.TrimSpace(f), "=")
		if !ok || value == "" {
			return n, fmt.Errorf("invalid field %s", f)
		}
		switch key {
		case "name":
			n.name = value
		case "alias":
			n.aliases = append(n.aliases, value)
		case "ip":
			n.ip, err = checkIP(value)
		case "ip6":
			n.ip6, err = checkIP(value)
		case "mac-address":
			n.mac = value
		case "link-local-ip":
			var ip string
			ip, err = checkIP(value)
			n.linkLocal = append(n.linkLocal, ip)
		case "driver-opt":
			k, v, ok := strings.Cut(value, "=")
			if !ok {
				return n, errors.New("invalid key value pair format in driver options")
			}
			if n.options == nil {
				n.options = map[string]string{}
			}
			n.options[strings.ToLower(strings.TrimSpace(k))] = strings.TrimSpace(v)
		case "gw-priority":
			if n.priority, err = strconv.Atoi(value); err != nil {
				return n, fmt.Errorf("invalid gw-priority: %s", value)
			}
		default:
			return n, fmt.Errorf("invalid field key %s", key)
		}
		if err != nil {
			return n, err
		}
	}
	if n.name == "" {
		return n, errors.New("network name/id is not specified")
	}
	return n, nil
}
