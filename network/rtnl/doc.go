// Package rtnl speaks rtnetlink(7) for the few things that skiff's networks need: bridges, veth pairs, addresses, routes.
//
// It knows nothing of containers. Messages are collected in a Batch and go to the kernel in one sendmsg(2); the kernel
// works them off in order, inside that call, so a Batch costs one system call and one for the answers. A Conn belongs to
// the network namespace of the thread that opened it, for ever, wherever its user moves afterwards.
package rtnl
