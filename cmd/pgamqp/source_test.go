package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A panic ends the whole process, and its supervisor starts it anew: half a daemon, which
// reads but does not publish, would hold WAL back without anybody noticing. So nobody in
// the daemon recovers.
func TestO03NobodyRecoversFromAPanic(t *testing.T) {
	calls(t, func(at token.Position, name string) {
		if name == "recover" {
			t.Errorf("%s recovers", at)
		}
	})
}

// A step of the clock must neither end nor prolong anything. Times of Go carry a clock that
// does not step, unless they are turned into numbers and back.
func TestO07NothingIsMeasuredByTheWallClock(t *testing.T) {
	calls(t, func(at token.Position, name string) {
		if name == "UnixNano" || name == "UnixMicro" && filepath.Base(at.Filename) != "decoder.go" {
			t.Errorf("%s: %s loses the clock that does not step", at, name)
		}
	})
}

// calls visits every call in the source of the daemon, but for that which only tests and the bench use: it takes
// a time from the daemon's metrics.
func calls(t *testing.T, visit func(at token.Position, name string)) {
	t.Helper()
	root := filepath.Join("..", "..")
	looked := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
			strings.Contains(path, "/fake") || strings.Contains(path, "/testserver/") || strings.Contains(path, "/bench/") || strings.Contains(path, "/licenses/") {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		looked++
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				switch f := call.Fun.(type) {
				case *ast.Ident:
					visit(files.Position(call.Pos()), f.Name)
				case *ast.SelectorExpr:
					visit(files.Position(call.Pos()), f.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || looked < 50 {
		t.Errorf("looked at %d files: %v", looked, err)
	}
}

// What the daemon runs no commands for cannot be injected into. The servers of demo, bench and tests are programs, and the
// tool that lists licenses asks go.
func TestOnlyDemoAndBenchRunCommands(t *testing.T) {
	root := filepath.Join("..", "..")
	looked := 0
	for _, part := range []string{"cmd", "decoder", "internal", "metrics", "publisher", "replication", "sql"} {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && slices.Contains([]string{"bench", "demo", "testserver", "licenses"}, d.Name()):
				return fs.SkipDir
			case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			looked++
			for _, i := range file.Imports {
				if i.Path.Value == `"os/exec"` {
					t.Errorf("%s runs commands", path)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if looked < 100 {
		t.Errorf("looked at %d files only", looked)
	}
}
