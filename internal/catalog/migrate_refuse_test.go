package catalog_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// withPgAMQP returns a database with loose objects of pg_amqp, and statements run on them.
func withPgAMQP(t *testing.T, p *testserver.Postgres, statements ...string) (*pgx.Conn, string) {
	t.Helper()
	name := newDatabase(t, p)
	conn := connect(t, p, name)
	exec(t, conn, `create schema amqp`)
	exec(t, conn, pgAMQPOf(t, p))
	exec(t, conn, `insert into amqp.broker (host) values ('one')`)
	exec(t, conn, `create table orders (id integer primary key, note varchar)`)
	for _, s := range statements {
		exec(t, conn, s)
	}
	return conn, name
}

// unchanged runs what must fail, and looks whether all is as before.
func unchanged(t *testing.T, conn *pgx.Conn, act func() error) error {
	t.Helper()
	const others = `select 'slot ' || slot_name from pg_replication_slots where database = current_database() union all select 'publication ' || pubname from pg_publication
		union all select 'amqp ' || c.oid::regclass from pg_class c where c.relnamespace = 'amqp'::regnamespace order by 1`
	before := append(append(texts(t, conn, builtQuery), texts(t, conn, pgAMQPQuery)...), texts(t, conn, others)...)
	err := act()
	if err == nil {
		t.Error("no error")
		return context.Canceled
	}
	after := append(append(texts(t, conn, builtQuery), texts(t, conn, pgAMQPQuery)...), texts(t, conn, others)...)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("it has changed something (-before +after):\n%s", diff)
	}
	return err
}

func TestMigrateNamesWhatItCannotKeep(t *testing.T) {
	for _, c := range []struct {
		name, statement string
		want            []string
	}{
		{
			"materialized view", `create materialized view m as select amqp.publish(1, 'e', 'k', note) from orders`,
			[]string{"materialized view public.m cannot be kept", "would publish again", "drop materialized view public.m"},
		},
		{
			"index", `create index i on orders (amqp.publish(1, 'e', 'k', note))`,
			[]string{"index public.i cannot be kept", "immutable", "drop index public.i"},
		},
		{
			"unique index with a condition", `create unique index u on orders (id) where amqp.publish(1, 'e', 'k', 'm')`,
			[]string{"index public.u cannot be kept"},
		},
		{
			"exclusion", `alter table orders add constraint x exclude using btree ((amqp.publish(1, 'e', 'k', note)::text) with =)`,
			[]string{"public.x cannot be kept"},
		},
		{
			"generated column", `alter table orders add sent boolean generated always as (amqp.publish(1, 'e', 'k', note)) stored`,
			[]string{"column sent of table public.orders cannot be kept", "alter column sent drop expression"},
		},
		{
			"partition key", `create table p (id integer) partition by list ((amqp.publish(1, 'e', 'k', id::varchar)))`,
			[]string{"table public.p cannot be kept"},
		},
		{
			"default of an argument", `create function f(a boolean default amqp.publish(1, 'e', 'k', 'm')) returns boolean language sql as 'select a'`,
			[]string{"function public.f(boolean) cannot be kept", "default of an argument", "drop function public.f(boolean)"},
		},
		{
			"headers", `create view h as select amqp.publish(1, 'e', 'k', 'm', 2, 't', 'r', 'c', array[array['a', 'b']]::varchar[])`,
			[]string{"view public.h does not work with the new functions", "does not exist", "change it"},
		},
		{
			"aggregate", `create aggregate a(integer) (sfunc = amqp.state, stype = boolean, initcond = 'false')`,
			[]string{"function public.a(integer) cannot be kept: pgamqp does not know how to bring it back"},
		},
		{
			"temporary view", `create temporary view v as select amqp.publish(1, 'e', 'k', 'm')`,
			[]string{"v cannot be kept: it is a temporary view of a session"},
		},
		{
			"two at once", `create index i on orders (amqp.publish(1, 'e', 'k', note)); create materialized view m as select amqp.publish(1, 'e', 'k', 'm')`,
			[]string{"index public.i", "materialized view public.m"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, name := withPgAMQP(t, server(t, 18))
			if c.name == "aggregate" {
				exec(t, conn, `create function amqp.state(boolean, integer) returns boolean as '`+value[string](t, conn, `select probin from pg_proc where proname = 'disconnect'`)+`', 'ssl_is_used' language c immutable`)
			}
			exec(t, conn, c.statement)
			for _, dry := range []bool{true, false} {
				err := unchanged(t, conn, func() error {
					_, err := catalog.Migrate(t.Context(), conn, catalog.MigrateOptions{Slot: name, Publication: name, DryRun: dry})
					return err
				})
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("dry run %v: the error does not say %q: %v", dry, want, err)
					}
				}
			}
		})
	}
}

func TestMigrateRefusesWhereNothingIsToMigrate(t *testing.T) {
	conn, name := installed(t, server(t, 15))
	_, err := catalog.Migrate(t.Context(), conn, catalog.MigrateOptions{Slot: name, Publication: name})
	if err == nil || !strings.Contains(err.Error(), "no function of pg_amqp") {
		t.Errorf("migrate: %v", err)
	}
	_, err = catalog.UndoMigration(t.Context(), conn, false)
	if err == nil || !strings.Contains(err.Error(), "was not migrated from pg_amqp") {
		t.Errorf("undo: %v", err)
	}
}

// What the trial has passed may fail all the same. An event trigger fails at each statement in turn.
func TestMigrateThatFailsInTheMiddleLeavesAllAsBefore(t *testing.T) {
	conn, name := withPgAMQP(t, server(t, 18), `alter table orders alter note set default amqp.publish(1, 'e', 'k', 'm')::text`)
	exec(t, conn, `create view v as select amqp.publish(1, 'e', 'k', note) from orders`)
	exec(t, conn, `create sequence fuse`)
	exec(t, conn, `create function burn() returns event_trigger language plpgsql as $$ begin
		if nextval('public.fuse') > nullif(current_setting('test.fuse', true), '')::bigint and tg_tag <> 'DROP PUBLICATION' then raise 'the fuse has blown at %', tg_tag; end if; end $$`)
	exec(t, conn, `create event trigger burns on ddl_command_start execute function burn()`)
	migrate(t, conn, name, catalog.MigrateOptions{DryRun: true})
	n := value[int](t, conn, `select last_value from fuse`)
	if n < 50 {
		t.Fatalf("only %d statements", n)
	}
	for at := 1; at <= n; at += 7 {
		exec(t, conn, `select setval('fuse', 1, false), set_config('test.fuse', $1::integer::text, false)`, n+at)
		err := unchanged(t, conn, func() error {
			_, err := catalog.Migrate(t.Context(), conn, catalog.MigrateOptions{Slot: name, Publication: name})
			exec(t, conn, `reset test.fuse`)
			return err
		})
		if !strings.Contains(err.Error(), "the fuse has blown") {
			t.Errorf("at %d: %v", at, err)
		}
	}
	exec(t, conn, `drop event trigger burns`)
	migrate(t, conn, name, catalog.MigrateOptions{})
}

func TestMigrateDoesNotWaitForLocksForEver(t *testing.T) {
	p := server(t, 15)
	conn, name := withPgAMQP(t, p, `create view v as select amqp.publish(1, 'e', 'k', 'm')`)
	reader := connect(t, p, name)
	exec(t, reader, `begin`)
	exec(t, reader, `select * from v`)
	exec(t, conn, `set lock_timeout = '50ms'`)
	err := unchanged(t, conn, func() error {
		_, err := catalog.Migrate(t.Context(), conn, catalog.MigrateOptions{Slot: name, Publication: name})
		return err
	})
	if !strings.Contains(err.Error(), "view public.v") || !strings.Contains(err.Error(), "lock timeout") {
		t.Errorf("error: %v", err)
	}
	exec(t, reader, `rollback`)
	migrate(t, conn, name, catalog.MigrateOptions{})
}

// Each call that pgamqp has taken, which it tells by returning true, is in the slot; those before went pg_amqp's way.
func TestMigrateLosesNoMessageOfThoseWhoPublishMeanwhile(t *testing.T) {
	p := server(t, 15)
	conn, name := withPgAMQP(t, p, `create table calls (sent boolean)`, `create view v as select amqp.publish(1, 'e', 'k', 'm') as sent`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	published := make(chan bool)
	stop, stopped := make(chan struct{}), make(chan error, 2)
	for _, statement := range []string{`insert into calls values (amqp.publish(1, 'e', 'k', 'm'))`, `insert into calls select sent from v`} {
		session := connect(t, p, name)
		go func() {
			for {
				if _, err := session.Exec(ctx, statement); err != nil {
					stopped <- err
					return
				}
				select {
				case published <- true:
				case <-stop:
					stopped <- nil
					return
				}
			}
		}()
	}
	take := func(n int) {
		for range n {
			select {
			case <-published:
			case err := <-stopped:
				t.Fatal(err)
			}
		}
	}
	take(20)
	migrated := make(chan error, 1)
	go func() {
		_, err := catalog.Migrate(ctx, conn, catalog.MigrateOptions{Slot: name, Publication: name})
		migrated <- err
	}()
	for done := false; !done; {
		select {
		case <-published:
		case err := <-migrated:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		}
	}
	take(20)
	close(stop)
	for range 2 {
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}
	before := value[int](t, conn, `select count(*) from calls where not sent`)
	after := value[int](t, conn, `select count(*) from calls where sent`)
	messages := 0
	for _, c := range contents(t, conn, name) {
		if c[1] == 'p' {
			messages++
		}
	}
	if before < 20 || after < 20 || messages != after {
		t.Errorf("%d calls went to pg_amqp, %d to pgamqp, and %d messages are in the slot", before, after, messages)
	}
}
