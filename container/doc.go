// Package container is the container: its configuration, states, streams, logs and further processes.
//
// A [Manager] owns all containers and implements what the API needs of them. What it needs itself (images, layers, networks, the
// keeper, the runtime) is in deps.go, as small interfaces.
//
// # One owner
//
// Each container is an object with a definition (what it is) and a status (where it is in its life). Both are values that are
// replaced, never changed, so that everybody reads them without a lock; list and inspect touch no disk. Only the commands of the
// object's queue replace them. The queue runs one command after the other and has a goroutine only while there is one. Commands that
// wait for a container's end (stop, forced removal) are made of two, so that the end can come in between. A command whose caller
// leaves runs to its end: half a change is worse than one that nobody waited for.
//
// # What is written when
//
// A container is durable when Create returns, and gone for good when Remove returns: one fdatasync each. Starts and ends are
// recorded without waiting for the disk; a power cut may bring back the state from up to db.SyncDelay before. A container that
// is removed when it ends (--rm) is recorded in the run-time database alone, which is forgotten with the boot.
//
// Every change of several steps may be cut short between any two; see reconcile for what is made of it at the next start. The
// order that this needs: the record of a container comes with or after its snapshot and goes before it; what a run holds is
// recorded before the keeper is asked to launch; the keeper forgets an end only when it is recorded.
//
// # Streams
//
// The engine is not in the way of a container's output: the keeper reads it, writes the log, and hands each attached client
// a copy over a socket (tap), framed already. Input goes from the client to the container's pipe or terminal directly. A
// client who attaches before the start is handed to the keeper together with the launch, so that he misses nothing.
package container
