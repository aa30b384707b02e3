package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgamqp/pgamqp/internal/config"
)

var update = flag.Bool("update", false, "rewrite the table of options in README.md")

func TestOptionsHaveDistinctNamesAndADoc(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range config.Options() {
		if seen[o.Name] || o.Doc == "" || strings.HasSuffix(o.Doc, ".") || strings.Count(o.Doc, "`") != 2 {
			t.Errorf("%+v", o)
		}
		seen[o.Name] = true
		if o.Env != "PGAMQP_"+strings.ToUpper(o.Name) || o.Flag != strings.ReplaceAll(o.Name, "_", "-") {
			t.Errorf("%+v: the three names do not belong together", o)
		}
	}
}

func TestReadmeHasTheTableOfOptions(t *testing.T) {
	const path, begin, end = "../../README.md", "<!-- options -->\n", "<!-- /options -->"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), begin)
	table, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no lines %q and %q around the table", path, strings.TrimSpace(begin), end)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+config.Table()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(config.Table(), table); diff != "" {
		t.Errorf("the table of options is out of date; `go test ./internal/config -update` rewrites it:\n%s", diff)
	}
}

// The file of the packages has every setting, and holds if the comments are taken away.
func TestSampleOfThePackagesIsUpToDate(t *testing.T) {
	const path = "../../packaging/pgamqp.yaml"
	if *update {
		if err := os.WriteFile(path, []byte(config.Sample()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), config.Sample()); diff != "" {
		t.Errorf("%s is out of date; `go test ./internal/config -update` rewrites it:\n%s", path, diff)
	}
	file := filepath.Join(t.TempDir(), "pgamqp.yaml")
	if err := os.WriteFile(file, []byte(regexp.MustCompile(`(?m)^#(\w)`).ReplaceAllString(config.Sample(), "$1")), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Load(config.Input{File: file})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default().String(), loaded.String()); diff != "" {
		t.Errorf("without the comments it says something else than the defaults:\n%s", diff)
	}
}
