package catalog_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

func nothingLeft(t testing.TB, conn *pgx.Conn, name string) {
	t.Helper()
	if n := value[int](t, conn, `select (select count(*) from pg_namespace where nspname = 'amqp')
		+ (select count(*) from pg_publication) + (select count(*) from pg_replication_slots where database = $1)`, name); n != 0 {
		t.Errorf("%d things are left", n)
	}
	if n := value[int](t, conn, `select count(*) from pg_proc where proname = 'pg_logical_emit_message' and not has_function_privilege('public', oid, 'execute')`); n != 0 {
		t.Error("pg_logical_emit_message is still closed to PUBLIC")
	}
}

func TestUninstallLeavesNothing(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		exec(t, conn, `insert into amqp.broker (host) values ('h')`)
		exec(t, conn, `select pg_copy_logical_replication_slot($1, $2)`, name, name+"_broker_1")
		report, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{})
		if err != nil {
			t.Fatal(err)
		}
		nothingLeft(t, conn, name)
		text := strings.Join(report.Removed, "\n")
		for _, want := range []string{"schema amqp", "slot " + name, "slot " + name + "_broker_1", "publication " + name} {
			if !strings.Contains(text, want) {
				t.Errorf("the report does not name %q:\n%s", want, text)
			}
		}
		if report, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{Slot: name, Publication: name}); err != nil || len(report.Removed) != 0 {
			t.Errorf("a second time: %+v, %v", report, err)
		}
		install(t, conn, name)
		if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
			t.Errorf("installed again: %v", err)
		}
	})
}

func TestUninstallRefusesWhileADaemonStreams(t *testing.T) {
	p := server(t, 15)
	conn, name := installed(t, p)
	stream := walsender(t, p, name, name, "pgamqp")
	for _, force := range []bool{false, true} {
		_, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{Force: force})
		wantProblem(t, err, "is in use by process", "pg_terminate_backend(")
		if pid := value[string](t, conn, `select active_pid::text from pg_replication_slots where slot_name = $1`, name); !strings.Contains(err.Error(), pid) {
			t.Errorf("process %s is not named: %v", pid, err)
		}
	}
	if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
		t.Errorf("a refused uninstall removed something: %v", err)
	}
	_ = stream.Close(t.Context())
}

func TestUninstallWantsForceForWhatWouldBeLost(t *testing.T) {
	p := server(t, 15)
	conn, name := installed(t, p)
	if err := catalog.AddDeadLetter(t.Context(), conn, catalog.DeadLetter{Origin: "o", LSN: 1}); err != nil {
		t.Fatal(err)
	}
	_, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{})
	wantProblem(t, err, "amqp.dead_letter holds 1 messages", "--force")
	exec(t, conn, `delete from amqp.dead_letter`)

	for _, dependent := range []struct{ create, drop, named string }{
		{`create view v as select * from amqp.broker`, `drop view v`, "view public.v depends on"},
		{`create view v as select amqp.publish(1, 'a', 'b', 'c')`, `drop view v`, "view public.v depends on"},
		{`create table amqp.mine (a int)`, `drop table amqp.mine`, "amqp.mine depends on schema amqp"},
		{`create table child () inherits (amqp.broker)`, `drop table child`, "child depends on"},
	} {
		exec(t, conn, dependent.create)
		_, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{})
		wantProblem(t, err, dependent.named, "--force")
		exec(t, conn, dependent.drop)
	}
	if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
		t.Errorf("a refused uninstall removed something: %v", err)
	}

	exec(t, conn, `create view v as select * from amqp.broker`)
	if err := catalog.AddDeadLetter(t.Context(), conn, catalog.DeadLetter{Origin: "o", LSN: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, conn, name)
}

func TestUninstallKeepsRolesThatAreUsed(t *testing.T) {
	p := ownServer(t, 0, nil)
	one, oneName := installed(t, p)
	two, _ := installed(t, p)
	exec(t, one, `create role app in role pgamqp_publisher`)
	report, err := catalog.Uninstall(t.Context(), one, catalog.UninstallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kept := strings.Join(report.Kept, "\n")
	if !strings.Contains(kept, "role pgamqp_publisher: it has members") || !strings.Contains(kept, "role pgamqp_daemon: ") {
		t.Errorf("kept: %q", report.Kept)
	}
	nothingLeft(t, one, oneName)
	exec(t, two, `grant execute on function amqp.publish(int, text, text, text) to pgamqp_publisher`)

	exec(t, one, `drop role app`)
	report, err = catalog.Uninstall(t.Context(), two, catalog.UninstallOptions{})
	if err != nil || len(report.Kept) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if n := value[int](t, two, `select count(*) from pg_roles where rolname like 'pgamqp%'`); n != 0 {
		t.Errorf("%d roles are left", n)
	}
}
