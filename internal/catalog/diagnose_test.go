package catalog_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// diagnosed returns the finding that matches, if there is one.
func diagnosed(t *testing.T, conn *pgx.Conn, what string) (catalog.Finding, bool) {
	t.Helper()
	d := catalog.Diagnosis{PreparedFor: time.Microsecond, Held: 1}
	if err := catalog.Diagnose(t.Context(), conn, catalog.PreflightOptions{}, &d); err != nil {
		t.Fatal(err)
	}
	for _, f := range d.Findings {
		if regexp.MustCompile(what).MatchString(f.What) {
			return f, true
		}
	}
	return catalog.Finding{}, false
}

// fixOf returns how to fix what is found, after a look at its level and area.
func fixOf(t *testing.T, conn *pgx.Conn, level catalog.Level, area, what string) string {
	t.Helper()
	f, found := diagnosed(t, conn, what)
	if !found || f.Level != level || f.Area != area {
		t.Fatalf("no %s about %s says %q: %+v", level, area, what, f)
	}
	return f.Fix
}

// part returns the command in a fix.
func part(t *testing.T, fix, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindString(fix)
	if found == "" {
		t.Fatalf("the fix has no %q: %s", pattern, fix)
	}
	return found
}

// unused waits until the server has let go of the last replication connection.
func unused(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	eventually(t, func() bool { return value[int](t, conn, `select count(*)::int from pg_stat_replication`) == 0 })
}

func gone(t *testing.T, conn *pgx.Conn, what string) {
	t.Helper()
	if f, found := diagnosed(t, conn, what); found {
		t.Errorf("after its fix: %+v", f)
	}
}

// Each thing that is wrong is made, found, put right by the command that is named, and not found any more.
func TestDiagnosisNamesFixesThatHelp(t *testing.T) {
	p := ownServer(t, 17, map[string]string{"max_prepared_transactions": "2", "max_replication_slots": "2", "max_wal_senders": "1"})
	conn := connect(t, p, "postgres")
	install(t, conn, "pgamqp")
	whole := t

	t.Run("nobody reads the slot", func(t *testing.T) {
		const what = `nobody reads slot "pgamqp"`
		part(t, fixOf(t, conn, catalog.LevelWarning, "slot", what), `"pgamqp run"`)
		unused(t, conn)
		stream := walsender(t, p, "postgres", "pgamqp", "pgamqp")
		gone(t, conn, what)
		if f, found := diagnosed(t, conn, `open a replication connection`); found {
			t.Errorf("the last connection is the daemon's own: %+v", f)
		}
		if err := stream.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		unused(t, conn)
	})

	t.Run("all walsenders and slots are in use", func(t *testing.T) {
		exec(t, conn, `select pg_copy_logical_replication_slot('pgamqp', 'other')`)
		stream, err := pgconn.Connect(t.Context(), p.URL("postgres")+"&replication=database")
		if err != nil {
			t.Fatal(err)
		}
		const slots, senders, connection = `all 2 replication slots are in use`, `all 1 connections of max_wal_senders are in use`, `open a replication connection: .*max_wal_senders`
		raiseSlots := part(t, fixOf(t, conn, catalog.LevelWarning, "server", slots), `^alter system set max_replication_slots = 12;`)
		part(t, fixOf(t, conn, catalog.LevelError, "replication", connection), `^alter system set max_wal_senders = 10;`)
		raiseSenders := part(t, fixOf(t, conn, catalog.LevelWarning, "server", senders), `^alter system set max_wal_senders = 11;`)
		exec(t, conn, raiseSlots)
		exec(t, conn, raiseSenders)
		_ = stream.Close(t.Context())
		if err := p.Restart(testserver.Fast); err != nil {
			t.Fatal(err)
		}
		conn = connect(whole, p, "postgres")
		for _, what := range []string{slots, senders, connection} {
			gone(t, conn, what)
		}
		fixOf(t, conn, catalog.LevelOK, "replication", `is let through`)
		exec(t, conn, `select pg_drop_replication_slot('other')`)
	})

	t.Run("an old prepared transaction", func(t *testing.T) {
		exec(t, conn, `begin`)
		exec(t, conn, `create table public.prepared ()`)
		exec(t, conn, `prepare transaction 'it''s old'`)
		const what = `1 prepared transactions are older`
		exec(t, conn, part(t, fixOf(t, conn, catalog.LevelWarning, "server", what), `rollback prepared '(?:[^']|'')*'`))
		gone(t, conn, what)
	})

	t.Run("an open transaction", func(t *testing.T) {
		other := connect(t, p, "postgres")
		exec(t, other, `begin`)
		exec(t, other, `create table public.open ()`)
		exec(t, conn, `select pg_logical_emit_message(true, 'x', repeat('x', 1000000))`)
		exec(t, conn, `select pg_replication_slot_advance('pgamqp', pg_current_wal_lsn())`)
		const what = `bytes of WAL are kept for a transaction that is open: session`
		exec(t, conn, part(t, fixOf(t, conn, catalog.LevelWarning, "slot", what), `select pg_terminate_backend\(\d+\)`))
		eventually(t, func() bool { _, found := diagnosed(t, conn, what); return !found })
	})

	t.Run("a slot that does not survive a failover", func(t *testing.T) {
		exec(t, conn, `select pg_drop_replication_slot('pgamqp')`)
		exec(t, conn, `select pg_create_logical_replication_slot('pgamqp', 'pgoutput')`)
		const what = `slot "pgamqp" is no failover slot, and there are standbys`
		gone(t, conn, what)
		exec(t, conn, `select pg_create_physical_replication_slot('standby')`)
		command := part(t, fixOf(t, conn, catalog.LevelWarning, "slot", what), `ALTER_REPLICATION_SLOT "pgamqp" \(FAILOVER true\)`)
		stream, err := pgconn.Connect(t.Context(), p.URL("postgres")+"&replication=database")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Exec(t.Context(), command).ReadAll(); err != nil {
			t.Fatal(err)
		}
		if err := stream.Close(t.Context()); err != nil {
			t.Error(err)
		}
		gone(t, conn, what)
	})

	t.Run("no limit to the WAL", func(t *testing.T) {
		const what = `max_slot_wal_keep_size is -1`
		exec(t, conn, part(t, fixOf(t, conn, catalog.LevelOK, "slot", what), `alter system set max_slot_wal_keep_size = '100GB'`))
		exec(t, conn, `select pg_reload_conf()`)
		eventually(t, func() bool { _, found := diagnosed(t, conn, what); return !found })
	})

	t.Run("we would be a synchronous standby", func(t *testing.T) {
		exec(t, conn, `set synchronous_commit = local`) // not to wait for ourselves
		for names, level := range map[string]catalog.Level{"*": catalog.LevelError, "real, pgamqp": catalog.LevelWarning} {
			const what = `takes the daemon for a synchronous standby`
			exec(t, conn, `alter system set synchronous_standby_names = '`+names+`'`)
			exec(t, conn, `select pg_reload_conf()`)
			eventually(t, func() bool { f, _ := diagnosed(t, conn, what); return f.Level == level })
			fix := part(t, fixOf(t, conn, level, "server", what), `alter system set synchronous_standby_names = '...';`)
			exec(t, conn, strings.Replace(fix, "...", "real", 1))
			exec(t, conn, `select pg_reload_conf()`)
			eventually(t, func() bool { _, found := diagnosed(t, conn, what); return !found })
		}
		exec(t, conn, `alter system reset synchronous_standby_names`) // for the clean-up
		exec(t, conn, `select pg_reload_conf()`)
	})
}
