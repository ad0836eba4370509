// Package ipam chooses subnets and hands out addresses in them. It does no I/O.
package ipam
