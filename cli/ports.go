package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"skiff/client"
)

// ports sets the exposed and the published ports.
func (o *runOptions) ports(_ *command, b *client.CreateBody) error {
	exposed := map[string]struct{}{}
	bindings := map[string][]client.PortBinding{}
	for _, p := range o.publish {
		short, err := longPort(p)
		if err != nil {
			return err
		}
		if err := publishSpec(short, exposed, bindings); err != nil {
			return err
		}
	}
	for _, e := range o.expose {
		if strings.Contains(e, ":") {
			return fmt.Errorf("invalid port format for --expose: %s", e)
		}
		ports, proto, _ := strings.Cut(e, "/")
		if proto == "" {
			proto = "tcp"
		}
		first, last, err := portRange(ports)
		if err != nil {
			return fmt.Errorf("invalid range format for --expose: %s, error: %w", e, err)
		}
		for n := int(first); n <= int(last); n++ {
			exposed[strconv.Itoa(n)+"/"+strings.ToLower(proto)] = struct{}{}
		}
	}
	if len(exposed) > 0 {
		b.ExposedPorts = exposed
	}
	if len(bindings) > 0 {
		b.HostConfig.PortBindings = bindings
	}
	b.HostConfig.PublishAllPorts = o.publishAll
	return nil
}

// longPort turns the long form (target=80,published=8080,…) into the short one.
func longPort(s string) (string, error) {
	if !strings.Contains(s, "=") {
		return s, nil
	}
	fields, err := csvFields(s)
	if err != nil {
		return "", err
	}
	var target, published, proto string
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok || value == "" {
			return "", fmt.Errorf("invalid field: %s", f)
		}
		switch strings.ToLower(key) {
		case "target":
			target = value
		case "published":
			published = value
		case "protocol":
			proto = value
			if proto != "tcp" && proto != "udp" && proto != "sctp" {
				return "", fmt.Errorf("invalid protocol value '%s'", value)
			}
		case "mode":
			if value != "host" {
				return "", fmt.Errorf("invalid publish mode value '%s': only 'host' makes sense without a swarm", value)
			}
		default:
			return "", fmt.Errorf("invalid field key: %s", key)
		}
	}
	if target == "" {
		return "", errors.New("missing mandatory field 'target'")
	}
	out := target
	if published != "" {
		out = published + ":" + target
	}
	if proto != "" {
		out += "/" + proto
	}
	return out, nil
}

// publishSpec reads [[ip:]hostPort:]containerPort[/protocol], where ports may be ranges, as Docker reads it.
func publishSpec(spec string, exposed map[string]struct{}, bindings map[string][]client.PortBinding) error {
	rest, proto, hasProto := strings.Cut(spec, "/")
	if !hasProto || proto == "" {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	ip, hostPort, containerPort := splitPort(rest)
	if ip != "" {
		addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]"))
		if err != nil {
			return fmt.Errorf("invalid IP address: %s", ip)
		}
		ip = addr.String()
	}
	if containerPort == "" {
		return fmt.Errorf("no port specified: %s<empty>", spec)
	}
	first, last, err := portRange(containerPort)
	if err != nil {
		return fmt.Errorf("invalid containerPort: %s", containerPort)
	}
	var hostFirst, hostLast uint16
	if hostPort != "" {
		if hostFirst, hostLast, err = portRange(hostPort); err != nil {
			return fmt.Errorf("invalid hostPort: %s", hostPort)
		}
		if last-first != hostLast-hostFirst && first != last {
			return fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", containerPort, hostPort)
		}
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return fmt.Errorf("invalid proto: %s", proto)
	}
	for i := 0; i <= int(last-first); i++ {
		port := strconv.Itoa(int(first)+i) + "/" + proto
		host := ""
		switch {
		case hostPort == "":
		case first == last && hostFirst != hostLast:
			host = fmt.Sprintf("%d-%d", hostFirst, hostLast) // any of them
		default:
			host = strconv.Itoa(int(hostFirst) + i)
		}
		exposed[port] = struct{}{}
		bindings[port] = append(bindings[port], client.PortBinding{HostIP: ip, HostPort: host})
	}
	return nil
}

// splitPort takes ip:host:container apart; an IPv6 address may be in brackets or not.
func splitPort(s string) (ip, host, container string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", s
	}
	s, container = s[:i], s[i+1:]
	if i = strings.LastIndexByte(s, ':'); i < 0 {
		return "", s, container
	}
	return s[:i], s[i+1:], container
}

func portRange(s string) (first, last uint16, err error) {
	a, b, has := strings.Cut(s, "-")
	n, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return 0, 0, fmt.Errorf("invalid port %q", a)
	}
	m := n
	if has {
		if m, err = strconv.ParseUint(b, 10, 16); err != nil {
			return 0, 0, fmt.Errorf("invalid port %q", b)
		}
	}
	if m < n {
		return 0, 0, fmt.Errorf("invalid range %s", s)
	}
	return uint16(n), uint16(m), nil
}
