package cli

import (
	"context"
	_ "embed" // the scripts
	"fmt"
	"io"
)

var (
	//go:embed scripts/completion.bash
	bashScript string
	//go:embed scripts/completion.zsh
	zshScript string
	//go:embed scripts/completion.fish
	fishScript string
)

func setupCompletion(c *command) {
	c.words = func(_ context.Context, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return []string{"bash", "zsh", "fish"}
	}
	c.run = func(_ context.Context, args []string) error {
		script, ok := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[args[0]]
		if !ok {
			return fmt.Errorf("no completion for %q: it is there for bash, zsh and fish", args[0])
		}
		_, err := io.WriteString(c.Out, script)
		return err
	}
}
