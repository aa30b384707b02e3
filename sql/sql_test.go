package sql

import (
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestVersionIsTheSameEverywhere(t *testing.T) {
	for name, line := range map[string]string{
		"schema.sql":  fmt.Sprintf("newest constant integer := %d;", Version),
		"version.sql": fmt.Sprintf("set version = %d,", Version),
	} {
		if !strings.Contains(read(name), line) {
			t.Errorf("%s does not say %q", name, line)
		}
	}
	if !strings.Contains(read("version.sql"), fmt.Sprintf("where version <> %d;", Version)) {
		t.Error("version.sql compares with another version")
	}
}

// Who upgrades reads in CHANGELOG.md whether the schema has another version.
func TestChangelogHasTheVersionOfTheSchema(t *testing.T) {
	text, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	newest := 0
	for _, m := range regexp.MustCompile(`Schema version (\d+)\.`).FindAllStringSubmatch(string(text), -1) {
		n, _ := strconv.Atoi(m[1]) // digits
		newest = max(newest, n)
	}
	if newest != Version {
		t.Errorf("CHANGELOG.md speaks of schema version %d, the scripts install %d: tell what is new in it, and end with \"Schema version %d.\"", newest, Version, Version)
	}
}

func TestEveryFileIsRun(t *testing.T) {
	found, err := fs.Glob(files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	want := append(names(), "publication.sql", "slot.sql")
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("files %q, run are %q", found, want)
	}
}

func TestTextIsPublicationThenOneTransactionThenTheSlot(t *testing.T) {
	text := Text("a", `it's \`)
	if !strings.Contains(text, `pg_catalog.set_config('pgamqp.slot', 'a', false), pg_catalog.set_config('pgamqp.publication', E'it''s \\', false)`) {
		t.Error("the names are not in the text as constants")
	}
	begin, commit := strings.Index(text, "\nbegin;\n"), strings.Index(text, "\ncommit;\n")
	publication, slot := strings.Index(text, "create publication"), strings.Index(text, "pg_create_logical_replication_slot")
	if publication < 0 || begin < publication || commit < begin || slot < commit {
		t.Errorf("publication at %d, begin at %d, commit at %d, slot at %d", publication, begin, commit, slot)
	}
}
