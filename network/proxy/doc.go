// Package proxy carries connections from one address to another, in user space.
//
// It is used only where the kernel can't do it: published ports on IPv6 addresses of the host, for containers that have
// IPv4 alone. IPv4 never passes through here.
package proxy
