package keeper_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLinks holds the keeper's program to the little that it may link.
func TestLinks(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "skiff/cmd/skiff-keeper").Output()
	if err != nil {
		t.Fatal(err)
	}
	for p := range strings.Lines(string(out)) {
		p = strings.TrimSpace(p)
		switch {
		case p == "", p == "golang.org/x/sys/unix", p == "skiff/runtime/launch", strings.HasPrefix(p, "skiff/internal/"):
		case p == "skiff/cmd/skiff-keeper", p == "skiff/keeper/server", p == "skiff/keeper/wire", p == "skiff/keeper/logfile":
		default:
			t.Errorf("skiff-keeper links %s", p)
		}
	}
	std, err := exec.Command("go", "list", "-deps", "skiff/cmd/skiff-keeper").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, heavy := range []string{"net", "net/http", "crypto/tls", "text/template", "os/user"} {
		if strings.Contains("\n"+string(std), "\n"+heavy+"\n") {
			t.Errorf("skiff-keeper links %s", heavy)
		}
	}
}
