// Package wire is the language between the engine and the keeper: numbered requests and their replies, and pushes, over
// one unix stream socket, with files.
//
// A message on the socket is a prelude of 16 bytes (big-endian: magic "sk1\n", length of the header, length of the
// payload, number of files), a header (one JSON Message) and a payload (raw bytes, a launch program). Its files travel
// with its first byte (SCM_RIGHTS); headers refer to them by their place in the list. Either side numbers its own
// requests; replies come in any order. A message never carries more than MaxFiles files: what needs more is sent as
// several messages with the same number, all but the last with More set.
//
// The package knows nothing of containers' lives: it is used by package keeper (the client) and keeper/server alike, so
// that neither links the other.
package wire
