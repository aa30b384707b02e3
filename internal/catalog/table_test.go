package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// published makes a table in the publication and describes it.
func published(t *testing.T, conn *pgx.Conn, publication, name string, statements ...string) *catalog.Table {
	t.Helper()
	for _, statement := range statements {
		exec(t, conn, statement)
	}
	exec(t, conn, `alter publication `+publication+` add table public.`+name)
	table, err := catalog.ReadTable(t.Context(), conn, publication, "public", name)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// readAll reads a table in parts, and tells how many rows and bytes each has.
func readAll(t *testing.T, conn *pgx.Conn, table *catalog.Table, limits catalog.ChunkLimits) (rows, sizes []int) {
	t.Helper()
	var after []string
	for {
		chunk, err := table.ReadChunk(t.Context(), conn.PgConn(), after, limits, func(string) (bool, error) { return true, nil })
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, row := range chunk.Rows {
			size += len(bytes.Join(row, nil))
		}
		rows, sizes = append(rows, len(chunk.Rows)), append(sizes, size)
		if chunk.End {
			return rows, sizes
		}
		if chunk.After != nil {
			after = chunk.After
		}
	}
}

// The stream marks as key what identifies a row, and an index has more than that.
func TestKeyOfATableIsWhatTheStreamSays(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		for table, c := range map[string]struct{ columns, then, want string }{
			"included":   {columns: `id int, note text, primary key (id) include (note)`, want: "id"},
			"deferrable": {columns: `id int primary key deferrable, note text`},
			"full":       {columns: `id int primary key, note text`, then: `replica identity full`, want: "id note"},
			"nothing":    {columns: `id int primary key, note text`, then: `replica identity nothing`},
			"by_index":   {columns: `id int primary key, a int not null constraint by_a unique`, then: `replica identity using index by_a`, want: "a"},
		} {
			statements := []string{`create table public.` + table + ` (` + c.columns + `)`}
			if c.then != "" {
				statements = append(statements, `alter table public.`+table+` `+c.then)
			}
			var keys []string
			for _, column := range published(t, conn, name, table, statements...).Columns {
				if column.Key {
					keys = append(keys, column.Name)
				}
			}
			if got := strings.Join(keys, " "); got != c.want {
				t.Errorf("%s: the key is %q, want %q", table, got, c.want)
			}
		}
	})
}

// However rows differ in size, a part ends with the row that reaches its limit.
func TestPartsOfATableAreBounded(t *testing.T) {
	conn, name := installed(t, server(t, 15))
	limits := catalog.ChunkLimits{MaxRows: 2000, MaxBytes: 1 << 20}
	const small, large, size = 405, 20, 600_000
	fill := []string{
		fmt.Sprintf(`insert into public.%%s select n, 'a' from generate_series(1, %d) n`, small),
		fmt.Sprintf(`insert into public.%%s select n, repeat('a', %d) from generate_series(%d, %d) n`, size, small+1, small+large),
	}
	for table, key := range map[string]string{"by_key": "primary key", "by_place": ""} {
		statements := []string{`create table public.` + table + ` (id int ` + key + `, note text)`}
		for _, f := range fill {
			statements = append(statements, fmt.Sprintf(f, table))
		}
		rows, sizes := readAll(t, conn, published(t, conn, name, table, statements...), limits)
		sum := 0
		for i, n := range rows {
			sum += n
			if sizes[i] > limits.MaxBytes+size {
				t.Errorf("%s: part %d has %d rows of %d bytes", table, i, n, sizes[i])
			}
		}
		if sum != small+large || rows[0] != small+2 {
			t.Errorf("%s: parts of %d rows", table, rows)
		}
	}
}

// Policies would leave out rows without a word.
func TestRowLevelSecurityIsAnError(t *testing.T) {
	p := server(t, 15)
	conn, name := installed(t, p)
	table := published(t, conn, name, "t",
		`create table public.t (id int primary key)`, `insert into public.t select generate_series(1, 10)`,
		`alter table public.t enable row level security`, `create policy low on public.t using (id < 5)`,
		`create role `+name+`_reader login`, `grant select on public.t to `+name+`_reader`)
	atEnd(t, p, name, `drop owned by `+name+`_reader`, `drop role `+name+`_reader`)
	reader := connectAs(t, p, name, name+"_reader")
	_, err := table.ReadChunk(t.Context(), reader.PgConn(), nil, catalog.ChunkLimits{MaxRows: 10, MaxBytes: 1000}, func(string) (bool, error) { return true, nil })
	if err == nil || !strings.Contains(err.Error(), "row-level security") || !strings.Contains(err.Error(), "42501") {
		t.Errorf("read with %v", err)
	}
	exec(t, conn, `alter role `+name+`_reader bypassrls`)
	if rows, _ := readAll(t, reader, table, catalog.ChunkLimits{MaxRows: 100, MaxBytes: 1000}); rows[0] != 10 {
		t.Errorf("%d rows of 10 were read by one who may", rows)
	}
}

// Rows by their keys, which come in any order and may be gone.
func TestRowsAreReadByTheirKeys(t *testing.T) {
	conn, name := installed(t, server(t, 15))
	table := published(t, conn, name, "t",
		`create table public.t (pgamqp_n int, id int, k text, note text, primary key (k, id))`,
		`insert into public.t select 0, n, 'k''' || n, repeat('a', 400) from generate_series(1, 5) n`)
	limits := catalog.ChunkLimits{MaxRows: 100, MaxBytes: 1000}
	always := func(string) (bool, error) { return true, nil }
	keys := [][]string{{"4", "k'4"}, {"9", "k'9"}, {"4", "k'1"}, {"1", "k'1"}, {"5", "k'5"}, {"2", "k'2"}}
	var got []string
	for len(keys) > 0 {
		rows, used, err := table.ReadRows(t.Context(), conn.PgConn(), keys, limits, always)
		if err != nil || rows.End || rows.After != nil {
			t.Fatalf("%+v, %v", rows, err)
		}
		for _, row := range rows.Rows {
			got = append(got, string(row[1]))
		}
		got = append(got, fmt.Sprint("used ", used))
		keys = keys[used:]
	}
	if text := strings.Join(got, ", "); text != "4, 1, 5, used 5, 2, used 1" {
		t.Error(text)
	}
	if _, _, err := table.ReadRows(t.Context(), conn.PgConn(), [][]string{{"1"}}, limits, always); !errors.Is(err, catalog.ErrNoSnapshot) {
		t.Errorf("a key of another table: %v", err)
	}
}

func TestTableThatTookTheNameOfAnotherOneIsNotRead(t *testing.T) {
	conn, name := installed(t, server(t, 15))
	table := published(t, conn, name, "t", `create table public.t (id int primary key)`)
	exec(t, conn, `alter table public.t rename to u`)
	exec(t, conn, `create table public.t (id int primary key)`)
	_, err := table.ReadChunk(t.Context(), conn.PgConn(), nil, catalog.ChunkLimits{MaxRows: 1, MaxBytes: 1}, func(string) (bool, error) { return true, nil })
	if !errors.Is(err, catalog.ErrNoSnapshot) || !strings.Contains(err.Error(), "another table has its name now") {
		t.Errorf("%v", err)
	}
}
