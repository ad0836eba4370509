// Command skiffd is the engine of skiff, see package skiff/daemon and docs/skiffd.md. Typed by a user it becomes skiff-keeper,
// which starts it again.
package main

import (
	"os"

	"skiff/daemon"
)

func main() { os.Exit(daemon.Main(os.Args)) }
