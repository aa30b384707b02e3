package demo

import (
	"bytes"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// program builds pgamqp and returns its path.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgamqp")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/pgamqp/pgamqp/cmd/pgamqp")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

// TestDemoFindsEverythingDelivered runs the demo as a user does.
func TestDemoFindsEverythingDelivered(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), Options{Program: program(t), Duration: 2 * time.Second, Rate: 300, Out: &out}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, row := range []string{`committed +[1-9]`, `rolled back +[1-9]`, `delivered +[1-9]`, `missing +0`, `extra .* +0`, `p99 +\d+\.\d+ ms`} {
		if !regexp.MustCompile(row).Match(out.Bytes()) {
			t.Errorf("no row like %q in\n%s", row, &out)
		}
	}
}

// TestRowsDemoFindsTheBalances runs the demo of row changes as a user does.
func TestRowsDemoFindsTheBalances(t *testing.T) {
	var out bytes.Buffer
	if err := RunRows(t.Context(), Options{Program: program(t), Duration: 2 * time.Second, Rate: 300, Out: &out}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, row := range []string{`read +[1-9]\d{4}`, `update +[1-9]`, `insert +[1-9]`, `accounts +100000  0 of`, `tellers +10  0 of`, `branches +1  0 of`} {
		if !regexp.MustCompile(row).Match(out.Bytes()) {
			t.Errorf("no row like %q in\n%s", row, &out)
		}
	}
}

// TestBalancesNoticeEveryFault gives the comparison what a broken daemon would.
func TestBalancesNoticeEveryFault(t *testing.T) {
	postgres, err := testserver.StartPostgres(testserver.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = postgres.Close() })
	w := &world{options: Options{Out: io.Discard}}
	if w.db, err = pgx.Connect(t.Context(), postgres.URL("postgres")); err != nil {
		t.Fatal(err)
	}
	_, err = w.db.Exec(t.Context(), `
		create table pgbench_accounts as select 1 as aid, 10 as abalance;
		create table pgbench_tellers as select 1 as tid, 20 as tbalance;
		create table pgbench_branches as select 1 as bid, 30 as bbalance`)
	if err != nil {
		t.Fatal(err)
	}
	const accounts, rest = `{"table":"pgbench_accounts","op":"insert","after":{"aid":1,"abalance":10}}`,
		`{"table":"pgbench_tellers","op":"read","after":{"tid":1,"tbalance":20}} {"table":"pgbench_branches","op":"read","after":{"bid":1,"bbalance":30}}`
	for messages, want := range map[string]int{
		accounts + " " + rest: 0,
		rest:                  1,
		accounts + ` {"table":"pgbench_accounts","op":"update","after":{"aid":1,"abalance":11}} ` + rest: 1,
		accounts + ` {"table":"pgbench_accounts","op":"insert","after":{"aid":2,"abalance":0}} ` + rest:  1,
		accounts + ` {"table":"pgbench_accounts","op":"delete","before":{"aid":1}} ` + rest:              1,
	} {
		seen := &balances{of: map[string]map[int64]int64{}, ops: map[string]int{}}
		for _, m := range strings.Fields(messages) {
			if err := seen.apply([]byte(m)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := w.compareBalances(t.Context(), seen); err != nil || got != want {
			t.Errorf("%s: %d differ, want %d, %v", messages, got, want, err)
		}
	}
}

// TestComparisonNoticesEveryFault gives the comparison what a broken daemon would.
func TestComparisonNoticesEveryFault(t *testing.T) {
	postgres, err := testserver.StartPostgres(testserver.PostgresOptions{Settings: map[string]string{"track_commit_timestamp": "on"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = postgres.Close() })
	db, err := pgx.Connect(t.Context(), postgres.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(t.Context(), `
		create table expected (id bigint primary key, broker_id integer, kind text);
		create sequence message_id;
		select nextval('message_id') from generate_series(1, 4);
		insert into expected values (1, 1, 'commit'), (2, 1, 'commit'), (3, 2, 'autonomous');
		create schema amqp;
		create table amqp.dead_letter (id bigint)`)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{db: db}
	for _, c := range []struct {
		name    string
		bodies  []string
		perfect bool
		count   func(*result) int
	}{
		{"all", []string{"1", "2", "3"}, true, func(r *result) int { return int(r.rolledBack) }},
		{"one missing", []string{"1", "3"}, false, func(r *result) int { return len(r.missing) }},
		{"one rolled back", []string{"1", "2", "3", "4"}, false, func(r *result) int { return len(r.extra) }},
		{"one twice", []string{"1", "2", "2", "3"}, false, func(r *result) int { return r.duplicates }},
		{"one that is no id", []string{"1", "2", "3", "x"}, false, func(r *result) int { return len(r.odd) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSeen()
			for _, body := range c.bodies {
				s.add(body, time.Now())
			}
			r, err := w.compare(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if r.perfect() != c.perfect || c.count(r) != 1 {
				t.Errorf("perfect %v, want %v; %+v", r.perfect(), c.perfect, r)
			}
		})
	}
	_, err = db.Exec(t.Context(), `insert into amqp.dead_letter values (1)`)
	if err != nil {
		t.Fatal(err)
	}
	s := newSeen()
	for _, body := range []string{"1", "2", "3"} {
		s.add(body, time.Now())
	}
	if r, err := w.compare(t.Context(), s); err != nil || r.perfect() {
		t.Errorf("a dead letter went unnoticed: %+v, %v", r, err)
	}
}

func TestPercentile(t *testing.T) {
	if got := percentile(nil, 99); got != 0 {
		t.Errorf("of none: %v", got)
	}
	sorted := make([]time.Duration, 100)
	for i := range sorted {
		sorted[i] = time.Duration(i + 1)
	}
	for p, want := range map[int]time.Duration{50: 50, 99: 99, 100: 100} {
		if got := percentile(sorted, p); got != want {
			t.Errorf("%d %%: %d, want %d", p, got, want)
		}
	}
}
