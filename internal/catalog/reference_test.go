package catalog_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// docs/configuration.md has the columns of amqp.broker as they are in the table that an installation makes.
func TestReferenceHasTheColumnsOfBroker(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "<!-- broker -->\n")
	table, _, _ = strings.Cut(table, "<!-- /broker -->")
	var documented []string
	for row := range strings.Lines(table) {
		cells := strings.Split(row, " | ")
		if strings.HasPrefix(row, "|---") {
			continue
		}
		if len(cells) != 5 || len(cells[4]) < 10 {
			t.Errorf("a row without five columns: %s", row)
			continue
		}
		documented = append(documented, strings.Join(cells[:4], " | "))
	}
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, _ := installed(t, p)
		rows, err := conn.Query(t.Context(), `
			select a.attname, format_type(a.atttypid, a.atttypmod), coalesce(pg_get_expr(d.adbin, d.adrelid), ''), a.attnotnull
			  from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
			 where a.attrelid = 'amqp.broker'::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum`)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"| column | type | default | NULL"}
		for _, row := range collect(t, rows) {
			byDefault, null := "none", "yes"
			switch {
			case strings.HasPrefix(row.byDefault, "nextval("):
				byDefault = "next of a sequence"
			case row.byDefault != "":
				byDefault = "`" + strings.TrimSuffix(row.byDefault, "::text") + "`"
			}
			if row.notNull {
				null = "no"
			}
			want = append(want, fmt.Sprintf("| `%s` | `%s` | %s | %s", row.name, row.typ, byDefault, null))
		}
		if diff := cmp.Diff(want, documented); diff != "" {
			t.Errorf("the table of docs/configuration.md is not that of the server:\n%s", diff)
		}
	})
}

var update = flag.Bool("update", false, "rewrite the signatures in docs/sql.md")

// signatures returns those of each function that applications and operators call, as pg_get_function_arguments has them.
// Those that differ in the type of the message alone are one, and so is a shorter one that defaults make of a longer.
func signatures(t *testing.T, conn *pgx.Conn) map[string][]string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		select p.proname::text, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
		  from pg_proc p where p.pronamespace = 'amqp'::regnamespace and p.proname !~ '^_' and p.proname <> 'heartbeat'
		 order by p.pronargs desc`)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]string)
	var name, arguments, result string
	_, err = pgx.ForEachRow(rows, []any{&name, &arguments, &result}, func() error {
		for _, r := range []struct{ pattern, by string }{
			{`\bDEFAULT NULL::[a-z ]+`, "default null"},
			{`(')::[a-z\[\]]+`, "$1"},
			{`\bDEFAULT\b`, "default"},
			{`amqp\.exchange_name`, "text"},
			{`timestamp with time zone`, "timestamptz"},
			{`\bmessage (text|bytea|jsonb?)\b`, "message text|bytea|json|jsonb"},
		} {
			arguments = regexp.MustCompile(r.pattern).ReplaceAllString(arguments, r.by)
		}
		if !slices.ContainsFunc(all[name], func(other string) bool { return strings.HasPrefix(other, "amqp."+name+"("+arguments) }) {
			all[name] = append(all[name], fmt.Sprintf("amqp.%s(%s) returns %s", name, arguments, result))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wrapped breaks a line between arguments.
func wrapped(line string) string {
	const width = 120
	var b strings.Builder
	at := 0
	for i, word := range strings.SplitAfter(line, ", ") {
		if i > 0 && at+len(word) > width {
			b.WriteString("\n    ")
			at = 4
		}
		b.WriteString(word)
		at += len(word)
	}
	return strings.ReplaceAll(b.String(), ", \n", ",\n")
}

// docs/sql.md has the signature of each function in its section, as it is in the server, and an example that calls it.
func TestReferenceHasTheSignatureOfEachFunction(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "sql.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	conn, _ := installed(t, server(t, 15))
	all := signatures(t, conn)
	marks := regexp.MustCompile(`(?s)\n## ([a-z_, ]+)\n\n<!-- signatures -->\n(.*?)<!-- /signatures -->\n`)
	got := marks.ReplaceAllStringFunc(string(text), func(section string) string {
		title := marks.FindStringSubmatch(section)[1]
		var b strings.Builder
		for _, name := range strings.Split(title, ", ") {
			if len(all[name]) == 0 {
				t.Errorf("there is no function %q", name)
			}
			for _, s := range all[name] {
				b.WriteString(wrapped(s) + "\n")
			}
			delete(all, name)
		}
		return "\n## " + title + "\n\n<!-- signatures -->\n```\n" + b.String() + "```\n<!-- /signatures -->\n"
	})
	for name := range all {
		t.Errorf("no section of docs/sql.md has the signature of amqp.%s", name)
	}
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		text = []byte(got)
	}
	if diff := cmp.Diff(string(text), got); diff != "" {
		t.Errorf("docs/sql.md (-is +should be, -update rewrites it):\n%s", diff)
	}
	examples := strings.Join(regexp.MustCompile("(?s)```sql\n.*?```").FindAllString(got, -1), "\n")
	for name := range signatures(t, conn) {
		if !strings.Contains(examples, "amqp."+name+"(") {
			t.Errorf("no example of docs/sql.md calls amqp.%s", name)
		}
	}
}

// docs/operations.md names each table that install makes.
func TestReferenceNamesEachTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| schema .amqp. \|.*$`).FindString(string(text))
	conn, _ := installed(t, server(t, 15))
	rows, err := conn.Query(t.Context(), `select relname::text from pg_class where relnamespace = 'amqp'::regnamespace and relkind = 'r'`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range append(tables, "migration") { // which "pgamqp migrate" makes
		if !strings.Contains(row, "`"+table+"`") {
			t.Errorf("docs/operations.md does not name amqp.%s: %s", table, row)
		}
	}
}

type column struct {
	name, typ, byDefault string
	notNull              bool
}

func collect(t *testing.T, rows pgx.Rows) []column {
	t.Helper()
	columns, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c column, err error) {
		return c, row.Scan(&c.name, &c.typ, &c.byDefault, &c.notNull)
	})
	if err != nil {
		t.Fatal(err)
	}
	return columns
}
