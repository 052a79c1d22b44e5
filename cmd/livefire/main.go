// Command livefire is the whole product in one binary: server, sidecar, agent and command line.
package main

import (
	"os"

	"github.com/livefire-mesh/livefire/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
