// Command skiff is the client: see package cli.
package main

import (
	"os"

	"skiff/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
