package catalog_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

var tapLine = regexp.MustCompile(`^(not )?ok \d+ - (.*)$`)

// TestSQL runs the pgTAP tests beside the scripts, each in a database of its own, on every version.
func TestSQL(t *testing.T) {
	folder := filepath.Join("..", "..", "sql", "test")
	support, err := os.ReadFile(filepath.Join(folder, "support.sql"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.sql"))
	if err != nil || len(files) < 2 {
		t.Fatalf("no tests in %s (%v)", folder, err)
	}
	extension := pgTAP(t)
	for _, version := range testserver.Versions {
		t.Run("postgresql"+strconv.Itoa(version), func(t *testing.T) {
			t.Parallel()
			p := startServer(t, testserver.PostgresOptions{Version: version, Extensions: extension})
			for _, file := range files {
				name := strings.TrimSuffix(filepath.Base(file), ".sql")
				if name == "support" {
					continue
				}
				t.Run(name, func(t *testing.T) {
					script, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					runTAP(t, p, string(support)+string(script))
				})
			}
		})
	}
}

// pgTAP returns a folder with the files of the extension, which are the same for all versions.
func pgTAP(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/share/postgresql/*/extension/pgtap*")
	if err != nil || len(found) == 0 {
		t.Fatal("pgTAP is not installed; run `make setup`")
	}
	dir := t.TempDir()
	for _, file := range found {
		content, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(file)), content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func runTAP(t *testing.T, p *testserver.Postgres, script string) {
	conn, name := installed(t, p)
	exec(t, conn, `create extension pgtap`)
	out, err := p.Psql(t.Context(), name, script)
	ran, planned := 0, -1
	lines := strings.Split(out, "\n")
	for i, line := range lines {
		if n, found := strings.CutPrefix(line, "1.."); found {
			planned, _ = strconv.Atoi(n)
		}
		m := tapLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		ran++
		t.Run(m[2], func(t *testing.T) {
			if m[1] == "" {
				return
			}
			for _, comment := range lines[i+1:] {
				if !strings.HasPrefix(comment, "#") {
					break
				}
				t.Log(comment)
			}
			t.Fail()
		})
	}
	if err != nil {
		t.Fatalf("stopped after %d tests: %v", ran, err)
	}
	if ran == 0 || ran != planned {
		t.Fatalf("%d tests ran, the plan is %d:\n%s", ran, planned, out)
	}
}
