// Package db is the metadata database: typed buckets of JSON values in one bbolt file, with a redo journal before it.
//
// A change is one Batch. Commit appends it to the journal (FILE-journal) as one checksummed frame, and is done: after one
// fdatasync(2) if it was asked to be Durable, at once if it was Relaxed. A relaxed change survives the death of the
// process, not that of the machine, until the next durable commit, Sync, or SyncDelay has passed. Commits that arrive
// together share one write and one fdatasync; nobody waits for company. A bbolt transaction costs two of them, which is
// why the journal is there; bbolt is brought up to date in one transaction when the journal has grown past
// checkpointSize, at Close, and at Open if the process died. Frames are absolute (put, delete), so replaying one twice
// does no harm, and a change is seen whole or not at all.
//
// A file that can't be read is an error that names it, never an empty database.
package db
