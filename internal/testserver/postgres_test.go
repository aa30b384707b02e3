package testserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// startPostgres starts a server that lives as long as the test.
func startPostgres(t *testing.T, o PostgresOptions) *Postgres {
	t.Helper()
	p, err := StartPostgres(o)
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

// query returns the one value of a query.
func query(t *testing.T, p *Postgres, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var value string
	if err := conn.QueryRow(ctx, sql).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func TestEveryVersionDecodesMessages(t *testing.T) {
	for _, version := range Versions {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			p := startPostgres(t, PostgresOptions{Version: version})
			if got := query(t, p, "show server_version"); !strings.HasPrefix(got, fmt.Sprint(version)) {
				t.Errorf("server version is %s", got)
			}
			query(t, p, "select slot_name::text from pg_create_logical_replication_slot('s', 'pgoutput')")
			query(t, p, "select pg_logical_emit_message(true, 'amqp', 'hello')::text")
			out, err := p.Psql(t.Context(), "postgres", `create publication empty;
				select encode(data, 'escape') from pg_logical_slot_get_binary_changes('s', null, null,
					'proto_version', '1', 'publication_names', 'empty', 'messages', 'true');`)
			if err != nil || !strings.Contains(out, "hello") {
				t.Errorf("the slot returned %q, %v", out, err)
			}
		})
	}
}

func TestSettingsDatabasesAndAddresses(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	p, err := StartPostgres(PostgresOptions{
		Settings: map[string]string{"wal_sender_timeout": "7s", "application_name": `a'b\c`}, Log: &log,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if got := query(t, p, "show wal_sender_timeout") + query(t, p, "select reset_val from pg_settings where name = 'application_name'"); got != `7sa'b\c` {
		t.Errorf("the settings are %q", got)
	}
	if err := p.CreateDatabase(t.Context(), `odd "name"`); err != nil {
		t.Error(err)
	}
	if out, err := p.Psql(t.Context(), `odd "name"`, "select current_database();"); err != nil || out != `odd "name"`+"\n" {
		t.Errorf("psql says %q, %v", out, err)
	}
	if _, err := p.Psql(t.Context(), "postgres", "select 1/0;"); err == nil || !strings.Contains(err.Error(), "division by zero") {
		t.Errorf("psql's error is %v", err)
	}
	if _, err := os.Stat(filepath.Join(p.SocketDir(), fmt.Sprintf(".s.PGSQL.%d", p.Port()))); err != nil {
		t.Error(err)
	}
	folder := p.folder
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	if !strings.Contains(log.String(), "ready to accept connections") {
		t.Errorf("the log is %q", log.String())
	}
}

func TestDataAndPortOutliveStopsAndKills(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{Durable: true})
	port, pid := p.Port(), p.PID()
	query(t, p, "select pg_create_logical_replication_slot('s', 'pgoutput')::text")
	if _, err := p.Psql(t.Context(), "postgres", "create table t (n int); insert into t values (1);"); err != nil {
		t.Fatal(err)
	}
	stops := map[string]func() error{
		"smart":     func() error { return p.Stop(Smart) },
		"fast":      func() error { return p.Stop(Fast) },
		"immediate": func() error { return p.Stop(Immediate) },
		"kill":      p.Kill,
	}
	for name, stop := range stops {
		if err := stop(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.PID() != 0 {
			t.Errorf("%s: the server still has pid %d", name, p.PID())
		}
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = c.Close()
			t.Errorf("%s: the port still answers", name)
		}
		if err := stop(); err != nil {
			t.Errorf("%s of a stopped server: %v", name, err)
		}
		if err := p.Start(); err != nil {
			t.Fatalf("start after %s: %v", name, err)
		}
		if p.Port() != port || p.PID() == pid {
			t.Errorf("after %s: port %d, pid %d; was %d, %d", name, p.Port(), p.PID(), port, pid)
		}
		if got := query(t, p, "select count(*)::text || (select count(*) from pg_replication_slots) from t"); got != "11" {
			t.Errorf("after %s: rows and slots are %s", name, got)
		}
	}
	if err := p.Start(); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("second Start: %v", err)
	}
	if err := p.Restart(Fast); err != nil {
		t.Error(err)
	}
}

func TestKillLeavesNoProcess(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, PostgresOptions{})
	conn, err := pgx.Connect(t.Context(), p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	children := childrenOf(p.PID())
	if len(children) < 5 {
		t.Fatalf("found only %d processes", len(children))
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, c := range children {
		if c.alive() {
			t.Errorf("process %d is still there", c.pid)
		}
	}
}

func TestServerThatCannotStartShowsItsLog(t *testing.T) {
	t.Parallel()
	_, err := StartPostgres(PostgresOptions{Settings: map[string]string{"wal_level": "nonsense"}})
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "wal_level"`) {
		t.Errorf("the error is %v", err)
	}
}

func TestMissingVersionNamesTheRemedy(t *testing.T) {
	t.Parallel()
	if _, err := StartPostgres(PostgresOptions{Version: 9}); err == nil || !strings.Contains(err.Error(), "make setup") {
		t.Errorf("the error is %v", err)
	}
}
