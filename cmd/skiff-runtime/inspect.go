package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"skiff/runtime"
	"skiff/runtime/oci"
)

func (a *app) exec() *cobra.Command {
	var o oci.ExecOptions
	var detach bool
	cmd := &cobra.Command{Use: "exec [flags] ID [COMMAND [ARG...]]", Short: "execute a process in a container", Args: cobra.MinimumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		if o.Args = args[1:]; len(o.Args) == 0 && o.ProcessFile == "" {
			return errors.New("process args cannot be empty")
		}
		o.Preserve = listenFDs(o.Preserve)
		return a.execProcess(args[0], o, detach)
	}}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVarP(&o.ProcessFile, "process", "p", "", "JSON file of the process")
	f.StringArrayVarP(&o.Env, "env", "e", nil, "set an environment variable")
	f.StringVar(&o.Cwd, "cwd", "", "working directory")
	f.StringVarP(&o.User, "user", "u", "", "UID[:GID]")
	f.UintSliceVarP(&o.Groups, "additional-gids", "g", nil, "additional groups")
	f.StringArrayVarP(&o.Caps, "cap", "c", nil, "add a capability")
	f.BoolVarP(&o.Terminal, "tty", "t", false, "with a terminal")
	f.BoolVar(&o.NoNewPrivs, "no-new-privs", false, "no new privileges")
	f.StringVar(&o.AppArmor, "apparmor", "", "AppArmor profile")
	f.StringVar(&o.ProcessLabel, "process-label", "", "SELinux label")
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "unix socket that gets the terminal's master")
	f.StringVar(&o.PIDFile, "pid-file", "", "file for the process id")
	f.IntVar(&o.Preserve, "preserve-fds", 0, "how many further descriptors, from 3 on, the process gets")
	f.BoolVarP(&detach, "detach", "d", false, "don't wait for the process")
	return cmd
}

func (a *app) execProcess(id string, o oci.ExecOptions, detach bool) error {
	var console oci.Terminal
	o.Stdio = stdio()
	if !detach && o.ConsoleSocket == "" {
		o.Console = console.Attach
	}
	defer console.Close()
	p, err := a.rt.Exec(id, o)
	if err != nil {
		return err
	}
	if detach {
		return nil
	}
	stop := forward(p)
	defer stop()
	return status(p.Wait())
}

// listed is a container as `list --format json` shows it, with runc's names.
type listed struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func (a *app) list() *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{Use: "list [flags]", Short: "list containers", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		all, err := a.rt.List()
		if err != nil {
			return err
		}
		out := make([]listed, len(all))
		for i, c := range all {
			s := c.State()
			out[i] = listed{s.Version, s.ID, s.Pid, string(s.Status), s.Bundle, "", c.Created, s.Annotations, a.owner(c)}
			if c.Spec.Root != nil {
				out[i].Rootfs = c.Spec.Root.Path
			}
		}
		return printList(out, format, quiet)
	}}
	cmd.Flags().StringVarP(&format, "format", "f", "table", "table or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only ids")
	return cmd
}

// owner is the name of the user whose container it is.
func (a *app) owner(c *oci.Container) string {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(a.rt.Root, c.ID), &st); err != nil {
		return ""
	}
	id := strconv.Itoa(int(st.Uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "#" + id
}

func printList(all []listed, format string, quiet bool) error {
	switch {
	case quiet:
		for _, c := range all {
			fmt.Println(c.ID)
		}
		return nil
	case format == "json":
		return json.NewEncoder(os.Stdout).Encode(all)
	case format != "table":
		return fmt.Errorf("invalid format option: %s", format)
	}
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", c.ID, c.PID, c.Status, c.Bundle, c.Created.Format(time.RFC3339Nano), c.Owner)
	}
	return w.Flush()
}

func (a *app) ps() *cobra.Command {
	var format string
	cmd := &cobra.Command{Use: "ps [flags] ID [PS OPTION...]", Short: "list the processes of a container", Args: cobra.MinimumNArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		c, err := a.rt.Load(args[0])
		if err != nil {
			return err
		}
		pids, err := c.Processes()
		if err != nil {
			return err
		}
		switch format {
		case "json":
			return json.NewEncoder(os.Stdout).Encode(pids)
		case "table":
			return psTable(pids, args[1:])
		}
		return fmt.Errorf("invalid format option: %s", format)
	}}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVarP(&format, "format", "f", "table", "table or json")
	return cmd
}

// psTable shows the lines of ps(1) that belong to the processes, as runc does.
func psTable(pids []int, opts []string) error {
	if len(opts) == 0 {
		opts = []string{"-ef"}
	}
	out, err := exec.Command("ps", opts...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ps: %w: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	fmt.Println(lines[0])
	for _, l := range lines[1:] {
		f := strings.Fields(l)
		if len(f) <= column {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Println(l)
		}
	}
	return nil
}

func (a *app) spec() *cobra.Command {
	var bundle string
	cmd := &cobra.Command{Use: "spec [flags]", Short: "write an example config.json", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		b, err := json.MarshalIndent(oci.Example(), "", "\t")
		if err != nil {
			return err
		}
		file := filepath.Join(bundle, "config.json")
		f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("file %s exists. Remove it first", file)
		}
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		return errors.Join(err, f.Close())
	}}
	cmd.Flags().StringVarP(&bundle, "bundle", "b", ".", "folder of the bundle")
	return cmd
}

func (a *app) features() *cobra.Command {
	return &cobra.Command{Use: "features", Short: "print what the runtime knows", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		return printJSON(oci.Features())
	}}
}

func (a *app) explain() *cobra.Command {
	return &cobra.Command{Use: "explain BUNDLE", Short: "print the launch program of a bundle", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		spec, err := oci.LoadBundle(dir)
		if err != nil {
			return err
		}
		opt := runtime.CompileOptions{Stdio: [3]bool{true, true, true}, DevPTS: spec.Process.Terminal, Gate: true}
		opt.Cgroups = oci.ExampleCgroups(spec)
		p, err := runtime.Compile(spec, opt)
		if err != nil {
			return err
		}
		return p.Explain(os.Stdout)
	}}
}
