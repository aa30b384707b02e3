package catalog_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// pgAMQPOf returns the script that makes pg_amqp at a server.
func pgAMQPOf(t *testing.T, p *testserver.Postgres) string {
	t.Helper()
	script, err := p.PgAMQP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return script
}

// What people have built on pg_amqp, one of each kind.
func builtOnPgAMQP() []string {
	return []string{
		`create role migrated_app`, `create role migrated_other`, `create role migrated_viewer`, `create role migrated_owner`,
		`revoke all on function amqp.exchange_declare(integer, varchar, varchar, boolean, boolean, boolean) from public`,
		`grant usage on schema amqp to migrated_app, migrated_other`,
		`grant execute on function amqp.publish(integer, varchar, varchar, varchar, integer, varchar, varchar, varchar, varchar[]) to migrated_app with grant option`,
		`grant select (broker_id, host) on amqp.broker to migrated_viewer`,
		`grant select on amqp.broker to migrated_app`, `grant select (host, password) on amqp.broker to migrated_other`,
		`create domain named as varchar(20) collate "C"`,
		`create table orders (id integer primary key, note varchar default 'x', sent boolean default amqp.publish(1, 'e', 'default', 'm'))`,
		`create view sender with (security_barrier) as select o.id, amqp.publish(1, 'e', 'view', o.note) as sent, 'k'::named as named, now()::timestamp(3) as "at It"
	   from orders o group by o.id`,
		`alter view sender rename column named to renamed`,
		`create view on_top as select * from sender where renamed <> 'z'`,
		`alter view sender owner to migrated_owner`, `grant select on orders to migrated_owner`,
		`grant select (id) on sender to migrated_viewer`, `grant insert on on_top to migrated_viewer`,
		`comment on view sender is 'sends'`, `comment on column sender.sent is 'whether'`,
		`create function on_row() returns trigger language plpgsql as $$ begin perform amqp.publish(1, 'e', 'trigger', new.note); return new; end $$`,
		`create trigger by_text after insert on orders for each row execute function on_row()`,
		`create trigger by_condition after update on orders for each row when (amqp.publish(1, 'e', 'when', 'm', 2, 'text/plain')) execute function on_row()`,
		`comment on trigger by_condition on orders is 'conditional'`, `alter table orders disable trigger by_condition`,
		`create rule by_rule as on delete to orders do also select amqp.autonomous_publish(1, 'e', 'rule', old.note)`,
		`comment on rule by_rule on orders is 'ruled'`, `alter table orders enable always rule by_rule`,
		`create function standard(a integer, out b boolean, out c integer) language sql begin atomic select amqp.publish(a, 'e', 'atomic', 'm', correlation_id => 'c'), a; end`,
		`comment on function standard(integer) is 'modern'`, `revoke all on function standard(integer) from public`, `grant execute on function standard(integer) to migrated_app`,
		`create procedure standard_too(a integer default 1) language sql begin atomic select amqp.exchange_declare(a, 'e', 'topic', false, true); end`,
		`create view on_function as select s.b from standard(1) s`,
		`alter table orders add constraint checked check (amqp.publish(1, 'e', 'check', note) is not null)`,
		`comment on constraint checked on orders is 'checks'`,
		`create policy policed on orders for insert to migrated_app with check (amqp.publish(1, 'e', 'policy', note))`,
		`create domain published as boolean default amqp.publish(1, 'e', 'domain', 'm') check (value or amqp.publish(1, 'e', 'domain', 'm') is not null)`,
		`create table parted (id integer, note varchar) partition by range (id)`, `create table part partition of parted for values from (0) to (9)`,
		`create trigger parted_trigger after insert on parted for each row when (amqp.publish(1, 'e', 'parted', new.note)) execute function on_row()`,
		`alter table part disable trigger parted_trigger`,
		`create table parent (note varchar check (amqp.publish(1, 'e', 'inherited', note) is not null))`, `create table child () inherits (parent)`,
		`insert into amqp.broker (host, vhost, username, password, requiressl, ca, cert, key, key_password, verify_cn) values
	   ('one', '/v', 'u', 'file:odd', true, '/etc/ssl/ca.pem', '/srv/a/client.pem', '/srv/b/client.pem', 'secret', false), ('two', null, null, 'p', false, null, null, null, null, true)`,
		`create view brokers as select broker_id, host from amqp.broker`,
	}
}

// builtQuery reads what there is but for schema amqp: every definition, owner, grant, comment and state.
const builtQuery = `
select 'class ' || c.oid::regclass || ' ' || c.relkind::text || ' ' || c.relowner::regrole || coalesce(' ' || (select string_agg(a::text, ',' order by a::text) from unnest(c.relacl) a), '')
    || coalesce(c.reloptions::text, '') || coalesce(obj_description(c.oid, 'pg_class'), '') || case when c.relkind = 'v' then replace(pg_get_viewdef(c.oid), '::text', '') else '' end
  from pg_class c where c.relnamespace = 'public'::regnamespace
union all
select 'column ' || a.attrelid::regclass || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attcollation || coalesce(a.attacl::text, '')
    || coalesce(col_description(a.attrelid, a.attnum), '') || coalesce((select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d where d.adrelid = a.attrelid and d.adnum = a.attnum), '')
  from pg_attribute a join pg_class c on c.oid = a.attrelid where c.relnamespace = 'public'::regnamespace and a.attnum > 0
union all
select 'function ' || pg_get_functiondef(p.oid) || p.proowner::regrole || coalesce(p.proacl::text, '') || coalesce(obj_description(p.oid, 'pg_proc'), '')
  from pg_proc p where p.pronamespace = 'public'::regnamespace and p.prokind <> 'a'
union all
select 'trigger ' || pg_get_triggerdef(t.oid) || t.tgenabled::text || coalesce(obj_description(t.oid, 'pg_trigger'), '') from pg_trigger t join pg_class c on c.oid = t.tgrelid
 where c.relnamespace = 'public'::regnamespace and not t.tgisinternal
union all
select 'rule ' || pg_get_ruledef(r.oid) || r.ev_enabled::text || coalesce(obj_description(r.oid, 'pg_rewrite'), '') from pg_rewrite r join pg_class c on c.oid = r.ev_class
 where c.relnamespace = 'public'::regnamespace and r.rulename <> '_RETURN'
union all
select 'constraint ' || conname || conrelid::regclass || contypid::regtype || replace(pg_get_constraintdef(oid), ' NOT VALID', '') || conislocal || coninhcount || coalesce(obj_description(oid, 'pg_constraint'), '')
  from pg_constraint where connamespace = 'public'::regnamespace and contype = 'c'
union all
select 'policy ' || polname || polcmd::text || polroles::text || polpermissive || coalesce(pg_get_expr(polqual, polrelid), '') || coalesce(pg_get_expr(polwithcheck, polrelid), '') from pg_policy
union all
select 'domain ' || t.oid::regtype || coalesce(pg_get_expr(typdefaultbin, 0), '') from pg_type t where t.typnamespace = 'public'::regnamespace and t.typtype = 'd'
union all
select 'broker ' || to_jsonb(b)::text from (select broker_id, host, port, vhost, username, requiressl, ca, cert, key, key_password, verify_cert, verify_cn from amqp.broker) b
union all
select 'granted ' || coalesce((select string_agg(a.grantee::regrole || a.privilege_type, ',') from aclexplode(c.relacl) a where a.grantee <> c.relowner and a.grantee <> coalesce(to_regrole('pgamqp_daemon'), 0)), '')
    || (select coalesce(string_agg(a.attname || e.grantee::regrole || e.privilege_type, ',' order by a.attname), '') from pg_attribute a, aclexplode(a.attacl) e
         where a.attrelid = c.oid and e.grantee <> coalesce(to_regrole('pgamqp_monitor'), 0)) from pg_class c where c.oid = 'amqp.broker'::regclass
order by 1`

// pgAMQPQuery reads what there is of pg_amqp.
const pgAMQPQuery = `
select pg_get_functiondef(p.oid) || p.proowner::regrole || coalesce((select string_agg(a.grantee::regrole || a.privilege_type || a.is_grantable, ',' order by a.grantee) from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a), '')
    || coalesce(obj_description(p.oid, 'pg_proc'), '') from pg_proc p where p.pronamespace = 'amqp'::regnamespace and p.probin is not null
union all
select e.extname || e.extversion || coalesce((select string_agg(c::regclass::text, ',') from unnest(e.extconfig) c), '') from pg_extension e where e.extname = 'amqp'
union all
select 'member ' || pg_describe_object(d.classid, d.objid, 0) || d.deptype::text from pg_depend d join pg_extension e on e.oid = d.refobjid and e.extname = 'amqp' where d.refclassid = 'pg_extension'::regclass
order by 1`

func texts(t *testing.T, conn *pgx.Conn, query string) []string {
	t.Helper()
	exec(t, conn, `set search_path = pg_catalog`)
	rows, err := conn.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	exec(t, conn, `reset search_path`)
	return all
}

// widened is what a definition looks like on functions that take text, to compare it with one on those that take varchar.
func widened(all []string) []string {
	var result []string
	for _, s := range all {
		for _, r := range []string{"::character varying", "::text", "::amqp.exchange_name", "(", ")", " "} {
			s = strings.ReplaceAll(s, r, "")
		}
		result = append(result, s)
	}
	return result
}

func migrate(t *testing.T, conn *pgx.Conn, name string, o catalog.MigrateOptions) catalog.MigrateReport {
	t.Helper()
	o.Slot, o.Publication = name, name
	report, err := catalog.Migrate(t.Context(), conn, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestMigrateKeepsWhatWasBuiltOnPgAMQP goes there and back on every version, from loose functions and from the extension.
func TestMigrateKeepsWhatWasBuiltOnPgAMQP(t *testing.T) {
	for _, version := range testserver.Versions {
		t.Run("postgresql"+strconv.Itoa(version), func(t *testing.T) {
			t.Parallel()
			old := pgAMQPOf(t, server(t, version))
			files := t.TempDir()
			for file, text := range map[string]string{
				"amqp.control":    "default_version = '0.4.2'\nrelocatable = false\nschema = amqp\n",
				"amqp--0.4.2.sql": old + "select pg_catalog.pg_extension_config_dump('amqp.broker', '');",
			} {
				if err := os.WriteFile(filepath.Join(files, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			p := startServer(t, testserver.PostgresOptions{Version: version, Extensions: files})
			t.Run("extension", func(t *testing.T) {
				thereAndBack(t, p, `create extension amqp`, `create view amqp.member as select 1 as one`, `alter extension amqp add view amqp.member`,
					`create function goes_along() returns integer language sql as 'select 1'`, `alter function goes_along() depends on extension amqp`)
			})
			t.Run("loose", func(t *testing.T) { thereAndBack(t, p, `create schema amqp`, old) })
		})
	}
}

func thereAndBack(t *testing.T, p *testserver.Postgres, setup ...string) {
	name := newDatabase(t, p)
	conn := connect(t, p, name)
	for _, role := range []string{"migrated_app", "migrated_other", "migrated_viewer", "migrated_owner"} {
		atEnd(t, p, "postgres", "drop role if exists "+role)
	}
	atEnd(t, p, name, `drop owned by migrated_app, migrated_other, migrated_viewer, migrated_owner cascade`)
	for _, s := range append(setup, builtOnPgAMQP()...) {
		exec(t, conn, s)
	}
	exec(t, conn, `prepare before_it as select amqp.publish(1, 'e', $1, 'm')`)
	exec(t, conn, `execute before_it('no one')`)
	built, old := texts(t, conn, builtQuery), texts(t, conn, pgAMQPQuery)

	trial := migrate(t, conn, name, catalog.MigrateOptions{DryRun: true})
	if diff := cmp.Diff(built, texts(t, conn, builtQuery)) + cmp.Diff(old, texts(t, conn, pgAMQPQuery)); diff != "" {
		t.Fatalf("a dry run has changed something (-before +after):\n%s", diff)
	}
	if n := value[int](t, conn, `select (select count(*) from pg_replication_slots where slot_name = $1) + (select count(*) from pg_publication) + (select count(*) from pg_class where relname = 'installation')`, name); n != 0 {
		t.Error("a dry run has left something behind")
	}

	report := migrate(t, conn, name, catalog.MigrateOptions{})
	if diff := cmp.Diff(trial.Statements[2:], report.Statements); diff != "" {
		t.Errorf("the dry run shows other statements (-dry +real):\n%s", diff)
	}
	if diff := cmp.Diff(widened(built), widened(texts(t, conn, builtQuery))); diff != "" {
		t.Errorf("not all is as before (-before +after):\n%s", diff)
	}
	if got := texts(t, conn, pgAMQPQuery); len(got) > 0 {
		t.Errorf("left of pg_amqp: %q", got)
	}
	all := strings.Join(append(append(append([]string{}, report.Done...), report.ToDo...), report.Warnings...), "\n")
	for _, want := range []string{
		"migrated_app may call amqp.publish, as before", "view public.sender: kept", "public.on_row()",
		"constraint checked on table public.orders is NOT VALID now",
		"every role could call amqp.autonomous_publish", "grant pgamqp_publisher to migrated_other",
		"copy /etc/ssl/ca.pem of the database server to ca.pem", "copy /srv/b/client.pem of the database server to 2-client.pem",
		"key_password is set", "verify_cn is false",
		"role migrated_app can read passwords and keys in amqp.broker", "revoke select on amqp.broker from migrated_app", "revoke select on amqp.broker from migrated_other",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the report does not say %q:\n%s", want, all)
		}
	}
	if strings.Contains(all, "amqp.broker from migrated_viewer") || strings.Contains(all, "amqp.broker from pgamqp") {
		t.Errorf("the report speaks of who reads no password, or has to:\n%s", all)
	}
	brokers, err := catalog.Brokers(t.Context(), conn)
	if err != nil || len(brokers) != 2 {
		t.Fatalf("brokers %v, %v", brokers, err)
	}
	want := catalog.Host{
		Host: "one", Port: 5672, VHost: "/v", Username: "u", Password: "literal:file:odd", TLS: true,
		TLSCA: "file:ca.pem", TLSCert: "file:client.pem", TLSKey: "file:2-client.pem", Auth: "plain",
	}
	if diff := cmp.Diff(want, brokers[0].Hosts[0]); diff != "" {
		t.Errorf("broker 1 (-want +got):\n%s", diff)
	}
	if brokers[1].Hosts[0].TLS {
		t.Error("broker 2 has TLS")
	}
	sends(t, conn, name)
	asApp := connectAs(t, p, name, "postgres")
	exec(t, asApp, `set role migrated_app`)
	exec(t, asApp, `select amqp.publish(1, 'e', 'k', '{}'::jsonb)`)
	exec(t, asApp, `set role migrated_other`)
	if _, err := asApp.Exec(t.Context(), `select amqp.publish(1, 'e', 'k', 'm')`); err == nil {
		t.Error("PUBLIC may publish")
	}

	back(t, conn, name, built, old)
}

// sends uses each of what was built, and counts the messages.
func sends(t *testing.T, conn *pgx.Conn, slot string) {
	t.Helper()
	contents(t, conn, slot)
	for _, c := range []struct {
		statement string
		want      int
	}{
		{`execute before_it('key')`, 1},
		{`insert into orders (id, note) values (1, 'a')`, 3}, // default, check, trigger
		{`select * from sender`, 1},
		{`select * from on_top`, 1},
		{`alter table orders enable trigger by_condition; update orders set note = 'b'; alter table orders disable trigger by_condition`, 3}, // check, when, trigger
		{`select * from standard(1)`, 1},
		{`call standard_too()`, 1},
		{`insert into part values (1, 'n')`, 0},
		{`alter table part enable trigger parted_trigger; insert into parted values (1, 'n'); alter table part disable trigger parted_trigger`, 2},
		{`insert into child values ('n')`, 1},
		{`delete from orders`, 1}, // the rule, for one row
	} {
		exec(t, conn, c.statement)
		if got := contents(t, conn, slot); len(got) != c.want {
			t.Errorf("%s sent %d messages, want %d: %q", c.statement, len(got), c.want, got)
		}
	}
}

// back undoes the migration, removes pgamqp, and migrates again.
func back(t *testing.T, conn *pgx.Conn, name string, built, old []string) {
	t.Helper()
	exec(t, conn, `create view since as select amqp.publish(1, 'e', 'since', 'm') and amqp.publish(1, 'e', 'since', 'm', 2) as sent`)
	trial, err := catalog.UndoMigration(t.Context(), conn, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(t, conn, pgAMQPQuery); len(got) > 0 {
		t.Errorf("a dry run has brought back %q", got)
	}
	report, err := catalog.UndoMigration(t.Context(), conn, false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(trial.Statements, report.Statements); diff != "" {
		t.Errorf("the dry run shows other statements (-dry +real):\n%s", diff)
	}
	if diff := cmp.Diff(old, texts(t, conn, pgAMQPQuery)); diff != "" {
		t.Errorf("pg_amqp is not as before (-before +after):\n%s", diff)
	}
	contents(t, conn, name)
	exec(t, conn, `select sent from since`)
	exec(t, conn, `execute before_it('key')`)
	if got := contents(t, conn, name); len(got) > 0 {
		t.Errorf("calls still reach pgamqp: %q", got)
	}
	exec(t, conn, `drop view since`)
	if _, err := catalog.UndoMigration(t.Context(), conn, false); err == nil || !strings.Contains(err.Error(), "undone already") {
		t.Errorf("undone twice: %v", err)
	}

	again := migrate(t, conn, name, catalog.MigrateOptions{KeepPublic: true}) // the slot is still there
	if text := strings.Join(again.Present, "\n"); !strings.Contains(text, "slot "+name+": there") {
		t.Errorf("present: %s", text)
	}
	exec(t, conn, `set role migrated_other`)
	exec(t, conn, `select amqp.autonomous_publish(1, 'e', 'k', 'm')`)
	exec(t, conn, `reset role`)
	if _, err := catalog.UndoMigration(t.Context(), conn, false); err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(old, texts(t, conn, pgAMQPQuery)); diff != "" {
		t.Errorf("pg_amqp is not as before (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(built, texts(t, conn, builtQuery)); diff != "" {
		t.Errorf("not all is as before (-before +after):\n%s", diff)
	}
	if n := value[int](t, conn, `select (select count(*) from pg_replication_slots where slot_name = $1) + (select count(*) from pg_publication)
		+ (select count(*) from pg_class where relnamespace = 'amqp'::regnamespace and relkind = 'r') + (select count(*) from pg_trigger where tgrelid = 'amqp.broker'::regclass)
		+ (select count(*) from pg_attribute where attrelid = 'amqp.broker'::regclass and attnum > 0 and not attisdropped) + (select count(*) from amqp.broker where password = 'file:odd')`, name); n != 1+13+1 {
		t.Errorf("left of pgamqp, or missing of pg_amqp: %d, want 15", n)
	}
}
