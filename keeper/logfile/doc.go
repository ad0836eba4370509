// Package logfile writes and reads the files in which containers' output is recorded. It never imports package keeper:
// the keeper writes through it, the engine reads through it.
//
// # Files
//
// The current file is Config.Path. Rotated ones are Path.1 (the newest), Path.2 …, with ".gz" appended when they are
// compressed. At most Config.MaxFiles exist together, the current one included. Rotation only renames, oldest first, and
// compression makes a new file that replaces the plain one, so that being killed at any instant neither loses nor doubles
// an entry: a hole in the numbers is skipped by the reader and closed by the next rotation, and where Path.2 and
// Path.2.gz are both there the plain one counts.
//
// # Entries
//
// An entry is a line, or a piece of one. A piece is recorded as soon as it was read, without a newline at its end; the next
// entry of the same stream continues its line. So a prompt is in the log at once, and a line may be of any length without
// anybody holding it in memory.
//
// # json-file
//
// Docker's format, one JSON object in a line:
//
//	{"log":"hello\n","stream":"stdout","attrs":{"k":"v"},"time":"2026-01-02T03:04:05.000000006Z"}
//
// Bytes that are no UTF-8 can't be said in JSON. Docker replaces them by U+FFFD and forgets them. Here the same is in
// "log", so that Docker's tools read the file as ever, and a further member "raw" holds the exact bytes in base64. It is there
// only when it is needed.
//
// # local
//
// A compact binary format of our own. All numbers are little-endian; a file is a sequence of frames:
//
//	byte    0x1e
//	byte    kind: 1 stdout, 2 stderr, 3 attributes
//	uint32  length of the body
//	uint16  low half of the CRC-32C of kind and length
//	uint32  CRC-32C of kind, length and body
//	…       body. Kinds 1 and 2: int64 nanoseconds since 1970, then the bytes. Kind 3: a JSON object
//	uint32  length of the body, again, so that a file can be read backwards
//
// Attributes are those of all following entries of the file; every file begins with them if there are any.
//
// In both formats a torn record at the end of a file (power cut, full disk) is ignored by the reader and cut off by the next
// writer.
package logfile
