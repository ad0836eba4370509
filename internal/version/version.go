// Package version says which build of skiff this is. The values are set by the linker (see Makefile).
package version

// Version and Commit of this build.
var (
	Version = "0.0.0-dev"
	Commit  = "unknown"
)
