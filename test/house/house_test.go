package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath, Dir, Doc string
	Imports, GoFiles     []string
	Standard             bool
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Doc,Imports,GoFiles,Standard"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// rooms says which rooms (top folders) a room may import. The arrows of the design point one way.
var rooms = map[string][]string{
	"cmd":       {"cli", "daemon", "keeper", "runtime", "registry"},
	"cli":       {"client"},
	"client":    {},
	"daemon":    {"api", "container", "image", "layer", "network", "runtime", "registry", "db", "keeper", "event"},
	"api":       {"container", "image", "network", "event", "registry"},
	"container": {"image", "layer", "network", "runtime", "db", "keeper", "event"},
	"image":     {"layer", "registry", "db"},
	"layer":     {"db"},
	"network":   {"db"},
	"runtime":   {},
	"registry":  {},
	"keeper":    {"runtime"},
	"db":        {},
	"event":     {},
	"internal":  {},
	"test":      {"registry", "client", "runtime", "keeper"},
}

func room(path string) string {
	r, _, _ := strings.Cut(strings.TrimPrefix(path, "skiff/"), "/")
	return r
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range list(t, "./...") {
		from := room(p.ImportPath)
		allowed, known := rooms[from]
		if !known {
			t.Errorf("%s: the house has no room %q; add it to the design and here", p.ImportPath, from)
			continue
		}
		for _, imp := range p.Imports {
			to := room(imp)
			if !strings.HasPrefix(imp, "skiff/") || to == from || to == "internal" {
				continue
			}
			if !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s: %s may import %v", p.ImportPath, imp, from, allowed)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t, "./...") {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// links says what a program must not link. The client is small and quick to start; the keeper is small and rarely changes.
var links = map[string][]string{
	"skiff": {
		"skiff/api", "skiff/daemon", "skiff/container", "skiff/image", "skiff/layer", "skiff/network", "skiff/runtime",
		"skiff/registry", "skiff/db", "skiff/keeper", "skiff/event", "go.etcd.io/", "github.com/vishvananda/", "github.com/google/nftables",
	},
	"skiff-keeper": {
		"skiff/api", "skiff/daemon", "skiff/container", "skiff/image", "skiff/layer", "skiff/network", "skiff/registry", "skiff/db",
		"net/http", "go.etcd.io/", "github.com/moby/", "github.com/spf13/", "github.com/vishvananda/", "github.com/cilium/",
	},
	"skiff-registry": {"skiff/daemon", "skiff/container", "skiff/image", "skiff/layer", "skiff/keeper", "go.etcd.io/"},
	"skiff-init":     {"skiff/", "net", "fmt"},
	"skiff-runtime":  {"skiff/daemon", "skiff/container", "skiff/image", "skiff/network", "net/http", "go.etcd.io/"},
}

func TestWhatProgramsLink(t *testing.T) {
	for program, forbidden := range links {
		self := "skiff/cmd/" + program
		for _, p := range list(t, "-deps", "./cmd/"+program) {
			for _, f := range forbidden {
				hit := p.ImportPath == f || strings.HasPrefix(p.ImportPath, f+"/") || strings.HasSuffix(f, "/") && strings.HasPrefix(p.ImportPath, f)
				if hit && p.ImportPath != self {
					t.Errorf("%s links %s", program, p.ImportPath)
				}
			}
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, file := range p.GoFiles {
			path := filepath.Join(p.Dir, file)
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s: has an init function", path)
				}
			}
		}
	}
}
