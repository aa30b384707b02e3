package catalog_test

import (
	"fmt"
	"os"
	"path/filepath"
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
