// Package names writes a container's /etc/hosts and /etc/resolv.conf, by Docker's rules. It does no I/O: the host's own
// files come as bytes.
package names
