package integration

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/snippet"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

var heading = regexp.MustCompile(`(?m)^## (.*)$`)

// address makes a document's broker the world's.
func (w *world) address() []string {
	return []string{`'localhost', 5672, '/'`, "'" + w.rabbit.Host() + "', " + strconv.Itoa(w.rabbit.Port()) + ", '" + w.vhosts[0] + "'"}
}

// TestReadmeOfSQLHolds runs every example of docs/sql.md with a daemon, and looks for functions that it does not name.
func TestReadmeOfSQLHolds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{}), bare: true})
	w.slot = "pgamqp"
	w.install()
	w.start()
	conn := w.connect()
	ran := 0
	for _, b := range claimed(t, "docs/sql.md") {
		for _, s := range statements(b.Text) {
			rows, n := runSQL(t, conn, snippet.Block{File: b.File, Line: b.Line, Text: s.sql}, w.address()...)
			if len(rows) > 0 && !s.says {
				t.Errorf("%s: it does not say that this yields %q: %s", b, rows, s.sql)
			}
			ran += n
		}
	}
	if ran < 25 {
		t.Errorf("only %d statements were run", ran)
	}
	titles := "," + strings.Join(regexp.MustCompile(`\w+`).FindAllString(strings.Join(heading.FindAllString(string(text), -1), " "), -1), ",") + ","
	for _, name := range query[string](w, `select distinct proname::text from pg_proc where pronamespace = 'amqp'::regnamespace and proname !~ '^_' and proname <> 'heartbeat'`) {
		if !strings.Contains(titles, ","+name+",") {
			t.Errorf("no section of docs/sql.md is about amqp.%s", name)
		}
	}
}
