// Package oci is the OCI runtime: what the command line of runc does (create, start, state, kill, delete, exec, run, list,
// ps), on launch programs. cmd/skiff-runtime is its skin.
//
// A container is a folder below the runtime's root folder, named by its id:
//
//	state.json   what create recorded (see Container)
//	gate         a fifo; the created process waits for a byte from it. It is removed by start
//	errors       a fifo; the process tells through it why it could not execute. It is removed by start
//	lock         held (flock) while an operation changes the container
//
// There is no daemon and no process that stays behind: the status is read from the folder and from the process itself
// (pid and start time). A folder whose state.json is missing or whose process is gone is a stopped container, which delete
// removes, with its cgroup.
package oci
