// Package registry holds the two sides of the OCI distribution protocol: remote, the client's, and server. Neither knows
// of the other; the protocol is their contract (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md).
package registry
