// Command skiff-keeper is the parent of all containers and of the engine, see package skiff/keeper/server. It is started by skiffd.
package main

import (
	"os"

	"skiff/keeper/server"
)

func main() { os.Exit(server.Main(os.Args)) }
