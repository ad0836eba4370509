// Package server is the keeper itself: the small process that is the parent of all container processes and of the engine.
//
// It owns, for each process: the pidfd, its ends of the standard streams, the log, the subscribers. One goroutine waits
// for the process's end and one for each output stream's bytes, all parked in the runtime's poller; memory is borrowed only
// while bytes flow.
//
// # Who may die
//
// The engine: the keeper goes on, starts it again, and tells it everything when it asks.
//
// The keeper: the engine's client starts another one and hands it all files. What the dead one was in the middle of stands in
// the ledger (see ledger.go), so no byte is lost or recorded twice. A subscriber goes on too, unless bytes were waiting for
// it in the dead keeper's memory; a subscriber may get the chunk that was just being delivered a second time, but only if the
// keeper died between the write to it and the next instruction.
//
// Both: state files in exec-root/keeper tell a fresh keeper of the processes. It finds their pipes through /proc. A terminal can't be
// found again (its master was closed, and the kernel has hung it up). A chunk that was handled at that moment is
// compared with what is in the pipe; only bytes that were written twice in a row could deceive that.
//
// # Update in place
//
// On SIGUSR2 the keeper executes its program anew, under the same pid, with all its descriptors and a memfd that
// describes them. Nothing is lost, nobody notices.
package server
