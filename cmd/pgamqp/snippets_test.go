package main

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/snippet"
)

// allSnippets returns the blocks of code of all documents.
func allSnippets(t *testing.T) []snippet.Block {
	t.Helper()
	project := filepath.Join("..", "..")
	documents, err := snippet.Documents(project)
	if err != nil {
		t.Fatal(err)
	}
	var all []snippet.Block
	for _, document := range documents {
		blocks, err := snippet.Read(project, document)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, blocks...)
	}
	return all
}

// unclaimed tells which blocks no test runs.
func unclaimed(blocks []snippet.Block, exists func(test string) bool) (wrong []string) {
	for _, b := range blocks {
		switch {
		case b.Test == "" && b.Runs():
			wrong = append(wrong, fmt.Sprintf("%s: no test runs this block of %s: write <!-- test: TestName --> above it", b, b.Language))
		case b.Test != "" && !exists(b.Test):
			wrong = append(wrong, fmt.Sprintf("%s: %s does not exist", b, b.Test))
		}
	}
	return wrong
}

// TestEverySnippetIsRunByATest: what a reader copies from a document is run by the test that the document names, see
// package snippet.
func TestEverySnippetIsRunByATest(t *testing.T) {
	for _, w := range unclaimed(allSnippets(t), allTests(t)) {
		t.Error(w)
	}
}

func TestCheckOfTheSnippetsFindsMistakes(t *testing.T) {
	exists := func(name string) bool { return name == "TestA" }
	for _, c := range []struct{ text, want string }{
		{"<!-- test: TestA -->\n```sql\n```\n", ""},
		{"```\n```\n```json\n```\n```yaml\n```\n", ""},
		{"```sql\n```\n<!-- test: TestA -->\n", "x.md:1: no test runs this block of sql: write <!-- test: TestName --> above it"},
		{"<!-- test: TestGone -->\n```sh\n```\n", "x.md:2: TestGone does not exist"},
	} {
		blocks, err := snippet.Parse("x.md", c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(unclaimed(blocks, exists), "; "); got != c.want {
			t.Errorf("of %q: found %q, want %q", c.text, got, c.want)
		}
	}
}

// checkCommand tells what is wrong with a line of a shell, as far as it can be seen without running it.
func checkCommand(line string, makefile, unit, contents string) error {
	line, _, _ = strings.Cut(line, " #")
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil
	}
	last := words[len(words)-1]
	switch program := words[0]; {
	case program == "make" && len(words) > 1:
		for _, word := range words[1:] {
			variable, _, isVariable := strings.Cut(word, "=")
			if isVariable && !regexp.MustCompile(`(?m)^`+variable+` \?=`).MatchString(makefile) {
				return fmt.Errorf("the Makefile has no variable %s", variable)
			}
			if !isVariable && !regexp.MustCompile(`(?m)^`+word+`:.* ## `).MatchString(makefile) {
				return fmt.Errorf("the Makefile has no target %s", word)
			}
		}
	case program == "pgamqp":
		command, rest, err := newRootCommand().Find(words[1:])
		if err != nil {
			return err
		}
		if slices.Contains(rest, "--help") {
			return nil
		}
		if err := command.ParseFlags(rest); err != nil {
			return err
		}
		return command.ValidateArgs(command.Flags().Args())
	case program == "dpkg" && regexp.MustCompile(`^pgamqp_[0-9.]+_amd64\.deb$`).MatchString(last): // as scripts/package.sh names it
	case program == "editor":
		if !strings.Contains(contents, "dst: "+last+",") {
			return fmt.Errorf("the package has no file %s", last)
		}
	case program == "systemctl":
		if unit != last+".service" {
			return fmt.Errorf("the package has no unit %s", last)
		}
	default:
		return fmt.Errorf("nobody knows whether %q works", line)
	}
	return nil
}

// TestCommandsOfTheDocumentsExist checks what is not run by a test: it takes too long, or changes the machine. Targets,
// variables, commands, flags and files are those that there are.
func TestCommandsOfTheDocumentsExist(t *testing.T) {
	makefile, contents := document(t, "Makefile"), document(t, "packaging", "nfpm.yaml")
	units, err := filepath.Glob(filepath.Join("..", "..", "packaging", "*.service"))
	if err != nil || len(units) != 1 {
		t.Fatalf("units %q, %v", units, err)
	}
	check := func(line string) error { return checkCommand(line, makefile, path.Base(units[0]), contents) }
	checked := 0
	for _, b := range allSnippets(t) {
		if b.Test != t.Name() {
			continue
		}
		for line := range strings.Lines(b.Text) {
			if err := check(line); err != nil {
				t.Errorf("%s: %s: %v", b, strings.TrimSpace(line), err)
			}
			checked++
		}
	}
	if checked < 10 {
		t.Errorf("only %d lines checked", checked)
	}
	for _, line := range []string{
		"make nothing", "make chaos NOTHING=1", "make", "pgamqp nothing", "pgamqp bench --nothing", "pgamqp config extra",
		"editor /etc/pgamqp/nothing", "systemctl start nothing", "dpkg -i nothing.deb", "nothing",
	} {
		if check(line) == nil {
			t.Errorf("the check finds nothing wrong with %q", line)
		}
	}
}
