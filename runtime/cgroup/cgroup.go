// Package cgroup makes, limits, reads and removes control groups on cgroup v1, v2 and hybrid hosts.
package cgroup

// Cgroup is one container's control group in all hierarchies of the host.
type Cgroup struct{}
