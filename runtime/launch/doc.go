// Package launch executes launch programs: flat lists of system calls that a freshly cloned child runs before execve.
//
// A [Program] is data. A [Builder] makes it, it has a binary form for the way to the keeper ([Program.MarshalBinary]) and a
// form for people ([Program.Explain]), and [Program.Start] runs it: one clone3 into the program's namespaces and
// control group, the operations in order, execve. Whatever fails is told as a [StepError] with the name of the step.
//
// # The words
//
//   - Slot: a file that the caller of Start hands over. In the child it is an open descriptor.
//   - Register: where the result of an operation (a new descriptor) is kept for later ones.
//   - Data: one block of bytes that all pointer arguments point into. Relocations are the places in it that hold
//     pointers themselves (argv, struct sock_fprog).
//
// # The child
//
// The child is a copy of a multithreaded Go process in which only the calling thread goes on. Nothing of the Go runtime may
// be used there: no allocation, no stack growth, no lock, no write barrier. So everything is prepared before the clone,
// and the child's code (child.go) is nosplit, free of race instrumentation and makes raw system calls only. The memory is a copy
// (never CLONE_VM): what happens in a container's namespaces can't reach the parent's memory.
//
// What the child does by itself, before the first operation: it asks to be killed when its parent dies, resets all signals,
// makes itself undumpable (unless it is in a new user namespace), waits for its user and group maps, and sets umask 0. Before
// execve it takes the first request back.
//
// The descriptors 0 to Keep-1 are the process's own; the program puts them in place. Descriptor Keep is the pipe for
// errors: a program that wants to tell later errors elsewhere duplicates another descriptor onto it, and Start returns
// at that moment.
package launch
