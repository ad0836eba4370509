package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestPull(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		c.run(t, "", "rmi", "-f", "busybox", "ubuntu")
		out := c.ok(t, "pull", "ubuntu")
		for _, words := range []string{"Using default tag: latest", "latest: Pulling from library/ubuntu", "Pull complete", "Digest: sha256:", "Status: Downloaded newer image for ubuntu:latest", "docker.io/library/ubuntu:latest"} {
			if !strings.Contains(out, words) {
				t.Errorf("pull lacks %q:\n%s", words, out)
			}
		}
		if out = c.ok(t, "pull", "ubuntu:latest"); !strings.Contains(out, "Status: Image is up to date for ubuntu:latest") {
			t.Errorf("second pull:\n%s", out)
		}
		r := c.run(t, "", "run", "--rm", "busybox", "echo", "pulled")
		if r.code != 0 || r.stdout != "pulled\n" || !strings.Contains(r.stderr, "Unable to find image 'busybox:latest' locally") {
			t.Errorf("run of a missing image: %+v", r)
		}
		if out = c.ok(t, "images", "--format", "{{.Repository}}:{{.Tag}}"); !strings.Contains(out, "ubuntu:latest") || !strings.Contains(out, "busybox:latest") {
			t.Errorf("images:\n%s", out)
		}
		c.fails(t, 1, "not found", "pull", "ubuntu:nosuchtag")
		c.fails(t, 1, "nosuchimage", "pull", "nosuchimage")
		c.fails(t, 1, "no match", "pull", "--platform", "linux/s390x", "ubuntu")
		c.fails(t, 1, "invalid reference format", "pull", "UPPER")
	})
}

func TestTagSaveLoadRemove(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		dir := t.TempDir()
		tar := filepath.Join(dir, "image.tar")
		c.ok(t, "pull", "-q", "busybox")
		id := c.ok(t, "inspect", "-f", "{{.Id}}", "busybox")
		if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(id) {
			t.Errorf("image id %q", id)
		}
		c.ok(t, "tag", "busybox", "example.org/team/box:v1")
		c.ok(t, "save", "-o", tar, "example.org/team/box:v1")
		if out := c.ok(t, "rmi", "example.org/team/box:v1"); !strings.Contains(out, "Untagged: example.org/team/box:v1") {
			t.Errorf("rmi of one of two tags:\n%s", out)
		}
		c.ok(t, "rmi", "busybox")
		c.fails(t, 1, "No such image: busybox", "rmi", "busybox")
		if out := c.ok(t, "load", "-i", tar); out != "Loaded image: example.org/team/box:v1" {
			t.Errorf("load: %q", out)
		}
		if got := c.ok(t, "inspect", "-f", "{{.Id}}", "example.org/team/box:v1"); got != id {
			t.Errorf("id after save and load: %s, was %s", got, id)
		}
		if got := c.ok(t, "run", "--rm", "example.org/team/box:v1", "echo", "ok"); got != "ok" {
			t.Errorf("run of the loaded image: %q", got)
		}
		user := c.ok(t, "create", "--name", "user-"+c.name, "example.org/team/box:v1", "true")
		c.fails(t, 1, "is using", "rmi", "example.org/team/box:v1")
		c.ok(t, "rm", user)
		c.ok(t, "rmi", "example.org/team/box:v1")
		if r := c.run(t, "this is no tar", "load"); r.code != 1 {
			t.Errorf("load of garbage: %+v", r)
		}
	})
}

func TestImport(t *testing.T) {
	each(t, func(t *testing.T, c client) {
		dir := t.TempDir()
		os.MkdirAll(filepath.Join(dir, "bin"), 0o755)
		busybox, err := exec.LookPath("busybox")
		if err != nil {
			b := c.ok(t, "run", "--rm", "busybox", "cat", "/bin/busybox")
			os.WriteFile(filepath.Join(dir, "bin/sh"), []byte(b), 0o755)
		} else if b, err := os.ReadFile(busybox); err == nil {
			os.WriteFile(filepath.Join(dir, "bin/sh"), b, 0o755)
		}
		tar := filepath.Join(t.TempDir(), "root.tar.gz")
		if out, err := exec.Command("tar", "-C", dir, "-czf", tar, ".").CombinedOutput(); err != nil {
			t.Fatalf("tar: %v %s", err, out)
		}
		id := c.ok(t, "import", "--change", "CMD [\"/bin/sh\",\"-c\",\"echo imported $X\"]", "--change", "ENV X=1", tar, "mine:1")
		defer c.run(t, "", "rmi", "-f", "mine:1")
		if !strings.HasPrefix(id, "sha256:") {
			t.Errorf("import printed %q", id)
		}
		if got := c.ok(t, "run", "--rm", "mine:1"); got != "imported 1" {
			t.Errorf("run of the imported image: %q", got)
		}
	})
}
