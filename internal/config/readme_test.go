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

var update = flag.Bool("update", false, "rewrite what documents say of the options")

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
	between(t, "../../README.md", config.Table())
}

func TestReferenceIsUpToDate(t *testing.T) {
	between(t, "../../docs/configuration.md", config.Reference())
}

// between compares what stands in a document between two marks, or rewrites it.
func between(t *testing.T, path, want string) {
	t.Helper()
	const begin, end = "<!-- options -->\n", "<!-- /options -->"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), begin)
	have, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no lines %q and %q around what is written about the options", path, strings.TrimSpace(begin), end)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("%s is out of date; `go test ./internal/config -update` rewrites it:\n%s", path, diff)
	}
}

// All that is to be said of an option is said: what it takes, does, when to change it, what it interacts with.
func TestReferenceSaysEverythingOfEachOption(t *testing.T) {
	reference := config.Reference()
	for _, o := range config.Options() {
		_, section, _ := strings.Cut(reference, "### `"+o.Name+"`\n")
		section, _, _ = strings.Cut(section, "\n### ")
		paragraphs := strings.Split(section, "\n\n")
		if len(paragraphs) != 3 || len(paragraphs[1]) < 40 || !strings.HasSuffix(paragraphs[1], ".") {
			t.Errorf("%s: what it does is not said: %q", o.Name, section)
		}
		for _, row := range []string{"takes", "default", "change it", "goes with"} {
			_, cell, _ := strings.Cut(section, "\n| "+row+" | ")
			cell, _, _ = strings.Cut(cell, "|")
			if strings.TrimSpace(cell) == "" {
				t.Errorf("%s: the row %q is empty", o.Name, row)
			}
		}
	}
}

// The bounds in the reference are those that are checked: a value beyond them is refused, the bounds are not.
func TestReferenceHasTheBoundsThatAreChecked(t *testing.T) {
	bounds := regexp.MustCompile(`(?s)### \x60(\w+)\x60\n.*?\n\| takes \| [^|]*?(\w+) to (\w+)[^|]* \|`)
	beyond := map[string][2]string{
		"window_messages": {"0", "65537"}, "window_bytes": {"65535", "68719476737"}, "shutdown_timeout": {"999ms", "1h1ns"},
		"nack_retry_timeout": {"-1ns", "24h1ns"}, "detach_after": {"999ms", "24h1ns"}, "heartbeat_interval": {"999ms", "1h1ns"},
	}
	for section := range strings.SplitSeq(config.Reference(), "\n\n### ") {
		section = "### " + strings.TrimPrefix(section, "### ")
		m := bounds.FindStringSubmatch(section)
		if m == nil || beyond[m[1]] == [2]string{} {
			continue
		}
		flag := strings.ReplaceAll(m[1], "_", "-")
		for _, text := range m[2:] {
			if _, err := config.Load(config.Input{Flags: map[string]string{flag: text}}); err != nil {
				t.Errorf("the reference allows %s for %s: %v", text, m[1], err)
			}
		}
		for _, text := range beyond[m[1]] {
			if _, err := config.Load(config.Input{Flags: map[string]string{flag: text}}); err == nil {
				t.Errorf("%s is taken for %s", text, m[1])
			}
		}
		delete(beyond, m[1])
	}
	if len(beyond) > 0 {
		t.Errorf("no bounds in the reference: %v", beyond)
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
