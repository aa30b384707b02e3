package catalog_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
	"github.com/pgamqp/pgamqp/sql"
)

// plotters returns a new database with a superuser's connection as the program makes it, and one of a role that may
// create schemas there and nothing else. What the role plans ends with making itself a superuser.
func plotters(t *testing.T, p *testserver.Postgres) (super, mallory *pgx.Conn, role string) {
	t.Helper()
	name := newDatabase(t, p)
	role = name + "_mallory"
	admin := connect(t, p, "postgres")
	exec(t, admin, `create role `+role+` login`)
	atEnd(t, p, "postgres", `drop role `+role)
	atEnd(t, p, name, `drop owned by `+role+` cascade`)
	exec(t, admin, `grant create on database `+name+` to `+role)
	exec(t, connect(t, p, name), `create schema plot authorization `+role)
	mallory = connectAs(t, p, name, role)
	exec(t, mallory, `create function plot.evil() returns trigger language plpgsql as 'begin alter role `+role+` superuser; return new; end'`)
	exec(t, mallory, `create function plot.evil_query() returns integer language plpgsql as 'begin alter role `+role+` superuser; return 1; end'`)
	return program(t, p, name), mallory, role
}

// program connects as the program does.
func program(t *testing.T, p *testserver.Postgres, database string) *pgx.Conn {
	t.Helper()
	conn, err := catalog.Connect(t.Context(), p.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// stays checks that the plot has failed.
func stays(t *testing.T, conn *pgx.Conn, role string) {
	t.Helper()
	if value[bool](t, conn, `select rolsuper from pg_catalog.pg_roles where rolname = $1`, role) {
		t.Error("mallory has become a superuser")
		exec(t, conn, `alter role `+role+` nosuperuser`)
	}
}

const someInstallation = `create table amqp.installation (one_row bool primary key default true, version int, slot_name text, publication_name text,
	steps text[] default '{}', installed_at timestamptz default now(), upgraded_at timestamptz)`

// plots are what is in schema amqp before a superuser comes, with a part of what the error says of it.
func plots() map[string]struct{ before, plot, want string } {
	return map[string]struct{ before, plot, want string }{
		"trigger": {"", `create schema amqp; ` + someInstallation + `;
			create trigger t before insert on amqp.installation for each row execute function plot.evil()`, "schema amqp belongs to role"},
		"view": {"", `create schema amqp; create view amqp.installation as select plot.evil_query() as version, 's'::text as slot_name, 'p'::text as publication_name,
			now() as installed_at, null::timestamptz as upgraded_at, '{}'::text[] as steps`, "schema amqp belongs to role"},
		"migration": {"", `create schema amqp; create table amqp.migration (one_row bool, migrated_at timestamptz, undone_at timestamptz, state jsonb);
			insert into amqp.migration (state) values ('{"functions": [], "columns": [], "public": ["select plot.evil_query()"]}')`, "schema amqp belongs to role"},
		"table": {"create schema amqp; grant all on schema amqp to ROLE", someInstallation + `;
			create trigger t before insert on amqp.installation for each row execute function plot.evil()`, "table amqp.installation belongs to role"},
		"right to create": {"create schema amqp; grant create on schema amqp to ROLE", `select 1`, "may create objects in schema amqp"},
		"granted no more": {"create schema amqp; grant create on schema amqp to ROLE", `create function amqp._emit(transactional boolean, content bytea) returns pg_lsn language sql
			as 'select pg_current_wal_insert_lsn()'`, "function amqp._emit(boolean,pg_catalog.bytea) belongs to role"},
		"right to make triggers": {
			"create schema amqp; " + someInstallation + "; grant trigger on amqp.installation to ROLE; grant usage on schema amqp to ROLE",
			`create trigger t before insert on amqp.installation for each row execute function plot.evil()`, "calls function plot.evil() of role",
		},
		"condition of a trigger": {
			"create schema amqp; " + someInstallation + "; grant trigger on amqp.installation to ROLE; grant usage on schema amqp to ROLE",
			`create trigger t before insert on amqp.installation for each row when (plot.evil_query() = 1) execute function suppress_redundant_updates_trigger()`,
			"calls function plot.evil_query() of role",
		},
		"given away": {"create schema amqp; grant create on schema amqp to ROLE", `create table amqp.migration (one_row bool, migrated_at timestamptz default now(),
			undone_at timestamptz, state jsonb default jsonb_build_object('a', plot.evil_query()))`, "calls function plot.evil_query() of role"},
	}
}

// What others have put into schema amqp does not run with the rights of who installs, in whatever way.
func TestNothingOfOthersRunsInSchemaAMQP(t *testing.T) {
	t.Parallel()
	for name, plot := range plots() {
		t.Run(name, func(t *testing.T) {
			p := server(t, 15)
			super, mallory, role := plotters(t, p)
			database := super.Config().Database
			plan := func() {
				exec(t, super, strings.ReplaceAll(plot.before, "ROLE", role)+";select 1")
				exec(t, mallory, plot.plot)
				switch name {
				case "granted no more":
					exec(t, super, `revoke create on schema amqp from `+role)
				case "given away":
					exec(t, super, `revoke create on schema amqp from `+role)
					exec(t, super, `alter table amqp.migration owner to postgres`)
				}
			}
			plan()
			refuses := func(what string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), plot.want) || !strings.Contains(err.Error(), role) {
					t.Errorf("%s: %v, want an error with %q", what, err, plot.want)
				}
				stays(t, super, role)
			}
			_, err := catalog.Install(t.Context(), super, catalog.InstallOptions{Slot: database, Publication: database})
			refuses("install", err)
			_, err = p.Psql(t.Context(), database, sql.Text(database, database))
			refuses("psql", err)
			_, err = catalog.UndoMigration(t.Context(), super, false)
			refuses("undo", err)
			_, err = catalog.Migrate(t.Context(), super, catalog.MigrateOptions{Slot: database, Publication: database})
			refuses("migrate", err)
			_, err = catalog.Uninstall(t.Context(), super, catalog.UninstallOptions{Slot: database, Publication: database, Force: true})
			refuses("uninstall", err)
			if n := value[int](t, super, `select count(*) from pg_replication_slots where slot_name = $1`, database); n != 0 {
				t.Error("a refused installation has made a slot")
			}
			exec(t, super, `drop schema amqp cascade`)
			exec(t, super, `drop publication if exists `+database)
		})
	}
}

// Whatever a connection string, a role or a database says, the program finds names in pg_catalog alone.
func TestSessionsOfTheProgramHaveTheirOwnSearchPath(t *testing.T) {
	t.Parallel()
	p := server(t, 15)
	name := newDatabase(t, p)
	admin := connect(t, p, "postgres")
	exec(t, admin, `create role `+name+`_own login`)
	atEnd(t, p, "postgres", `drop role `+name+`_own`)
	exec(t, admin, `alter database `+name+` set search_path = public`)
	exec(t, admin, `alter role `+name+`_own set search_path = public`)
	address := strings.Replace(p.URL(name), "//postgres@", "//"+name+"_own@", 1)
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	for _, more := range []string{"", separator + "search_path=public", separator + "options=-csearch_path%3Dpublic"} {
		conn, err := catalog.Connect(t.Context(), address+more)
		if err != nil {
			t.Fatal(err)
		}
		if path := value[string](t, conn, `show search_path`); path != "pg_catalog, pg_temp" {
			t.Errorf("%s: search_path is %s", more, path)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// trappedOperators are in schema public, which comes behind pg_catalog, and fit better than those of pg_catalog.
func trappedOperators(t *testing.T, p *testserver.Postgres, database, role string) {
	t.Helper()
	conn := connect(t, p, database)
	exec(t, conn, `grant create on schema public to `+role)
	mallory := connectAs(t, p, database, role)
	for _, s := range []string{
		`create function plot.match(name, name) returns boolean language plpgsql as 'begin alter role ` + role + ` superuser; return true; end'`,
		`create operator public.~ (leftarg = name, rightarg = name, function = plot.match)`,
		`create function plot.is(name, text) returns boolean language plpgsql as 'begin alter role ` + role + ` superuser; return true; end'`,
		`create operator public.= (leftarg = name, rightarg = text, function = plot.is)`,
		`create function plot.put(text, regprocedure) returns text language plpgsql as 'begin alter role ` + role + ` superuser; return $1 || $2::text; end'`,
		`create operator public.|| (leftarg = text, rightarg = regprocedure, function = plot.put)`,
		`create function plot.add(text[], text) returns text[] language plpgsql as 'begin alter role ` + role + ` superuser; return array_append($1, $2); end'`,
		`create operator public.|| (leftarg = text[], rightarg = text, function = plot.add)`,
		`create function plot.later(varchar, varchar) returns boolean language plpgsql as 'begin alter role ` + role + ` superuser; return true; end'`,
		`create operator public.> (leftarg = varchar, rightarg = varchar, function = plot.later)`,
		`grant usage on schema plot to public`,
	} {
		exec(t, mallory, s)
	}
}

// Operators that fit better than those of pg_catalog are not used, by no command.
func TestNoOperatorOfOthersIsUsed(t *testing.T) {
	t.Parallel()
	p := ownServer(t, 15, nil) // it drops roles, which other installations want to grant
	super, _, role := plotters(t, p)
	database := super.Config().Database
	trappedOperators(t, p, database, role)
	install(t, super, database)
	stays(t, super, role)
	exec(t, super, `update amqp.installation set steps = '{}'`)
	install(t, super, database)
	stays(t, super, role)
	if err := catalog.Preflight(t.Context(), super, catalog.PreflightOptions{}); err != nil {
		t.Error(err)
	}
	stays(t, super, role)
	if _, err := catalog.Uninstall(t.Context(), super, catalog.UninstallOptions{}); err != nil {
		t.Error(err)
	}
	stays(t, super, role)
	// The printed text comes to whatever search_path psql has.
	if out, err := p.Psql(t.Context(), database, sql.Text(database, database)); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	stays(t, super, role)
	exec(t, super, `update amqp.installation set steps = '{}'`)
	if out, err := p.Psql(t.Context(), database, "begin;\n"+sql.Privileges().Text+"commit;"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	stays(t, super, role)
}

// chunks reads a table in parts of two rows and returns the first column of all of them.
func chunks(t *testing.T, conn *pgx.Conn, publication, name string) []string {
	t.Helper()
	table, err := catalog.ReadTable(t.Context(), conn, publication, "public", name)
	if err != nil {
		t.Fatal(err)
	}
	var all, after []string
	for range 10 {
		chunk, err := table.ReadChunk(t.Context(), conn.PgConn(), after, catalog.ChunkLimits{MaxRows: 2, MaxBytes: 1 << 20},
			func(string) (bool, error) { return true, nil })
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range chunk.Rows {
			all = append(all, string(row[0]))
		}
		if chunk.End {
			return all
		}
		after = chunk.After
	}
	t.Fatalf("no end after %q", all)
	return nil
}

// A snapshot compares keys by the operators of their index, which may be those of an extension, and by no others.
func TestSnapshotComparesByOperatorsOfTheIndex(t *testing.T) {
	t.Parallel()
	p := server(t, 15)
	super, mallory, role := plotters(t, p)
	database := super.Config().Database
	trappedOperators(t, p, database, role)
	install(t, super, database)
	person := connect(t, p, database)
	for _, s := range []string{
		`create extension citext`,
		`create domain mail as citext`,
		`create type mood as enum ('b', 'a')`,
		`create table plain (id varchar primary key)`, `insert into plain values ('a'), ('b'), ('c')`,
		`create table folded (id citext primary key)`, `insert into folded values ('a'), ('B'), ('c')`,
		`create table mixed (id citext, n integer, m mail, primary key (id, n, m))`,
		`insert into mixed values ('a', 1, 'x'), ('A', 2, 'X'), ('a', 2, 'y'), ('B', 0, 'x'), ('b', 0, 'Y')`,
		`create table moods (id mood primary key)`, `insert into moods values ('a'), ('b')`,
		`alter publication ` + database + ` add table plain, folded, mixed, moods`,
	} {
		exec(t, person, s)
	}
	for _, s := range []string{
		`create function plot.mail(public.mail, public.mail) returns boolean language plpgsql as 'begin alter role ` + role + ` superuser; return true; end'`,
		`create operator public.> (leftarg = public.mail, rightarg = public.mail, function = plot.mail)`,
		`create operator public.>= (leftarg = public.mail, rightarg = public.mail, function = plot.mail)`,
		`create operator public.= (leftarg = public.mail, rightarg = public.mail, function = plot.mail)`,
	} {
		exec(t, mallory, s)
	}
	for table, want := range map[string]string{"plain": "a b c", "folded": "a B c", "mixed": "a A a B b", "moods": "b a"} {
		for path, conn := range map[string]*pgx.Conn{"the program's": super, "another": person} { // not even with public in its path
			if got := strings.Join(chunks(t, conn, database, table), " "); got != want {
				t.Errorf("%s with %s path: %q, want %q", table, path, got, want)
			}
			stays(t, super, role)
		}
	}
}

// Whatever the isolation level of the transaction that changes a broker, limits hold.
func TestLimitsHoldAfterAChangeFromAnOldSnapshot(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		conn, name := installed(t, p)
		role := name + "_web"
		exec(t, conn, `create role `+role+` login`)
		atEnd(t, p, "postgres", `drop role `+role)
		atEnd(t, p, name, `drop owned by `+role)
		exec(t, conn, `insert into amqp.broker (broker_id, host) values (1, 'h')`)
		for _, level := range []string{"repeatable read", "serializable"} {
			old := connect(t, p, name)
			exec(t, old, `begin isolation level `+level)
			exec(t, old, `select 1 from amqp.broker`)
			exec(t, conn, `select amqp.grant_publish('`+role+`', 1, 'a')`)
			exec(t, old, `update amqp.broker set host = host`)
			exec(t, old, `commit`)
			web := connectAs(t, p, name, role)
			exec(t, web, `select amqp.publish(1, 'a', 'k', 'm')`)
			refusedWith(t, web, "42501", `select amqp.publish(1, 'b', 'k', 'm')`)
			exec(t, conn, `select amqp.revoke_publish('`+role+`')`)
		}
		exec(t, conn, `update amqp.broker set host = host`)
		if n := value[int](t, conn, `select cardinality(amqp._broker_ids())`); n != 1 {
			t.Errorf("%d brokers for the short way without limits, want 1", n)
		}
	})
}

// standard_conforming_strings belongs to whoever connects.
func TestFunctionsTakeBackslashesInEveryWay(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		name := newDatabase(t, p)
		exec(t, connect(t, p, "postgres"), `alter database `+name+` set standard_conforming_strings = off`)
		for range 2 {
			if out, err := p.Psql(t.Context(), name, sql.Text(name, `pub\lication`)); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		conn := connect(t, p, name)
		exec(t, conn, `set standard_conforming_strings = on`)
		if _, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		calls := []string{
			`insert into amqp.broker (broker_id, host) values (1, 'h')`,
			`select amqp.publish(1, 'ex', 'k', 'm'), amqp.autonomous_publish(1, 'ex', 'k', 'm'::bytea, 1, mandatory => false)`,
			`select amqp.publish(1, 'ex', 'k', '{}'::jsonb, 2, 'text/plain', headers => '{"a": 1}'), amqp.publish(1, 'ex', 'k', '{}'::json, headers => '{"a": {"$int8": 1}}')`,
			`select amqp.exchange_declare(1, 'ex', 'direct', false, true), amqp.queue_declare(1, 'q'), amqp.queue_bind(1, 'q', 'ex')`,
			`create table public.o_r (id integer primary key); create table public.oar (id integer primary key)`,
			`select amqp.route_table('public.o_*', 1, 'ex')`,
			`select amqp.snapshot('public.o_*')`,
			`insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values ('a', '0/1', 'publish', 'r', decode('0170', 'hex'), ''), ('b', '0/1', 'publish', 'r', decode('02', 'hex'), '')`,
			`select amqp.redeliver_all()`, `select amqp.sign_messages()`, `select amqp.publish(1, 'ex', 'k', 'signed')`,
			`select amqp.sign_messages(false)`, `select amqp.unroute(route_id) from amqp.route`,
		}
		exec(t, conn, `select * from pg_logical_slot_get_binary_changes('`+name+`', null, null, 'proto_version', '1', 'publication_names', 'pub\lication', 'messages', 'true')`)
		read := func() []string {
			t.Helper()
			all, err := conn.Query(t.Context(), `select encode(substr(data, 20), 'hex') from pg_logical_slot_get_binary_changes('`+name+`', null, null,
				'proto_version', '1', 'publication_names', 'pub'||chr(92)||'lication', 'messages', 'true') where get_byte(data, 0) = ascii('M')`)
			if err != nil {
				t.Fatal(err)
			}
			texts, err := pgx.CollectRows(all, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			return texts
		}
		var on []string
		for _, mode := range []string{"on", "off"} {
			exec(t, conn, `delete from amqp.broker`)
			exec(t, conn, `delete from amqp.snapshot`)
			exec(t, conn, `delete from amqp.dead_letter`)
			exec(t, conn, `drop table if exists public.o_r, public.oar`)
			read()
			person := connect(t, p, name)
			exec(t, person, `set standard_conforming_strings = `+mode)
			for _, call := range calls {
				exec(t, person, call)
			}
			got := read()
			for i, text := range got { // the signature depends on key and transaction
				if strings.HasPrefix(text, "02") {
					got[i] = text[:len(text)-64]
				}
			}
			if mode == "on" {
				on = got
			} else if diff := cmp.Diff(on, got); diff != "" || len(got) < 10 {
				t.Errorf("messages differ (-on +off):\n%s", diff)
			}
			if n := value[int](t, conn, `select count(*) from pg_publication_tables where tablename = 'oar'`); n != 0 {
				t.Error("_ in a pattern stands for any character")
			}
		}
	})
}
