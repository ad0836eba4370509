// Package ports gives out the host's ports to containers, each to one at a time.
//
// A published port is reserved with a socket, so that no later program of the host can take it and ss(8) shows who has
// it. The socket never sees a packet: the firewall redirects them before, and while it does not (rules are being
// restored) a filter on the socket drops them, so that clients try again instead of being refused. A port that a program
// of the host has already is refused with that program's name.
package ports
