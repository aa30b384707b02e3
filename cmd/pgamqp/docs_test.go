package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// document reads a file of the repository.
func document(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// allTests returns a function that knows the names of all tests and fuzz targets.
func allTests(t *testing.T) func(name string) bool {
	t.Helper()
	var tests strings.Builder
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		tests.Write(source)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) bool { return strings.Contains(tests.String(), "\nfunc "+name+"(") }
}

// testsIn returns the names of tests and fuzz targets in backquotes.
func testsIn(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`").FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// TestArchitectureNamesTestsThatExist keeps the table of invariants true, and that of security requirements: each names the
// test that attacks it.
func TestArchitectureNamesTestsThatExist(t *testing.T) {
	exists := allTests(t)
	for page, least := range map[string]int{"ARCHITECTURE.md": 8, "SECURITY.md": 30} {
		named := testsIn(document(t, page))
		if len(named) < least {
			t.Fatalf("%s names only %d tests", page, len(named))
		}
		for _, name := range named {
			if !exists(name) {
				t.Errorf("%s names %s, which does not exist", page, name)
			}
		}
	}
}

// TestSecurityRequirementsAreMetOrNot: each says whether it is met, and what is said to be met names a test.
func TestSecurityRequirementsAreMetOrNot(t *testing.T) {
	rows := 0
	for line := range strings.Lines(document(t, "SECURITY.md")) {
		if !regexp.MustCompile(`^\| \d`).MatchString(line) {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			t.Fatalf("not four columns: %s", line)
		}
		met, shown := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[3])
		switch {
		case !slices.Contains([]string{"yes", "in part", "no"}, met):
			t.Errorf("neither yes, in part nor no: %s", line)
		case met == "yes" && len(testsIn(shown)) == 0:
			t.Errorf("names no test: %s", line)
		}
	}
	if rows < 40 {
		t.Errorf("SECURITY.md has only %d requirements", rows)
	}
}

// fault is a row of one of the tables of faults at the end of docs/operations.md.
type fault struct {
	row   string
	tests []string
}

// readFaults reads the tables, and tells what is wrong with single rows.
func readFaults(text string) (faults []fault, wrong []string) {
	title := regexp.MustCompile(`^#+ .*\(([A-Z])\)$`)
	number := regexp.MustCompile(`^\| *([A-Z]\d+[a-z]?) *\|`)
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			table = ""
			if m := title.FindStringSubmatch(line); m != nil {
				table = m[1]
			}
		}
		m := number.FindStringSubmatch(line)
		if m == nil || table == "" {
			continue
		}
		row := m[1]
		if row[:1] != table {
			complain("row %s stands in table %s", row, table)
		}
		cells := strings.Split(strings.Trim(strings.ReplaceAll(line, `\|`, ""), "|"), "|")
		if len(cells) != 5 || slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) == "" }) {
			complain("row %s has not five columns with text", row)
		}
		faults = append(faults, fault{row: row, tests: testsIn(cells[len(cells)-1])})
	}
	return faults, wrong
}

// checkTests tells which rows name tests that do not exist, or none after their own number.
// A row that names no test says why in its place.
func checkTests(faults []fault, exists func(name string) bool) (wrong []string) {
	for _, f := range faults {
		for _, name := range f.tests {
			if !exists(name) {
				wrong = append(wrong, fmt.Sprintf("row %s names %s, which does not exist", f.row, name))
			}
		}
		own := regexp.MustCompile(f.row + `(\D|$)`)
		if len(f.tests) > 0 && !slices.ContainsFunc(f.tests, own.MatchString) {
			wrong = append(wrong, fmt.Sprintf("row %s names no test after its number: %s", f.row, strings.Join(f.tests, ", ")))
		}
	}
	return wrong
}

// checkComplete tells which rows are missing, there twice, or not known.
func checkComplete(faults []fault, known []string) (wrong []string) {
	seen := map[string]int{}
	for _, f := range faults {
		if seen[f.row]++; seen[f.row] == 2 {
			wrong = append(wrong, "row "+f.row+" is there twice")
		}
		if !slices.Contains(known, f.row) {
			wrong = append(wrong, "row "+f.row+" is not known")
		}
	}
	for _, row := range known {
		if seen[row] == 0 {
			wrong = append(wrong, "row "+row+" is missing")
		}
	}
	return wrong
}

func TestFaultsNameTestsThatExist(t *testing.T) {
	faults, wrong := readFaults(document(t, "docs", "operations.md"))
	for _, w := range append(wrong, checkTests(faults, allTests(t))...) {
		t.Errorf("docs/operations.md: %s", w)
	}
	if len(faults) < 20 {
		t.Errorf("docs/operations.md has only %d faults", len(faults))
	}
}

func TestCheckOfTheFaultsFindsMistakes(t *testing.T) {
	const head = "### PostgreSQL (P)\n\n| row | what happens | what you see | what to do | test |\n|---|---|---|---|---|\n"
	known := []string{"P01", "P02", "P02a"}
	good := []string{
		"| P01 | a | b | c | `TestP01AndP02` |", "| P02 | a | b \\| c | d | `TestP01AndP02`, `TestOther` |",
		"| P02a | a | b | c | not tested: nobody can |",
	}
	exists := func(name string) bool { return name == "TestP01AndP02" || name == "TestOther" || name == "TestP02aX" }
	for _, c := range []struct {
		name  string
		lines []string
		more  string // behind the table
		want  string
	}{
		{"nothing wrong", good, "", ""},
		{"a row is missing", good[:2], "", "row P02a is missing"},
		{"a row is there twice", append(slices.Clone(good), good[1]), "", "row P02 is there twice"},
		{"an unknown row", append(slices.Clone(good), "| P03 | a | b | c | none |"), "", "row P03 is not known"},
		{"a row in the wrong table", good[:2], "### RabbitMQ (R)\n" + good[2], "row P02a stands in table R"},
		{"a row outside of the tables", good[:2], "## Something else\n" + good[2], "row P02a is missing"},
		{"a test that does not exist", append(slices.Clone(good[:2]), "| P02a | a | b | c | `TestP02aX`, `TestP02aGone` |"), "", "row P02a names TestP02aGone, which does not exist"},
		{"only a test of another name", append(slices.Clone(good[:2]), "| P02a | a | b | c | `TestP01AndP02` |"), "", "row P02a names no test after its number: TestP01AndP02"},
		{"neither a test nor a reason", append(slices.Clone(good[:2]), "| P02a | a | b | c |  |"), "", "row P02a has not five columns with text"},
		{"a column too few", append(slices.Clone(good[:2]), "| P02a | a | b | why |"), "", "row P02a has not five columns with text"},
	} {
		faults, wrong := readFaults(head + strings.Join(c.lines, "\n") + "\n" + c.more)
		wrong = slices.Concat(wrong, checkTests(faults, exists), checkComplete(faults, known))
		if got := strings.Join(wrong, "; "); got != c.want {
			t.Errorf("%s: found %q, want %q", c.name, got, c.want)
		}
	}
}

// TestFaultsAreComplete: every way to fail that is known stands in its table, once.
func TestFaultsAreComplete(t *testing.T) {
	var known []string
	for _, table := range []struct {
		letter string
		rows   int
	}{{"P", 56}, {"R", 40}, {"H", 11}, {"O", 10}} {
		for n := range table.rows {
			known = append(known, fmt.Sprintf("%s%02d", table.letter, n+1))
		}
	}
	known = append(known, "P54a")
	faults, _ := readFaults(document(t, "docs", "operations.md"))
	for _, w := range checkComplete(faults, known) {
		t.Errorf("docs/operations.md: %s", w)
	}
}
