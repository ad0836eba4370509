package cli

import (
	"context"
	"fmt"
	"io"

	"skiff/client"
)

func setupPull(c *command) {
	var all, quiet, noTrust bool
	var platform string
	c.flags.BoolVarP(&all, "all-tags", "a", false, "All tags of the repository")
	c.flags.BoolVar(&noTrust, "disable-content-trust", true, "Don't check the image's signature")
	c.flags.StringVar(&platform, "platform", c.Getenv("DOCKER_DEFAULT_PLATFORM"), "Platform of the image, as linux/arm64")
	c.flags.BoolVarP(&quiet, "quiet", "q", false, "No progress")
	c.words = func(ctx context.Context, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		return c.images()(ctx)
	}
	c.run = func(ctx context.Context, args []string) error {
		ref, err := parseRef(args[0])
		if err != nil {
			return err
		}
		switch {
		case all && (ref.tag != "" || ref.digest != ""):
			return fmt.Errorf("tag can't be used with --all-tags/-a")
		case !all && ref.tag == "" && ref.digest == "":
			ref = ref.withTag()
			if !quiet {
				fmt.Fprintf(c.Out, "Using default tag: %s\n", ref.tag)
			}
		}
		cl, err := c.client()
		if err != nil {
			return err
		}
		stream, err := cl.Pull(ctx, client.PullOptions{
			Image: ref.familiar(), Tag: ref.pullTag(), Platform: platform, Auth: c.registryAuth(ref.domain),
		})
		if err != nil {
			return err
		}
		defer stream.Close()
		w := c.Out
		if quiet {
			w = io.Discard
		}
		if err := showProgress(w, stream, nil); err != nil {
			return err
		}
		fmt.Fprintln(c.Out, ref.full())
		return nil
	}
}
