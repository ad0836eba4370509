package daemon

import (
	"context"
	"fmt"
	"io"
	"os"

	"skiff/daemon/config"
	"skiff/internal/version"
	"skiff/keeper"
)

// Exit codes of skiffd, as dockerd's; keeper.ExitConfig tells the keeper not to try again.
const (
	exitError = 1
	exitUsage = 125
)

// Main is the program skiffd. args are os.Args; the result is the exit code.
func Main(args []string) int {
	cfg, loader, req, err := config.Load(args[1:])
	switch {
	case req.Help && err == nil:
		fmt.Print(usage(req))
		return 0
	case req.Version && err == nil:
		fmt.Printf("skiffd version %s, build %s\n", version.Version, version.Commit)
		return 0
	}
	if keeper.HasKeeper() {
		return engineMain(cfg, loader, err)
	}
	if err != nil {
		return complain(os.Stderr, err, exitCode(req))
	}
	if cfg.Validate {
		fmt.Println("configuration OK")
		return 0
	}
	if err := checkHost(); err != nil {
		return complain(os.Stderr, err, exitError)
	}
	return complain(os.Stderr, keeper.ExecInto(keeper.ExecOptions{ExecRoot: cfg.ExecRoot, Args: args[1:], Debug: cfg.Debug}), exitError)
}

// engineMain is the same program as the keeper's child.
func engineMain(cfg *config.Config, loader *config.Loader, err error) int {
	if err == nil {
		err = checkHost()
	}
	if err != nil {
		return complain(os.Stderr, err, keeper.ExitConfig)
	}
	return run(context.Background(), cfg, loader)
}

func exitCode(req config.Request) int {
	if req.Usage == "" { // the flags themselves could not be read
		return exitUsage
	}
	return exitError
}

func complain(w io.Writer, err error, code int) int {
	fmt.Fprintf(w, "skiffd: %v\n", err)
	if code == exitUsage {
		fmt.Fprintln(w, "See 'skiffd --help'.")
	}
	return code
}

func usage(req config.Request) string {
	return "Usage:  skiffd [OPTIONS]\n\nThe engine of skiff: serves the Docker Engine API and keeps containers.\n\nOptions:\n" + req.Usage
}
