// Package daemon is the composition root of skiffd: it reads the configuration, builds the services, gives each its
// collaborators, and owns start and stop. It decides nothing about containers.
//
// Main is run twice. Typed by a user (or started by systemd), it checks configuration and host, and becomes
// skiff-keeper (keeper.ExecInto), which starts the same program again with the same arguments: then it is the engine. The keeper
// starts the engine anew whenever it dies; an exit code of 0 or 78 is final.
//
// Listening sockets are stashed with the keeper before the first connection is accepted: while an engine is being
// replaced, connections queue in the kernel, and nobody sees a refusal. Files are in docs/skiffd.md.
package daemon
