// Package network connects containers: bridges, addresses, ports, firewall, names.
package network
