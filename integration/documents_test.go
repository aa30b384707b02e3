package integration

import (
	"bytes"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/snippet"
)

// claimed returns the blocks of a document that name this test as the one that runs them. The test runs each of them.
func claimed(t *testing.T, file string) []snippet.Block {
	t.Helper()
	all, err := snippet.Read("..", file)
	if err != nil {
		t.Fatal(err)
	}
	var ours []snippet.Block
	for _, b := range all {
		if b.Test == t.Name() && b.Runs() {
			ours = append(ours, b)
		}
	}
	if len(ours) == 0 {
		t.Fatalf("%s has no block for %s", file, t.Name())
	}
	return ours
}

// statement is one statement of a block, and what the document says that it yields.
type statement struct {
	sql    string
	says   bool
	yields string
}

// statements takes a block apart. A statement ends with a semicolon at the end of a line, outside of $$. Behind it may
// stand what it yields, or any other comment:
//
//	select 1, 2;  -- → 1 2
func statements(text string) (all []statement) {
	var sql strings.Builder
	for line := range strings.Lines(text) {
		code, comment, _ := strings.Cut(strings.TrimRight(line, "\n"), "-- ")
		sql.WriteString(line)
		if !strings.HasSuffix(strings.TrimSpace(code), ";") || strings.Count(sql.String(), "$$")%2 != 0 {
			continue
		}
		s := statement{sql: sql.String()}
		if s.yields, s.says = strings.CutPrefix(comment, "→ "); !s.says {
			s.yields = ""
		}
		all = append(all, s)
		sql.Reset()
	}
	if strings.TrimSpace(sql.String()) != "" {
		all = append(all, statement{sql: sql.String()})
	}
	return all
}

// runSQL runs the statements of a block one by one, as psql does, and fails the test if one yields something else than
// the document says. It returns the rows of the last statement, and how many statements there were.
func runSQL(t *testing.T, conn *pgx.Conn, b snippet.Block, replace ...string) (rows []string, n int) {
	t.Helper()
	for _, s := range statements(strings.NewReplacer(replace...).Replace(b.Text)) {
		results, err := conn.PgConn().Exec(withDeadline(t, sqlLimit), s.sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %s\n%v", b, s.sql, err)
		}
		rows = nil
		for _, row := range results[len(results)-1].Rows {
			rows = append(rows, string(bytes.Join(row, []byte(" "))))
		}
		if got := strings.Join(rows, ", "); s.says && got != s.yields {
			t.Errorf("%s: %s\nyields %q, want %q", b, s.sql, got, s.yields)
		}
		n++
	}
	return rows, n
}

// commands returns the calls of pgamqp of a block, each as words without the program's name.
func commands(t *testing.T, b snippet.Block, replace ...string) (all [][]string) {
	t.Helper()
	for line := range strings.Lines(strings.NewReplacer(replace...).Replace(b.Text)) {
		line, _, _ = strings.Cut(line, " #")
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "pgamqp" {
			t.Fatalf("%s: nobody runs %q", b, line)
		}
		all = append(all, words[1:])
	}
	return all
}

// TestCheckerOfSnippetsTakesThemApart: a statement that the reader of documents does not see is not run.
func TestCheckerOfSnippetsTakesThemApart(t *testing.T) {
	got := statements("begin;\nselect 1,\n  2;   -- → 1 2\nselect ';\n'; -- a comment\ndo $$\nbegin\n  null;\nend\n$$;\nselect 3")
	want := []statement{
		{sql: "begin;\n"},
		{sql: "select 1,\n  2;   -- → 1 2\n", says: true, yields: "1 2"},
		{sql: "select ';\n"}, // quotes over lines are not for documents
		{sql: "'; -- a comment\n"},
		{sql: "do $$\nbegin\n  null;\nend\n$$;\n"},
		{sql: "select 3"},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}
