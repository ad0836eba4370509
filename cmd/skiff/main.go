// Command skiff is the client: see package cli.
package main

import (
	"os"
	"runtime"

	"skiff/cli"
)

func main() {
	runtime.GOMAXPROCS(1)
	os.Exit(cli.Main(os.Args[1:]))
}
