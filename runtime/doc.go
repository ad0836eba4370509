// Package runtime turns an OCI runtime specification into a running process: the specification is compiled to a launch
// program (package launch), a flat list of system calls that a freshly cloned child of the keeper executes.
package runtime
