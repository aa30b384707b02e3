package integration

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

var (
	sqlBlock = regexp.MustCompile("(?s)\n```sql\n(.*?)```")
	// sqlStatement is a statement, and what it yields if that is said behind it.
	sqlStatement = regexp.MustCompile(`(?s)(.+?;)[ \t]*(?:-- → ([^\n]*))?\n`)
	heading      = regexp.MustCompile(`(?m)^## (.*)$`)
)

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
	address := strings.NewReplacer(`'localhost', 5672, '/'`, "'"+w.rabbit.Host()+"', "+strconv.Itoa(w.rabbit.Port())+", '"+w.vhosts[0]+"'")
	conn := w.connect().PgConn()
	ran := 0
	for _, block := range sqlBlock.FindAllStringSubmatch(string(text), -1) {
		for _, m := range sqlStatement.FindAllStringSubmatch(block[1], -1) { // one by one, as psql does
			statement, want := m[1], strings.TrimSpace(m[2])
			results, err := conn.Exec(withDeadline(t, sqlLimit), address.Replace(statement)).ReadAll()
			if err != nil {
				t.Fatalf("%s\n%v", statement, err)
			}
			var got []string
			for _, row := range results[0].Rows {
				got = append(got, string(bytes.Join(row, []byte(" "))))
			}
			if strings.Join(got, ", ") != want {
				t.Errorf("%s\nyields %q, want %q", statement, got, want)
			}
			ran++
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
