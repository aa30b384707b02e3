package catalog_test

import (
	"errors"
	osexec "os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// refusedWith checks that a statement fails with a code.
func refusedWith(t *testing.T, conn *pgx.Conn, code, statement string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), statement)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != code {
		t.Errorf("%s: %v, want code %s", statement, err, code)
	}
}

// newForger makes a role that may log in and was granted nothing.
func newForger(t *testing.T, p *testserver.Postgres, name string) string {
	t.Helper()
	role := name + "_forger"
	exec(t, connect(t, p, "postgres"), `create role `+role+` login`)
	atEnd(t, p, "postgres", `drop role `+role)
	return role
}

// sent tells how often a text is in what the slot would send.
func sent(t *testing.T, conn *pgx.Conn, slot, text string) int {
	t.Helper()
	return value[int](t, conn, `select count(*) from pg_logical_slot_peek_binary_changes('`+slot+`', null, null,
		'proto_version', '1', 'publication_names', '`+slot+`', 'messages', 'true')
		where position('`+text+`'::bytea in data) > 0`)
}

func openToForgers(t *testing.T, conn *pgx.Conn) bool {
	t.Helper()
	warnings, err := catalog.Warnings(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(warnings, func(w catalog.Problem) bool { return strings.Contains(w.What, "may call pg_logical_emit_message") })
}

// forgeries are calls of every form of the function.
func forgeries(p *testserver.Postgres) []string {
	all := []string{
		`select pg_logical_emit_message(true, 'amqp', 'forged')`,
		`select pg_logical_emit_message(false, 'amqp', 'forged')`,
		`select pg_logical_emit_message(false, 'amqp', 'forged'::bytea)`,
		`begin read only; select pg_logical_emit_message(false, 'amqp', 'forged')`,
	}
	if p.Version() >= 17 {
		all = append(all, `select pg_logical_emit_message(false, 'amqp', 'forged', true)`)
	}
	return all
}

func TestH01RoleWithoutGrantsCannotForge(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		forger := connectAs(t, p, name, newForger(t, p, name))
		for _, call := range forgeries(p) {
			refusedWith(t, forger, "42501", call)
			exec(t, forger, `rollback`)
		}
		refusedWith(t, forger, "42501", poison) // not made, let alone written
		if n := sent(t, conn, name, "forged"); n != 0 {
			t.Errorf("%d forged messages would be sent", n)
		}
		if openToForgers(t, conn) {
			t.Error("a warning though it is closed")
		}
	})
}

// Each database has its own grants, and a slot sends what was written in its own only.
func TestH02OtherDatabasesAreOpenAndDoNotMatter(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		other := newDatabase(t, p)
		forger := connectAs(t, p, other, newForger(t, p, name))
		for _, call := range forgeries(p) {
			exec(t, forger, call)
			exec(t, forger, `rollback`)
		}
		exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
		exec(t, conn, `select amqp.publish(1, '', 'q', 'ours')`)
		if ours, forged := sent(t, conn, name, "ours"), sent(t, conn, name, "forged"); ours != 1 || forged != 0 {
			t.Errorf("%d messages of ours and %d forged ones would be sent", ours, forged)
		}
		if !openToForgers(t, connect(t, p, other)) {
			t.Error("no warning in a database where nothing was installed")
		}
	})
}

// A dump holds the changed privileges of a function of the system.
func TestH03DumpAndRestoreKeepForgersOut(t *testing.T) {
	p := server(t, 15)
	_, name := installed(t, p)
	role := newForger(t, p, name)
	dump, err := osexec.CommandContext(t.Context(), "/usr/lib/postgresql/15/bin/pg_dump", p.URL(name)).Output()
	if err != nil {
		t.Fatal(err)
	}
	copied := newDatabase(t, p)
	if out, err := p.Psql(t.Context(), copied, string(dump)); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	conn := connect(t, p, copied)
	forger := connectAs(t, p, copied, role)
	for _, call := range forgeries(p) {
		refusedWith(t, forger, "42501", call)
		exec(t, forger, `rollback`)
	}
	if openToForgers(t, conn) {
		t.Error("a warning though it is closed")
	}
	exec(t, conn, `grant execute on function pg_logical_emit_message(boolean, text, text) to public`)
	if !openToForgers(t, conn) {
		t.Error("no warning though it was opened again")
	}
}

// poison is a record of nearly 1 GB.
const poison = `select pg_logical_emit_message(false, 'x', repeat('x', 1073741700))`

// A record of nearly 1 GB stops every logical slot of its database up to PostgreSQL 15;
// later versions do not take it.
func TestH04RecordOfAGigabyteStopsTheSlotOfOldVersions(t *testing.T) {
	for version, taken := range map[int]bool{15: true, 16: false} {
		p := ownServer(t, version, map[string]string{"max_wal_size": "4GB", "fsync": "off", "wal_init_zero": "off"})
		conn, name := installed(t, p)
		if taken {
			exec(t, conn, poison)
			exec(t, conn, `select pg_logical_emit_message(true, 'x', 'behind')`)
			refusedWith(t, conn, "XX000", `select count(*) from pg_logical_slot_peek_binary_changes('`+name+`', null, null,
				'proto_version', '1', 'publication_names', '`+name+`', 'messages', 'true')`)
			continue
		}
		refusedWith(t, conn, "XX000", poison) // oversized WAL record
		exec(t, conn, `select pg_logical_emit_message(true, 'x', 'behind')`)
		if n := sent(t, conn, name, "behind"); n != 1 {
			t.Errorf("%d messages behind the one that was refused", n)
		}
	}
}

// What PostgreSQL could write but not read again is refused before anything of it is in the WAL, by the short and the long form.
func TestMessageThatIsTooLargeIsRefusedBeforeItIsWritten(t *testing.T) {
	t.Parallel()
	conn, _ := installed(t, ownServer(t, 15, nil)) // nobody else writes there
	exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
	before := value[string](t, conn, `select pg_current_wal_insert_lsn()::text`)
	for _, call := range []string{
		`select amqp.publish(1, 'ex', 'k', repeat('x', 1069000000))`,
		`select amqp.autonomous_publish(1, 'ex', 'k', repeat('x', 1069000000), 2)`,
	} {
		refusedWith(t, conn, "54000", call)
	}
	if written := value[int](t, conn, `select (pg_current_wal_insert_lsn() - '`+before+`')::int`); written > 1<<20 {
		t.Errorf("%d bytes were written", written)
	}
}

// Where nobody can close the function, signatures are the remedy, and the warning ends with them as far as they help.
func TestWarningOfForgersNamesSignaturesAndKnowsThem(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		name := newDatabase(t, p)
		owner := name + "_owner"
		admin := connect(t, p, "postgres")
		exec(t, admin, `create role `+owner+` login replication`)
		atEnd(t, p, "postgres", `drop role `+owner)
		exec(t, admin, `alter database `+name+` owner to `+owner)
		atEnd(t, p, "postgres", `alter database `+name+` owner to postgres`)
		conn := connectAs(t, p, name, owner)
		install(t, conn, name)
		atEnd(t, p, name, `drop owned by `+owner+` cascade`)
		about := func() (all []catalog.Problem) {
			warnings, err := catalog.Warnings(t.Context(), conn)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				if strings.Contains(w.What, "pg_logical_emit_message") {
					all = append(all, w)
				}
			}
			return all
		}
		all := about()
		if len(all) != 1 || !strings.Contains(all[0].What, "forge messages to any broker") {
			t.Fatalf("before messages are signed: %+v", all)
		}
		for _, call := range []string{"select amqp.sign_messages()", "select amqp.require_signatures()"} {
			if !strings.Contains(all[0].Fix, call+";") {
				t.Errorf("the fix does not say %s: %s", call, all[0].Fix)
			}
			exec(t, conn, call)
		}
		all = about()
		switch {
		case p.Version() >= 16:
			if len(all) != 0 {
				t.Errorf("with signatures: %+v", all)
			}
		case len(all) != 1 || strings.Contains(all[0].What, "to any broker") || !strings.Contains(all[0].What, "stop every logical slot"):
			t.Errorf("with signatures: %+v", all)
		}
	})
}

// All roles that install makes are missed if they are not there.
func TestWarningsMissEachRole(t *testing.T) {
	p := ownServer(t, 0, nil)
	conn := connect(t, p, "postgres")
	install(t, conn, "pgamqp")
	for _, role := range []string{"pgamqp_publisher", "pgamqp_daemon", "pgamqp_monitor"} {
		exec(t, conn, `drop owned by `+role)
		exec(t, conn, `drop role `+role)
		warnings, err := catalog.Warnings(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(warnings, func(w catalog.Problem) bool { return w.What == "role "+role+" does not exist" }) {
			t.Errorf("without %s: %+v", role, warnings)
		}
	}
}
