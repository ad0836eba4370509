// Package launch executes launch programs: flat lists of system calls that a cloned child runs before execve.
package launch

// Program is a launch program.
type Program struct{}
