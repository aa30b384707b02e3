package catalog_test

import (
	"errors"
	osexec "os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
	"github.com/pgamqp/pgamqp/sql"
)

func install(t testing.TB, conn *pgx.Conn, name string) catalog.InstallReport {
	t.Helper()
	report, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name, Publication: name})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// problems returns what an error lists, or fails the test.
func problems(t testing.TB, err error) string {
	t.Helper()
	var list *catalog.ProblemsError
	if !errors.As(err, &list) {
		t.Fatalf("error is %v, not a list of problems", err)
	}
	for _, p := range list.Problems {
		if p.Fix == "" {
			t.Errorf("%q comes without a fix", p.What)
		}
	}
	return err.Error()
}

func wantProblem(t testing.TB, err error, parts ...string) {
	t.Helper()
	text := problems(t, err)
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("the error does not say %q:\n%s", part, text)
		}
	}
}

func TestInstallCreatesEverythingOnce(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		name := newDatabase(t, p)
		conn := connect(t, p, name)
		first := install(t, conn, name)
		if len(first.Done) != 3 || len(first.Present) != 0 || len(first.Warnings) != 0 {
			t.Errorf("first installation: %+v", first)
		}
		slot, err := catalog.ReadSlot(t.Context(), conn, name)
		if err != nil {
			t.Fatal(err)
		}
		if slot.Plugin != "pgoutput" || slot.Type != "logical" || slot.TwoPhase || slot.Temporary || slot.Database != name {
			t.Errorf("slot: %+v", slot)
		}
		if slot.Failover != (p.Version() >= 17) {
			t.Errorf("failover is %v on version %d", slot.Failover, p.Version())
		}
		if n := value[int](t, conn, `select count(*) from pg_publication_tables`); n != 0 {
			t.Errorf("the publication has %d tables", n)
		}
		if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
			t.Errorf("preflight after installation: %v", err)
		}

		second := install(t, conn, name)
		if len(second.Done) != 0 || len(second.Present) != 3 || len(second.Warnings) != 0 {
			t.Errorf("second installation: %+v", second)
		}
		again, err := catalog.ReadSlot(t.Context(), conn, name)
		if err != nil {
			t.Fatal(err)
		}
		if again.ConfirmedFlush != slot.ConfirmedFlush {
			t.Errorf("the slot moved from %s to %s", slot.ConfirmedFlush, again.ConfirmedFlush)
		}
	})
}

func TestInstallKeepsNamesUnlessOthersAreGiven(t *testing.T) {
	p := server(t, 15)
	conn, name := installed(t, p)
	if _, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	i, err := catalog.ReadInstallation(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if i.Slot != name || i.Publication != name || i.Version != sql.Version || i.UpgradedAt != nil || i.InstalledAt.IsZero() {
		t.Errorf("installation: %+v", i)
	}

	report, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name + "_b", Publication: `Öf"fentlich`})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], `slot "`+name+`" was used before`) {
		t.Errorf("warnings: %q", report.Warnings)
	}
	if i, err = catalog.ReadInstallation(t.Context(), conn); err != nil || i.Slot != name+"_b" || i.Publication != `Öf"fentlich` {
		t.Errorf("installation: %+v, %v", i, err)
	}
	if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
		t.Error(err)
	}
}

func TestInstallAgainKeepsGrantsAndRows(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		role := name + "_app"
		exec(t, conn, "create role "+role)
		atEnd(t, p, "postgres", "drop role "+role)
		atEnd(t, p, name, "drop owned by "+role)
		for _, grant := range []string{
			"grant usage on schema amqp to public",
			"grant execute on function amqp.publish(int, text, text, text) to " + role,
			"grant select on amqp.dead_letter to " + role,
			"grant execute on function pg_logical_emit_message(boolean, text, text" + flushArgument(p) + ") to public",
			"revoke execute on function amqp.disconnect(int) from pgamqp_publisher",
			"insert into amqp.broker (host, password) values ('h', 'secret')",
		} {
			exec(t, conn, grant)
		}
		before := privileges(t, conn)
		report := install(t, conn, name)
		if diff := cmp.Diff(before, privileges(t, conn)); diff != "" {
			t.Errorf("privileges changed (-before +after):\n%s", diff)
		}
		if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "pg_logical_emit_message") {
			t.Errorf("the reopened function is not warned of: %q", report.Warnings)
		}
		advice := adviceForASuperuser(report.Warnings[0])
		if s := value[string](t, conn, `select password from amqp.broker`); s != "secret" {
			t.Errorf("password is %q", s)
		}
		exec(t, conn, advice)
		if report := install(t, conn, name); len(report.Warnings) != 0 {
			t.Errorf("what the warning advises is not enough: %q", report.Warnings)
		}
		exec(t, conn, `grant execute on function amqp._emit(boolean, bytea) to public`)
		install(t, conn, name)
		if value[bool](t, conn, `select has_function_privilege('public', 'amqp._emit(boolean, bytea)', 'execute')`) {
			t.Error("everybody may call an inner function")
		}
	})
}

// A dump without privileges has the record that they were set, and not the privileges.
func TestInstallClosesWhatADumpWithoutPrivilegesHasOpened(t *testing.T) {
	p := server(t, 15)
	conn, name := installed(t, p)
	dump, err := osexec.CommandContext(t.Context(), "/usr/lib/postgresql/15/bin/pg_dump", "--no-privileges", p.URL(name)).Output()
	if err != nil {
		t.Fatal(err)
	}
	copied := newDatabase(t, p)
	if out, err := p.Psql(t.Context(), copied, string(dump)); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	restored := connect(t, p, copied)
	if report := install(t, restored, copied); len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "was used before") { // the slot of the original
		t.Errorf("warnings: %q", report.Warnings)
	}
	if diff := cmp.Diff(privileges(t, conn), privileges(t, restored)); diff != "" {
		t.Errorf("privileges (-original +restored):\n%s", diff)
	}
}

func flushArgument(p *testserver.Postgres) string {
	if p.Version() >= 17 {
		return ", boolean"
	}
	return ""
}

func privileges(t testing.TB, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		select 'schema ' || coalesce(nspacl::text, '') from pg_namespace where nspname = 'amqp'
		union all select p.oid::regprocedure || ' ' || coalesce(proacl::text, '') from pg_proc p
		 where pronamespace = 'amqp'::regnamespace or proname = 'pg_logical_emit_message'
		union all select c.oid::regclass || ' ' || coalesce(relacl::text, '') from pg_class c where relnamespace = 'amqp'::regnamespace
		order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// asOfVersion1 takes away what came later.
func asOfVersion1(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, `alter table amqp.broker drop column on_reject, drop column retry_timeout`)
	withoutSnapshots(t, conn)
	exec(t, conn, `drop table amqp.route, amqp.route_version cascade`)
	exec(t, conn, `drop function amqp._routes_changed(), amqp._route_versions(), amqp._route_version_committed, amqp.route_table, amqp.unroute`)
	exec(t, conn, `update amqp.installation set version = 1, steps = array_remove(steps, 'routes 1')`)
}

// withoutLimits takes away what version 5 has added.
func withoutLimits(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, `drop table amqp.publish_limit, amqp.signing_key`)
	exec(t, conn, `alter table amqp.installation drop column signed_from, drop column signed_on`)
	// Until then it knew nothing of limits.
	exec(t, conn, `create or replace function amqp._remember_brokers() returns void language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as 'begin end'`)
	exec(t, conn, `drop function amqp._limits, amqp._check_limits, amqp._check_unlimited, amqp._for_publishers, amqp._limits_changed,
		amqp.grant_publish, amqp.revoke_publish, amqp.sign_messages, amqp.require_signatures, amqp._pad, amqp._define_publish`)
	exec(t, conn, `create or replace function amqp._emit(transactional boolean, content bytea) returns pg_lsn language sql volatile security definer
		set search_path = pg_catalog, pg_temp as $$ select pg_logical_emit_message(transactional, 'amqp', content) $$`)
	exec(t, conn, `drop function amqp._signed`)
	exec(t, conn, `alter table amqp.broker drop column tls_ca, drop column tls_cert, drop column tls_key, drop column tls_server_name, drop column auth`)
	exec(t, conn, `revoke all on all tables in schema amqp from pgamqp_monitor`)
	exec(t, conn, `revoke all on all functions in schema amqp from pgamqp_monitor`)
	exec(t, conn, `revoke all on schema amqp from pgamqp_monitor`)
	exec(t, conn, `drop function amqp._snapshot_chunk, amqp._snapshot_moved, amqp._snapshots_begin`)
	exec(t, conn, `create function amqp._snapshot_chunk(integer, bigint, text[], text[], bigint, boolean, text) returns boolean language sql as 'select true'`)
	exec(t, conn, `alter table amqp.snapshot drop column table_oid, drop column moved`)
	exec(t, conn, `update amqp.installation set version = 4, steps = array_remove(array_remove(steps, 'monitor 1'), 'snapshots 2')`)
}

func TestUpgradeFromVersion4AddsLimitsAndTLS(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		withoutLimits(t, conn)
		exec(t, conn, `insert into amqp.broker (broker_id, host, tls) values (1, 'h', true)`)
		install(t, conn, name)
		exec(t, conn, `update amqp.broker set auth = 'external', tls_cert = 'file:a', tls_key = 'file:b'`)
		for _, bad := range []string{`update amqp.broker set auth = 'kerberos'`, `update amqp.broker set tls = false`, `update amqp.broker set tls_cert = null`} {
			if _, err := conn.Exec(t.Context(), bad); err == nil {
				t.Errorf("%s: no error", bad)
			}
		}
		if n := value[int](t, conn, `select count(*)::int from pg_proc where proname = '_snapshot_chunk' and has_function_privilege('pgamqp_daemon', oid, 'execute')
			and not has_function_privilege('pgamqp_publisher', oid, 'execute') and pronargs = 9`); n != 1 {
			t.Errorf("the daemon may call %d functions for parts of snapshots", n)
		}
		exec(t, conn, `select amqp.grant_publish('pgamqp_monitor', 1)`)
		if n := value[int](t, conn, `select cardinality(amqp._broker_ids())`); n != 0 {
			t.Errorf("%d brokers for the short way although there are limits", n)
		}
	})
}

// withoutSnapshots takes away what version 4 has added beside the table of routes.
func withoutSnapshots(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	withoutLimits(t, conn)
	exec(t, conn, `drop table amqp.snapshot`)
	exec(t, conn, `drop function amqp.route_prefix, amqp.snapshot, amqp.snapshot_pause, amqp.snapshot_resume, amqp.snapshot_cancel,
		amqp._snapshot_state, amqp._snapshot_chunk, amqp._snapshot_back, amqp._snapshot_done, amqp._snapshot_fails`)
	exec(t, conn, `update amqp.installation set version = 3, steps = array_remove(steps, 'snapshots 1')`)
}

func TestUpgradeFromVersion3KeepsRoutes(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		withoutSnapshots(t, conn)
		exec(t, conn, `alter table amqp.route drop message_prefix cascade, drop constraint if exists route_knows_operations,
			drop constraint if exists route_knows_format, drop constraint if exists route_knows_places,
			drop constraint if exists route_for_tables_or_messages,
			add constraint route_operations_check check (cardinality(operations) > 0), add constraint route_format_check check (format in ('json')),
			add constraint route_routing_key_check check (routing_key <> ''), alter schema_name set not null, alter table_name set not null`)
		exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
		exec(t, conn, `insert into amqp.route (broker_id, exchange, schema_name, table_name) values (1, 'x', 'public', '*')`)
		install(t, conn, name)
		exec(t, conn, `update amqp.route set format = 'debezium'`)
		exec(t, conn, `select amqp.route_prefix('app', 1, 'x')`)
		for _, bad := range []string{`update amqp.route set format = 'xml'`, `update amqp.route set operations = '{select}'`, `update amqp.route set routing_key = '{'`} {
			if _, err := conn.Exec(t.Context(), bad); err == nil {
				t.Errorf("%s: no error", bad)
			}
		}
		versions, err := catalog.RouteVersions(t.Context(), conn)
		if last := versions[len(versions)-1].Routes; err != nil || len(last) != 2 || last[0].Format != "debezium" || last[0].Table != "*" || last[1].Prefix != "app" {
			t.Errorf("routes %+v, %v", last, err)
		}
	})
}

func TestUpgradeFromVersion1KeepsBrokersAndGrants(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		asOfVersion1(t, conn)
		exec(t, conn, `insert into amqp.broker (broker_id, host, port, vhost, username, password, tls) values (7, 'h', 1, 'v', 'u', 'p', true)`)
		wantProblem(t, catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}), "schema amqp has version 1, this program needs 5", "pgamqp install")
		before := privileges(t, conn)
		report := install(t, conn, name)
		if text := strings.Join(report.Done, "\n"); !strings.Contains(text, "upgraded from version 1 to 5") {
			t.Errorf("done: %s", text)
		}
		ofMonitor := regexp.MustCompile(`,pgamqp_monitor=[^,}]*`)
		newer := regexp.MustCompile(`route|snapshot|limit|sign|_pad|_define_publish|_for_publishers|amqp.(grant|revoke)_publish`)
		var after []string
		for _, line := range privileges(t, conn) {
			if !newer.MatchString(line) {
				after = append(after, ofMonitor.ReplaceAllString(line, ""))
			}
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("privileges (-before +after):\n%s", diff)
		}
		brokers, err := catalog.Brokers(t.Context(), conn)
		want := []catalog.Broker{{ID: 7, OnReject: "dead_letter", Hosts: []catalog.Host{{Host: "h", Port: 1, VHost: "v", Username: "u", Password: "p", TLS: true, Auth: "plain"}}}}
		if diff := cmp.Diff(want, brokers); err != nil || diff != "" {
			t.Errorf("brokers (-want +got):\n%s%v", diff, err)
		}
		if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := conn.Exec(t.Context(), `update amqp.broker set on_reject = 'ignore'`); err == nil {
			t.Error("the upgraded column takes any value")
		}
		// The printed text does the same.
		asOfVersion1(t, conn)
		if out, err := p.Psql(t.Context(), name, sql.Text(name, name)); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func TestInstallUpgradesInPlace(t *testing.T) {
	p := server(t, 15)
	conn, name := installed(t, p)
	exec(t, conn, `update amqp.installation set version = 0`)
	exec(t, conn, `create or replace function amqp.delivered(lsn pg_lsn) returns boolean language sql as 'select null::boolean'`)
	wantProblem(t, catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}), "schema amqp has version 0, this program needs 5", "pgamqp install")
	install(t, conn, name)
	if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
		t.Error(err)
	}
	if !value[bool](t, conn, `select amqp.delivered('0/1')`) {
		t.Error("the function was not replaced")
	}
}

func TestInstallRefusesADowngrade(t *testing.T) {
	p := server(t, 15)
	conn, name := installed(t, p)
	exec(t, conn, `update amqp.installation set version = 1000`)
	_, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name})
	wantProblem(t, err, "schema amqp has version 1000, this program knows versions up to 5")
	wantProblem(t, catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}), "schema amqp has version 1000")
	// The printed text refuses as well.
	_, err = p.Psql(t.Context(), name, sql.Text(name, name))
	if err == nil || !strings.Contains(err.Error(), "schema amqp has version 1000 here") {
		t.Errorf("psql: %v", err)
	}
}

func TestPrintedTextInstallsWithPsql(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		name := newDatabase(t, p)
		for range 2 {
			if out, err := p.Psql(t.Context(), name, sql.Text(name, `it's a "publication" \`)); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		conn := connect(t, p, name)
		if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
			t.Error(err)
		}
		i, err := catalog.ReadInstallation(t.Context(), conn)
		if err != nil || i.Slot != name || i.Publication != `it's a "publication" \` {
			t.Errorf("installation: %+v, %v", i, err)
		}
		slot, err := catalog.ReadSlot(t.Context(), conn, name)
		if err != nil || slot.Failover != (p.Version() >= 17) {
			t.Errorf("slot: %+v, %v", slot, err)
		}
	})
}

func TestTwoInstallationsAtOnceBothSucceed(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		name := newDatabase(t, p)
		conns := []*pgx.Conn{connect(t, p, name), connect(t, p, name), connect(t, p, name)}
		errs := make([]error, len(conns))
		var all sync.WaitGroup
		for i, conn := range conns {
			all.Go(func() {
				_, errs[i] = catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name, Publication: name})
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	})
}

func TestInstallRefusesWhatCannotWork(t *testing.T) {
	p := server(t, 15)
	admin := connect(t, p, "postgres")
	name := newDatabase(t, p)
	conn := connect(t, p, name)
	schemas := func() int { return value[int](t, conn, `select count(*) from pg_namespace where nspname = 'amqp'`) }

	for _, slot := range []string{"Upper", "with-dash", "a b", "x'; drop table", strings.Repeat("x", 64)} {
		_, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: slot})
		wantProblem(t, err, "cannot be the name of a slot")
	}
	_, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{Publication: strings.Repeat("x", 64)})
	wantProblem(t, err, "the name of the publication has 64 bytes")

	exec(t, admin, `select pg_create_physical_replication_slot($1)`, name+"_phys")
	atEnd(t, p, "postgres", `select pg_drop_replication_slot('`+name+`_phys')`)
	_, err = catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name + "_phys"})
	wantProblem(t, err, "is a physical slot")

	exec(t, conn, `select pg_create_logical_replication_slot($1, 'test_decoding', false, true)`, name+"_other")
	_, err = catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name + "_other"})
	wantProblem(t, err, "was created for plugin test_decoding", "(two_phase)")

	exec(t, conn, `select pg_create_logical_replication_slot($1, 'pgoutput', true)`, name+"_temp")
	_, err = catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name + "_temp"})
	wantProblem(t, err, "is temporary")

	_, otherName := installed(t, p)
	_, err = catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: otherName})
	wantProblem(t, err, `belongs to database "`+otherName+`"`)

	exec(t, conn, `create role `+name+`_weak login`)
	atEnd(t, p, "postgres", `drop role `+name+`_weak`)
	weak := connectAs(t, p, name, name+"_weak")
	_, err = catalog.Install(t.Context(), weak, catalog.InstallOptions{})
	wantProblem(t, err, `may not use replication slots`, `alter role "`+name+`_weak" replication;`)

	if schemas() != 0 {
		t.Error("a refused installation left its schema behind")
	}
}

func TestInstallWithoutSuperuser(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		admin := connect(t, p, "postgres")
		name := newDatabase(t, p)
		owner := name + "_owner"
		exec(t, admin, `create role `+owner+` login replication`)
		exec(t, admin, `alter database `+name+` owner to `+owner)
		conn := connectAs(t, p, name, owner)
		report := install(t, conn, name)
		if len(report.Done) != 3 {
			t.Errorf("done: %q", report.Done)
		}
		if len(report.Warnings) == 0 || !strings.Contains(report.Warnings[0], "may call pg_logical_emit_message") {
			t.Errorf("warnings: %q", report.Warnings)
		}
		exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
		exec(t, conn, `select amqp.publish(1, 'ex', 'k', 'm'), amqp.autonomous_publish(1, 'ex', 'k', 'm', 2)`)
		if got := contents(t, conn, name); len(got) != 3 {
			t.Errorf("%d messages", len(got))
		}
		if err := catalog.Preflight(t.Context(), conn, catalog.PreflightOptions{}); err != nil {
			t.Error(err)
		}

		// A superuser completes it, but not by running what the owner has made; the functions still work.
		super := connect(t, p, name)
		_, err := catalog.Install(t.Context(), super, catalog.InstallOptions{Slot: name, Publication: name})
		wantProblem(t, err, "schema amqp belongs to role \""+owner+"\"", "do it as role \""+owner+"\"")
		advice := adviceForASuperuser(report.Warnings[0])
		exec(t, super, advice)
		for _, role := range []string{"pgamqp_publisher", "pgamqp_daemon", "pgamqp_monitor"} { // if no other test has
			exec(t, super, `do $$ begin create role `+role+` nologin; exception when duplicate_object or unique_violation then null; end $$`)
		}
		exec(t, conn, `select amqp.publish(1, 'ex', 'k', 'm'), amqp.autonomous_publish(1, 'ex', 'k', 'm', 2)`)
		exec(t, conn, `insert into amqp.broker (broker_id, host) values (2, 'h')`)
		exec(t, conn, `select amqp.publish(2, 'ex', 'k', 'm')`)
		if report := install(t, conn, name); len(report.Warnings) != 0 {
			t.Errorf("warnings for the owner afterwards: %q", report.Warnings)
		}

		_, err = catalog.Uninstall(t.Context(), super, catalog.UninstallOptions{})
		wantProblem(t, err, "schema amqp belongs to role")
		if _, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{}); err != nil {
			t.Error(err)
		}
		exec(t, admin, `alter database `+name+` owner to postgres`)
		exec(t, super, `drop owned by `+owner)
		_ = conn.Close(t.Context())
		exec(t, admin, `drop role `+owner)
	})
}

func TestInstallWithoutTheRightToCreateRolesSaysSo(t *testing.T) {
	// A server of its own: the roles belong to the server, and other tests have made them.
	p := ownServer(t, 0, nil)
	admin := connect(t, p, "postgres")
	exec(t, admin, `create role owner login replication`)
	exec(t, admin, `create database d owner owner`)
	conn := connectAs(t, p, "d", "owner")
	report := install(t, conn, "d")
	if text := strings.Join(report.Warnings, "\n"); !strings.Contains(text, "role pgamqp_daemon does not exist") || !strings.Contains(text, "role pgamqp_publisher does not exist") {
		t.Errorf("warnings: %q", report.Warnings)
	}
	exec(t, conn, `insert into amqp.broker (host) values ('h')`)
	exec(t, conn, `select amqp.publish(1, 'ex', 'k', 'm')`)

	// What is missing comes with the next installation that may.
	exec(t, admin, `alter role owner createrole`)
	if report := install(t, conn, "d"); len(report.Warnings) != 1 {
		t.Errorf("warnings with createrole: %q", report.Warnings)
	}
	if !value[bool](t, conn, `select has_function_privilege('pgamqp_publisher', 'amqp.publish(int, text, text, text)', 'execute')`) {
		t.Error("the new role was granted nothing")
	}
}

func TestScriptsAreASCII(t *testing.T) {
	for _, script := range sql.Scripts() {
		for i, r := range script.Text {
			if r > 126 {
				t.Errorf("%s: %q at byte %d cannot be read into a database of another encoding", script.Name, r, i)
			}
		}
		if n := strings.Count(script.Text, "\n"); n > 400 {
			t.Errorf("%s has %d lines", script.Name, n)
		}
	}
}

// adviceForASuperuser returns the statements that a warning has for one.
func adviceForASuperuser(warning string) string {
	_, advice, _ := strings.Cut(warning, "as a superuser: ")
	advice, _, _ = strings.Cut(advice, "; where nobody may")
	return advice
}
