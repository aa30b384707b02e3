package catalog_test

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
	"github.com/pgamqp/pgamqp/sql"
)

// builtExtension runs `make install` as its README says and returns the folder that it fills.
func builtExtension(t *testing.T) string {
	t.Helper()
	source := filepath.Join(t.TempDir(), "sql") // what it builds stays out of the tree
	if err := os.CopyFS(source, os.DirFS(filepath.Join("..", "..", "sql"))); err != nil {
		t.Fatal(err)
	}
	configs, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_config")
	if err != nil || len(configs) == 0 {
		t.Fatal("no pg_config; run `make setup`")
	}
	to := t.TempDir()
	//nolint:gosec // a path of this test
	out, err := osexec.CommandContext(t.Context(), "make", "-C", filepath.Join(source, "extension"), "install",
		"PG_CONFIG="+configs[0], "DESTDIR="+to).CombinedOutput()
	if err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	folders, err := filepath.Glob(filepath.Join(to, "usr/share/postgresql/*/extension"))
	if err != nil || len(folders) != 1 {
		t.Fatalf("make install filled %q", folders)
	}
	return folders[0]
}

func TestExtensionHasTheVersionOfTheScripts(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "sql", "extension", "amqp.control"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "default_version = '" + strconv.Itoa(sql.Version) + "'"; !strings.Contains(string(text), want) {
		t.Errorf("amqp.control does not say %s", want)
	}
}

// The next version of the schema gets its way from this one without anybody thinking of it.
func TestNextVersionOfTheExtensionUpdatesThisOne(t *testing.T) {
	source := filepath.Join(t.TempDir(), "sql")
	if err := os.CopyFS(source, os.DirFS(filepath.Join("..", "..", "sql"))); err != nil {
		t.Fatal(err)
	}
	control := filepath.Join(source, "extension", "amqp.control")
	text, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	this, next := strconv.Itoa(sql.Version), strconv.Itoa(sql.Version+1)
	text = []byte(strings.Replace(string(text), "default_version = '"+this+"'", "default_version = '"+next+"'", 1))
	if err := os.WriteFile(control, text, 0o600); err != nil {
		t.Fatal(err)
	}
	configs, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_config")
	if err != nil || len(configs) == 0 {
		t.Fatal("no pg_config; run `make setup`")
	}
	//nolint:gosec // a path of this test
	out, err := osexec.CommandContext(t.Context(), "make", "-C", filepath.Join(source, "extension"), "PG_CONFIG="+configs[0]).CombinedOutput()
	if err != nil {
		t.Fatalf("make: %v\n%s", err, out)
	}
	for _, name := range []string{"amqp--" + next + ".sql", "amqp--" + this + "--" + next + ".sql", "amqp--0.5.0--" + next + ".sql"} {
		if _, err := os.Stat(filepath.Join(source, "extension", name)); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// catalogOf lists what schema amqp consists of, to compare two ways of installing it.
func catalogOf(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		select pg_get_functiondef(p.oid) || coalesce((select string_agg(a::text, ',' order by a::text) from unnest(p.proacl) a), '') from pg_proc p where p.pronamespace = 'amqp'::regnamespace
		union all
		select c.oid::regclass || ' ' || c.relkind::text || coalesce((select string_agg(a::text, ',' order by a::text) from unnest(c.relacl) a), '') from pg_class c where c.relnamespace = 'amqp'::regnamespace
		union all
		select a.attrelid::regclass || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attnotnull
		  from pg_attribute a join pg_class c on c.oid = a.attrelid
		 where c.relnamespace = 'amqp'::regnamespace and a.attnum > 0 and not a.attisdropped and c.relkind = 'r'
		union all
		select t.tgrelid::regclass || ' ' || t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid where c.relnamespace = 'amqp'::regnamespace and not t.tgisinternal
		union all
		select 'schema ' || n.nspacl::text from pg_namespace n where n.nspname = 'amqp'
		order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestExtension(t *testing.T) {
	files := builtExtension(t)
	// What pg_amqp has installed, but for its library.
	old := strings.ReplaceAll(pgAMQP, "booltrue", "booleq") + asLibrary
	if err := os.WriteFile(filepath.Join(files, "amqp--0.4.2.sql"), []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, version := range testserver.Versions {
		t.Run("postgresql"+strconv.Itoa(version), func(t *testing.T) {
			t.Parallel()
			p := startServer(t, testserver.PostgresOptions{Version: version, Extensions: files})
			t.Run("made", func(t *testing.T) { extensionIsMade(t, p) })
			t.Run("over pgamqp install", func(t *testing.T) { extensionAdopts(t, p) })
			t.Run("refuses", func(t *testing.T) { extensionRefusesWhatOthersMade(t, p) })
			t.Run("dump", func(t *testing.T) { extensionIsDumped(t, p) })
			t.Run("from pg_amqp", func(t *testing.T) { extensionReplacesPgAMQP(t, p) })
		})
	}
}

// works publishes through what is installed and finds the message in the slot.
func works(t *testing.T, conn *pgx.Conn, slot string) {
	t.Helper()
	exec(t, conn, `insert into amqp.broker (host) values ('a') on conflict do nothing`)
	contents(t, conn, slot)
	exec(t, conn, `select amqp.publish(b.broker_id, 'ex', 'k', 'm') from amqp.broker b limit 1`)
	if got := contents(t, conn, slot); len(got) != 1 {
		t.Errorf("%d messages, want 1", len(got))
	}
}

func extensionIsMade(t *testing.T, p *testserver.Postgres) {
	loose, _ := installed(t, p)
	name := newDatabase(t, p)
	conn := connect(t, p, name)
	exec(t, conn, `create extension amqp`)
	if diff := cmp.Diff(catalogOf(t, loose), catalogOf(t, conn)); diff != "" {
		t.Errorf("the extension differs from pgamqp install (-install +extension):\n%s", diff)
	}
	report, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name, Publication: name})
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(report.Present, "\n"); !strings.Contains(text, fmt.Sprintf("schema amqp: extension amqp, version %d", sql.Version)) {
		t.Errorf("install says %q", text)
	}
	if i, err := catalog.ReadInstallation(t.Context(), conn); err != nil || i.Slot != name || i.Publication != name {
		t.Errorf("installation %+v, %v", i, err)
	}
	works(t, conn, name)
	exec(t, conn, `create view uses_it as select amqp.publish(1, 'e', 'k', 'm')`)
	if _, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{}); err == nil || !strings.Contains(err.Error(), "view public.uses_it depends on") {
		t.Errorf("a view on the extension: %v", err)
	}
	exec(t, conn, `drop view uses_it`)
	if _, err := catalog.Uninstall(t.Context(), conn, catalog.UninstallOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := value[int](t, conn, `select (select count(*) from pg_extension where extname = 'amqp') + (select count(*) from pg_namespace where nspname = 'amqp')
		+ (select count(*) from pg_replication_slots where slot_name = $1)`, name); n != 0 {
		t.Errorf("%d of extension, schema and slot are left", n)
	}
}

func extensionAdopts(t *testing.T, p *testserver.Postgres) {
	conn, name := installed(t, p)
	exec(t, conn, `insert into amqp.broker (broker_id, host) values (7, 'kept')`)
	exec(t, conn, `create role reader`)
	exec(t, conn, `grant select on amqp.dead_letter to reader`)
	before := catalogOf(t, conn)
	exec(t, conn, `create extension amqp`)
	if diff := cmp.Diff(before, catalogOf(t, conn)); diff != "" {
		t.Errorf("it has changed (-before +after):\n%s", diff)
	}
	if host := value[string](t, conn, `select host from amqp.broker where broker_id = 7`); host != "kept" {
		t.Error("the broker is lost")
	}
	works(t, conn, name)
	exec(t, conn, `drop extension amqp`)
	if n := value[int](t, conn, `select count(*) from pg_class where relnamespace = 'amqp'::regnamespace`); n != 0 {
		t.Errorf("%d relations are left behind the extension", n)
	}
}

func extensionRefusesWhatOthersMade(t *testing.T, p *testserver.Postgres) {
	conn := connect(t, p, newDatabase(t, p))
	exec(t, conn, `create role mallory`)
	exec(t, conn, `create schema amqp authorization mallory`)
	exec(t, conn, `set role mallory`)
	exec(t, conn, `create table amqp.broker (broker_id serial, host text, port integer, vhost text, username text, password text)`)
	exec(t, conn, `reset role`)
	_, err := conn.Exec(t.Context(), `create extension amqp`)
	if err == nil || !strings.Contains(err.Error(), `schema amqp belongs to role "mallory"`) {
		t.Errorf("error: %v", err)
	}
	exec(t, conn, `alter schema amqp owner to postgres`)
	_, err = conn.Exec(t.Context(), `create extension amqp`)
	if err == nil || !strings.Contains(err.Error(), `sequence amqp.broker_broker_id_seq belongs to role "mallory"`) {
		t.Errorf("error: %v", err)
	}
}

func extensionIsDumped(t *testing.T, p *testserver.Postgres) {
	conn := connect(t, p, newDatabase(t, p))
	exec(t, conn, `create extension amqp`)
	exec(t, conn, `insert into amqp.broker (host, password) values ('a', 'b')`)
	exec(t, conn, `create table t (id integer primary key)`)
	exec(t, conn, `select amqp.route_prefix('other', 1, 'ex')`)
	exec(t, conn, `insert into amqp.dead_letter (origin, lsn, kind, reason, head, body) values ('o', '0/1', 'publish', 'r', '', '')`)
	if p.Version() > 15 { // pg_dump of the distribution refuses newer servers
		if n := value[int](t, conn, `select cardinality(extconfig) from pg_extension where extname = 'amqp'`); n != 9 {
			t.Errorf("%d tables and sequences are dumped, want 9", n)
		}
		return
	}
	//nolint:gosec // an address of this test
	dump, err := osexec.CommandContext(t.Context(), "pg_dump", p.URL(conn.Config().Database)).Output()
	if err != nil {
		t.Fatal(err)
	}
	restored := newDatabase(t, p)
	if _, err := p.Psql(t.Context(), restored, string(dump)); err != nil {
		t.Fatal(err)
	}
	again := connect(t, p, restored)
	if got := value[string](t, again, `select concat_ws(' ', (select host || password from amqp.broker), (select message_prefix from amqp.route), (select origin from amqp.dead_letter),
		nextval('amqp.broker_broker_id_seq'))`); got != "ab other o 2" {
		t.Errorf("restored: %q", got)
	}
	install(t, again, restored)
	works(t, again, restored)
}

func extensionReplacesPgAMQP(t *testing.T, p *testserver.Postgres) {
	conn := connect(t, p, newDatabase(t, p))
	exec(t, conn, `create extension amqp version '0.4.2'`)
	exec(t, conn, pgAMQPRows)
	exec(t, conn, `create view uses_it as select amqp.publish(1, 'e', 'k', 'm')`)
	_, err := conn.Exec(t.Context(), `alter extension amqp update`)
	if err == nil || !strings.Contains(err.Error(), "other objects depend on") {
		t.Errorf("a view on pg_amqp: %v", err)
	}
	exec(t, conn, `drop view uses_it`)
	exec(t, conn, `alter extension amqp update`)
	checkTakenOver(t, conn, conn.Config().Database)
	if version := value[string](t, conn, `select extversion from pg_extension where extname = 'amqp'`); version != strconv.Itoa(sql.Version) {
		t.Errorf("version %s", version)
	}
}
