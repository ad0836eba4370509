// Package remote is the client side of the OCI distribution protocol (distribution-spec 1.1), as far as pulling needs it,
// with Docker Hub's naming: docker.io is registry-1.docker.io, tried after the configured mirrors.
//
// Laws:
//   - A manifest's bytes have the digest that was asked for. A blob's bytes are the caller's to verify, and are resumed
//     where a cut stream ended.
//   - Nothing hangs: a peer that makes no progress for Options.Stall is given up, and tried again.
//   - Credentials go to the registry they were given for and to the token service it names, never to a mirror, nor along a
//     redirect to another host.
//   - Errors have the words that Docker users know, and a class of package errs.
//
// Why it is not oras-go: docs/decisions/0012-own-registry-client.md.
package remote
