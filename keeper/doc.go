// Package keeper is the supervisor of all container processes, and the client side of its protocol.
package keeper
