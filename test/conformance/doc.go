// Package conformance runs public test suites against the built programs.
//
// The OCI runtime's is the validation suite of github.com/opencontainers/runtime-tools, built from the Go module cache into
// .cache and never committed (its module has no go.mod of its own; testdata pins what it is built with). What skiff-runtime
// does not pass is in a table with the reason, and in docs/runtime-conformance.md beside runc's results.
//
// RUNTIME names another runtime to be tested, CONFORMANCE=print prints the results as a table instead of judging them.
package conformance
