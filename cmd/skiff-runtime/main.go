// Command skiff-runtime is an OCI runtime with runc's command line, on skiff's launch programs (package skiff/runtime/oci).
//
// Beside runc's commands it has `explain BUNDLE`, which prints the launch program of a bundle.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"skiff/internal/version"
	"skiff/runtime/oci"
)

// exitStatus is the status of a process that was waited for.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// app is what the global flags say.
type app struct {
	rt        oci.Runtime
	log       string
	logFormat string
	debug     bool
	systemd   bool
	rootless  string
	logFile   *os.File
}

func main() {
	a := &app{}
	err := a.command().Execute()
	var status exitStatus
	switch {
	case err == nil:
	case errors.As(err, &status):
		os.Exit(int(status))
	default:
		a.fail(err)
		os.Exit(1)
	}
}

// fail tells an error where the caller looks for it: in the log that it gave us, and on standard error.
func (a *app) fail(err error) {
	if a.logFile != nil {
		slog.Error(err.Error())
	}
	fmt.Fprintln(os.Stderr, "skiff-runtime:", err)
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use: "skiff-runtime", Short: "OCI runtime", Version: version.Version, SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.prepare() },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.rt.Root, "root", "/run/skiff-runtime", "folder of the containers' states")
	f.StringVar(&a.log, "log", "", "file for the log, instead of standard error")
	f.StringVar(&a.logFormat, "log-format", "text", "format of the log: text or json")
	f.BoolVar(&a.debug, "debug", false, "log more")
	f.BoolVar(&a.systemd, "systemd-cgroup", false, "let systemd make the cgroups (not supported)")
	f.StringVar(&a.rootless, "rootless", "auto", "run without root's rights (not supported)")
	root.SetVersionTemplate("skiff-runtime version {{.Version}}\ncommit: " + version.Commit + "\nspec: " + oci.Features().OCIVersionMax + "\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(a.create(), a.start(), a.run(), a.state(), a.kill(), a.delete(), a.exec(), a.list(), a.ps(), a.spec(), a.features(), a.explain())
	return root
}

// prepare sets up the log and refuses what is not supported.
func (a *app) prepare() error {
	level := slog.LevelWarn
	if a.debug {
		level = slog.LevelDebug
	}
	out := os.Stderr
	if a.log != "" {
		f, err := os.OpenFile(a.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return fmt.Errorf("open the log: %w", err)
		}
		out, a.logFile = f, f
	}
	opt := &slog.HandlerOptions{Level: level, ReplaceAttr: logrusNames}
	switch a.logFormat {
	case "json":
		slog.SetDefault(slog.New(slog.NewJSONHandler(out, opt)))
	case "text":
		slog.SetDefault(slog.New(slog.NewTextHandler(out, opt)))
	default:
		return fmt.Errorf("invalid log-format: %s", a.logFormat)
	}
	if a.systemd {
		return errors.New("--systemd-cgroup is not supported")
	}
	if a.rootless == "true" {
		return errors.New("--rootless is not supported")
	}
	return nil
}

// logrusNames makes the levels lower-case, as those who read runc's log expect them.
func logrusNames(_ []string, at slog.Attr) slog.Attr {
	if at.Key != slog.LevelKey {
		return at
	}
	names := map[slog.Level]string{slog.LevelDebug: "debug", slog.LevelInfo: "info", slog.LevelWarn: "warning", slog.LevelError: "error"}
	if l, ok := at.Value.Any().(slog.Level); ok && names[l] != "" {
		at.Value = slog.StringValue(names[l])
	}
	return at
}
