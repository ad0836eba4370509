// Command standin makes images from this machine's own Debian packages and puts them into a registry folder under Docker
// Hub's names, for demos and tests where Docker Hub can't be reached. What it made is kept by content: a second run with
// the same package versions does nothing.
//
//	standin -cache DIR        make the images, print the registry's folder
//	standin -probe            exit 0 if Docker Hub answers, 1 if not
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"skiff/registry/server"
)

func main() {
	cache := flag.String("cache", ".cache/standin", "folder for packages and images")
	probe := flag.Bool("probe", false, "only tell whether Docker Hub can be reached")
	flag.Parse()
	if *probe {
		if err := hubAnswers(); err != nil {
			fmt.Fprintln(os.Stderr, "standin: Docker Hub can't be reached:", err)
			os.Exit(1)
		}
		return
	}
	dir, err := build(*cache)
	if err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
	fmt.Println(dir)
}

// hubAnswers asks for the API root, as a client does before a pull: 401 says that a registry is there.
func hubAnswers() error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://registry-1.docker.io/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}

// recipe is changed when the way images are made changes, so that old ones are not reused.
const recipe = "4"

// build makes the images if they are not in the cache and returns the registry's folder, an absolute path.
func build(cache string) (string, error) {
	cache, err := filepath.Abs(cache)
	if err != nil {
		return "", err
	}
	debs, err := download(filepath.Join(cache, "debs"))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	io.WriteString(h, recipe)
	for _, d := range debs {
		io.WriteString(h, filepath.Base(d)+"\n")
	}
	root := filepath.Join(cache, hex.EncodeToString(h.Sum(nil))[:16])
	if _, err := os.Stat(filepath.Join(root, "complete")); err == nil {
		return root, nil
	}
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	reg, err := server.New(root, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return "", err
	}
	p := pusher{reg}
	if err := busybox(p, debs); err != nil {
		return "", fmt.Errorf("busybox image: %w", err)
	}
	if err := ubuntu(p, debs); err != nil {
		return "", fmt.Errorf("ubuntu image: %w", err)
	}
	return root, os.WriteFile(filepath.Join(root, "complete"), nil, 0o644)
}

// basePackages and toolPackages become the two layers of the ubuntu stand-in.
var (
	basePackages = []string{
		"base-files", "base-passwd", "bash", "coreutils", "dash", "libacl1", "libattr1", "libc6", "libgmp10",
		"libpcre2-8-0", "libselinux1", "libtinfo6",
	}
	toolPackages = []string{"findutils", "grep", "hostname", "sed"}
)

// download fetches the packages that are not in dir and returns the paths of all, in the order of the lists.
func download(dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	names := append(append([]string{"busybox-static"}, basePackages...), toolPackages...)
	paths, missing := find(dir, names)
	if len(missing) == 0 {
		return paths, nil
	}
	fetch := func() error { return run(dir, "apt-get", append([]string{"download", "-qq"}, missing...)...) }
	if err := fetch(); err != nil {
		// A bare machine has no package lists yet.
		if uerr := run(dir, "apt-get", "update", "-qq"); uerr != nil {
			return nil, errors.Join(err, uerr)
		}
		if err := fetch(); err != nil {
			return nil, err
		}
	}
	paths, missing = find(dir, names)
	if len(missing) > 0 {
		return nil, fmt.Errorf("apt-get download did not bring %s", strings.Join(missing, " "))
	}
	return paths, nil
}

func find(dir string, names []string) (paths, missing []string) {
	for _, n := range names {
		m, _ := filepath.Glob(filepath.Join(dir, n+"_*.deb"))
		if len(m) == 0 {
			missing = append(missing, n)
			continue
		}
		paths = append(paths, m[len(m)-1])
	}
	return paths, missing
}

func run(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
