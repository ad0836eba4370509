// Package cli is the command line: skiff's commands with docker's names, flags, outputs and exit codes. A file holds a
// command or a group of commands that belong together.
//
// Contract:
//
//   - It knows the daemon only through package client. What it links is tested (cmd/skiff/link_test.go): nothing of the daemon's, and
//     nothing that costs start-up time for no use (net/http, crypto/tls, image and digest libraries with their tables).
//   - A command is an entry of the table in commands.go; its flags and code are built only when it is called.
//   - Results go to the standard output, everything else to the standard error. Errors are one sentence that names the
//     object. Several arguments are worked through although one fails; the status is then 1.
//   - Exit status: 125 for a wrong flag and for what skiff run can't do, 126 and 127 for commands that can't be run, the
//     container's own status for run, exec, attach and start -a, else 0 or 1.
package cli
