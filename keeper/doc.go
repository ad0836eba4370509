// Package keeper is the engine's side of the supervisor skiff-keeper, which is the parent of all container processes: it launches
// and reaps them, holds their streams and writes their logs. The supervisor itself is in skiff/keeper/server, the log files are
// in skiff/keeper/logfile (which reads them, too), the messages between both sides in skiff/keeper/wire.
//
// # Start
//
// A user types skiffd. Started without a connection to a keeper (HasKeeper is false), skiffd calls ExecInto, which replaces it by
// skiff-keeper. That starts skiffd again, as its child: the engine, which calls Connect. The keeper forwards SIGTERM,
// SIGINT, SIGHUP and SIGUSR1 to the engine, ends with the engine's exit code if that is 0 or ExitConfig, and else starts it
// again. The engine is in a process group of its own and inherits standard output and error.
//
// # What the engine may rely on
//
//   - Exits are told in any order, each at least once: List has those of processes not yet forgotten, Exits gives what ends from
//     Connect on. Be ready for both to tell the same.
//   - Launch that fails with errs.Unavailable has left no process behind: the keeper died, and what it may have started is ended.
//   - All requests wait while a dead keeper is being replaced. Requests that were under way then fail with errs.Unavailable.
//   - A subscriber outlives the keeper unless it was behind with reading at that moment; then it gets an end before the process's.
//   - The process's end of a stream that is a pipe should be made by OutputPipe: it survives that all readers are gone for a while.
//
// # The vault
//
// The Client holds a duplicate of every descriptor that the keeper needs (pidfds, stream ends, subscribers, stashed files), so
// that neither the pipes break nor anything is forgotten when the keeper is killed. It starts another keeper at once and hands
// it all this. So the engine must have room for about six descriptors for each running process.
package keeper
