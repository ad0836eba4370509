// Package netns makes network namespaces, ahead of their use.
//
// A Maker owns one locked thread that enters new namespaces and comes back; whoever needs to do something inside a
// namespace hands it a function. A namespace is held by a descriptor alone: nothing is mounted, and when its last holder
// is gone (also by kill -9) the kernel destroys it and its interfaces, in a thread of its own.
//
// A Pool keeps a few things ready that take a moment to make, and makes more when they are taken fast.
package netns
