// Package client speaks the Docker Engine API: over a unix socket, TCP, TCP with TLS, or the standard streams of an ssh
// process. It is what the commands of package cli are made of, and it works against skiffd as well as dockerd.
//
// Contract:
//
//   - It starts quickly. The package has its own small HTTP/1.1 (http.go), since initialising net/http and crypto/tls costs
//     a short-lived program more than everything else it does; TLS is left to a helper program (cmd/skiff-tls). The wire types
//     here (wire.go, …) are the part of the Engine API that the commands need; a test holds them against
//     github.com/moby/moby/api, which is not linked.
//   - The API version is negotiated without a round trip of its own: requests go out with the newest version, and the first
//     answer of an older daemon makes the client step down and send the request again.
//   - Every call takes a context; ending it closes the connection that the call uses.
//   - An answer of the daemon that is an error is an *Error with its status; a daemon that can't be reached is a
//     *ConnectError.
package client
