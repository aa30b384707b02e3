package catalog_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// One server of each version for the whole run; a test gets a database of its own.
//
//nolint:gochecknoglobals // what TestMain makes for the tests has to be kept somewhere
var servers = map[int]func() (*testserver.Postgres, error){}

func TestMain(m *testing.M) {
	var started []*testserver.Postgres
	for _, version := range testserver.Versions {
		servers[version] = sync.OnceValues(func() (*testserver.Postgres, error) {
			p, err := testserver.StartPostgres(testserver.PostgresOptions{
				Version:  version,
				Settings: map[string]string{"max_replication_slots": "40", "max_prepared_transactions": "5"},
			})
			if err == nil {
				started = append(started, p)
			}
			return p, err
		})
	}
	code := m.Run()
	for _, p := range started {
		if err := p.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// onEveryVersion runs a test as a subtest for each version of PostgreSQL. A version that
// is not installed is a failure.
func onEveryVersion(t *testing.T, test func(t *testing.T, p *testserver.Postgres)) {
	t.Helper()
	for _, version := range testserver.Versions {
		t.Run(fmt.Sprintf("postgresql%d", version), func(t *testing.T) { test(t, server(t, version)) })
	}
}

// ownServer starts a server for a test that changes the settings of the whole server.
func ownServer(t testing.TB, version int, settings map[string]string) *testserver.Postgres {
	t.Helper()
	return startServer(t, testserver.PostgresOptions{Version: version, Settings: settings})
}

// startServer starts a server that is closed with the test.
func startServer(t testing.TB, o testserver.PostgresOptions) *testserver.Postgres {
	t.Helper()
	p, err := testserver.StartPostgres(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func server(t testing.TB, version int) *testserver.Postgres {
	t.Helper()
	p, err := servers[version]()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

//nolint:gochecknoglobals // names are unique in the whole run
var databases atomic.Int64

// newDatabase makes an empty database. Slots belong to the server, so a test names its slot
// like its database.
func newDatabase(t testing.TB, p *testserver.Postgres) string {
	t.Helper()
	name := fmt.Sprintf("catalog_%d", databases.Add(1))
	if err := p.CreateDatabase(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	atEnd(t, p, "postgres",
		`select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where active and database = '`+name+`'`,
		`select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '`+name+`'`,
		`drop database if exists `+name+` with (force)`)
	return name
}

// atEnd runs statements after the test, when its context and its connections are gone.
func atEnd(t testing.TB, p *testserver.Postgres, database string, statements ...string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, p.URL(database))
		if err != nil {
			t.Errorf("clean up: %v", err)
			return
		}
		defer func() { _ = conn.Close(ctx) }()
		for _, statement := range statements {
			if _, err := conn.Exec(ctx, statement); err != nil {
				t.Errorf("clean up: %s: %v", statement, err)
			}
		}
	})
}

func connect(t testing.TB, p *testserver.Postgres, database string) *pgx.Conn {
	t.Helper()
	return connectAs(t, p, database, "postgres")
}

// connectAs connects as a person would, with PostgreSQL's own search_path, and not the one of the program.

func connectAs(t testing.TB, p *testserver.Postgres, database, role string) *pgx.Conn {
	t.Helper()
	config, err := catalog.Config(strings.Replace(p.URL(database), "//postgres@", "//"+role+"@", 1))
	if err != nil {
		t.Fatal(err)
	}
	delete(config.RuntimeParams, "search_path")
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = conn.Close(ctx) // it may be closed already
	})
	return conn
}

// installed returns a database with everything installed, its name being that of the slot
// and the publication.
func installed(t testing.TB, p *testserver.Postgres) (*pgx.Conn, string) {
	t.Helper()
	name := newDatabase(t, p)
	conn := connect(t, p, name)
	if _, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name, Publication: name}); err != nil {
		t.Fatal(err)
	}
	return conn, name
}

func exec(t testing.TB, conn *pgx.Conn, statement string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func value[T any](t testing.TB, conn *pgx.Conn, query string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}
