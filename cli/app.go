package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"skiff/client"
	"skiff/internal/version"
)

// App is one run of the command line.
type App struct {
	In       *os.File
	Out, Err io.Writer
	Getenv   func(string) string

	global globalOptions
	cl     *client.Client
	where  endpoint
}

// statusError ends the program with a status of its own. Without a text nothing is printed.
type statusError struct {
	code int
	text string
	err  error
}

func (e *statusError) Error() string {
	if e.text == "" && e.err != nil {
		return e.err.Error()
	}
	return e.text
}
func (e *statusError) Unwrap() error { return e.err }

// exit is the end with a container's status: it is no error of ours, so nothing is printed.
func exit(code int) error {
	if code == 0 {
		return nil
	}
	return &statusError{code: code}
}

// Main runs the command line and returns the exit status.
func Main(args []string) int {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-v") {
		_, _ = os.Stdout.WriteString(versionLine())
		return 0
	}
	app := &App{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
	return app.Run(context.Background(), args)
}

func versionLine() string {
	return "skiff version " + version.Version + ", build " + version.Commit + "\n"
}

// Run runs the command line and returns the exit status.
func (a *App) Run(ctx context.Context, args []string) int {
	err := a.dispatch(ctx, args)
	if a.cl != nil {
		a.cl.Close()
	}
	if err == nil {
		return 0
	}
	code := 1
	var s *statusError
	if errors.As(err, &s) {
		code = s.code
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(a.Err, text)
	}
	return code
}

// dispatch finds the command and runs it.
func (a *App) dispatch(ctx context.Context, args []string) error {
	gf := a.global.flags(a)
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		switch err := gf.Parse(args); {
		case errors.Is(err, pflag.ErrHelp):
			a.rootHelp(a.Out)
			return nil
		case err != nil:
			return flagError(err, "skiff", "[OPTIONS] COMMAND [ARG...]")
		}
		args = gf.Args()
		if a.global.version {
			fmt.Fprint(a.Out, versionLine())
			return nil
		}
		if a.global.help && len(args) == 0 {
			a.rootHelp(a.Out)
			return nil
		}
	}
	if err := a.global.check(); err != nil {
		return err
	}
	if len(args) == 0 {
		a.rootHelp(a.Out)
		return nil
	}
	switch args[0] {
	case "help":
		return a.help(args[1:])
	case "__complete", "__completeNoDesc":
		return a.completeWords(ctx, args[1:], args[0] == "__complete")
	}
	cmd, rest, err := a.find(args)
	if err != nil || cmd == nil {
		return err
	}
	if a.global.help {
		rest = append([]string{"--help"}, rest...)
	}
	return cmd.execute(ctx, rest)
}

// notYet are docker's commands that are still to come.
const notYet = "build builder buildx checkpoint commit compose config context cp diff export login logout manifest network node pause " +
	"plugin port push rename search secret service stack stats swarm trust unpause update volume"

// find resolves a command's name. A management command alone prints its help; then cmd is nil.
func (a *App) find(args []string) (cmd *command, rest []string, err error) {
	name := args[0]
	if g := groupOf(name); g != nil {
		if len(args) == 1 {
			a.groupHelp(a.Err, g)
			return nil, nil, nil
		}
		if args[1] == "--help" || args[1] == "-h" {
			a.groupHelp(a.Out, g)
			return nil, nil, nil
		}
		if s := lookup(name, args[1]); s != nil {
			return a.command(s, name+" "+args[1]), args[2:], nil
		}
		if strings.HasPrefix(args[1], "-") {
			return nil, nil, flagError(fmt.Errorf("unknown flag: %s", args[1]), "skiff "+name, "COMMAND")
		}
		return nil, nil, fmt.Errorf("skiff: unknown command: skiff %s %s%s\n\nUsage:  skiff %s\n\n"+
			"Run 'skiff %s --help' for more information", name, args[1], didYouMean(args[1], namesIn(name)), name, name)
	}
	if s := lookup("", name); s != nil {
		return a.command(s, name), args[1:], nil
	}
	hint := didYouMean(name, namesIn(""))
	if hasWord(notYet, name) {
		hint = " (docker has it, skiff does not have it yet)"
	}
	return nil, nil, fmt.Errorf("skiff: unknown command: skiff %s%s\n\nRun 'skiff --help' for more information", name, hint)
}

// errWithHelp adds where to read more, as docker does for run and create.
func errWithHelp(err error, command string) string {
	return fmt.Sprintf("skiff: %v\n\nRun 'skiff %s --help' for more information", err, command)
}

// flagError is the answer to flags that can't be understood.
func flagError(err error, path, args string) error {
	usage := strings.TrimSpace(path + " " + args)
	return &statusError{
		code: 125,
		text: fmt.Sprintf("%v\n\nUsage:  %s\n\nRun '%s --help' for more information", err, usage, path),
	}
}

// terminal reports whether w is a terminal, and its descriptor.
func terminal(w any) (fd int, ok bool) {
	f, ok := w.(*os.File)
	if !ok || f == nil {
		return -1, false
	}
	fd = int(f.Fd())
	return fd, term.IsTerminal(fd)
}

// width is how many columns there are for help texts and progress; 80 without a terminal.
func (a *App) width() int {
	if fd, ok := terminal(a.Out); ok {
		if w, _, err := term.GetSize(fd); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// each works through several names; every error is printed, and the last makes the status 1.
func (a *App) each(ctx context.Context, names []string, f func(ctx context.Context, name string) error) error {
	var failed bool
	for _, name := range names {
		if err := f(ctx, name); err != nil {
			fmt.Fprintln(a.Err, err)
			failed = failed || !errors.As(err, new(*forgiven))
		}
	}
	if failed {
		return &statusError{code: 1}
	}
	return nil
}

// eachAtOnce is each with up to 50 at a time; results are printed in the order of the names.
func (a *App) eachAtOnce(ctx context.Context, names []string, f func(ctx context.Context, name string) error) error {
	if len(names) == 1 {
		return a.each(ctx, names, func(ctx context.Context, name string) error {
			if err := f(ctx, name); err != nil {
				return err
			}
			fmt.Fprintln(a.Out, name)
			return nil
		})
	}
	errs := make([]chan error, len(names))
	slots := make(chan struct{}, 50)
	for i, name := range names {
		errs[i] = make(chan error, 1)
		go func() {
			slots <- struct{}{}
			errs[i] <- f(ctx, name)
			<-slots
		}()
	}
	i := -1
	return a.each(ctx, names, func(_ context.Context, name string) error {
		i++
		if err := <-errs[i]; err != nil {
			return err
		}
		fmt.Fprintln(a.Out, name)
		return nil
	})
}
