package catalog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// What pg_amqp creates, but for its library, which the tests do not have.
const pgAMQP = `
create table amqp.broker (broker_id serial not null, host text not null, port integer not null default 5672,
  vhost text, username text, password text, primary key (broker_id, host, port));
create function amqp.publish(broker_id integer, exchange varchar, routing_key varchar, message varchar, delivery_mode integer default null,
  content_type varchar default null, reply_to varchar default null, correlation_id varchar default null) returns boolean language internal immutable as 'booltrue';
create function amqp.autonomous_publish(broker_id integer, exchange varchar, routing_key varchar, message varchar, delivery_mode integer default null,
  content_type varchar default null, reply_to varchar default null, correlation_id varchar default null) returns boolean language internal immutable as 'booltrue';
create function amqp.disconnect(broker_id integer) returns void language internal immutable strict as 'booltrue';
create function amqp.exchange_declare(broker_id integer, exchange varchar, exchange_type varchar, passive boolean, durable boolean, auto_delete boolean default false)
  returns boolean language internal immutable as 'booltrue';`

const pgAMQPRows = `insert into amqp.broker (host, port, vhost, username, password) values ('one', 5671, '/v', 'u', 'p'), ('two', 5672, null, null, null)`

// asLibrary makes the functions look as if they came from pg_amqp's library.
const asLibrary = `update pg_proc set probin = '$libdir/pg_amqp.so' where pronamespace = 'amqp'::regnamespace`

func checkTakenOver(t *testing.T, conn *pgx.Conn, name string) {
	t.Helper()
	install(t, conn, name)
	brokers, err := catalog.Brokers(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	want := []catalog.Broker{
		{ID: 1, OnReject: "dead_letter", Hosts: []catalog.Host{{Host: "one", Port: 5671, VHost: "/v", Username: "u", Password: "p", Auth: "plain"}}},
		{ID: 2, OnReject: "dead_letter", Hosts: []catalog.Host{{Host: "two", Port: 5672, VHost: "/", Username: "guest", Password: "guest", Auth: "plain"}}},
	}
	if diff := cmp.Diff(want, brokers); diff != "" {
		t.Errorf("brokers (-want +got):\n%s", diff)
	}
	contents(t, conn, name)
	exec(t, conn, `select amqp.publish(1, 'ex'::varchar, 'k'::varchar, 'm'::varchar), amqp.publish(2, 'ex', 'k', 'm', 1, 'text/plain', 'r', 'c')`)
	if got := contents(t, conn, name); len(got) != 2 {
		t.Errorf("%d messages, want 2", len(got))
	}
	if n := value[int](t, conn, `select count(*) from pg_proc where pronamespace = 'amqp'::regnamespace and probin is not null`); n != 0 {
		t.Errorf("%d functions of pg_amqp are left", n)
	}
	exec(t, conn, `insert into amqp.broker (host) values ('three')`) // its sequence goes on
	if id := value[int](t, conn, `select broker_id from amqp.broker where host = 'three'`); id != 3 {
		t.Errorf("the next broker_id is %d, want 3", id)
	}
}

func TestInstallTakesOverLooseObjectsOfPgAMQP(t *testing.T) {
	onEveryVersion(t, func(t *testing.T, p *testserver.Postgres) {
		name := newDatabase(t, p)
		conn := connect(t, p, name)
		exec(t, conn, `create schema amqp`)
		exec(t, conn, strings.ReplaceAll(pgAMQP, "booltrue", "booleq"))
		exec(t, conn, asLibrary)
		exec(t, conn, pgAMQPRows)
		checkTakenOver(t, conn, name)
	})
}

func TestInstallTakesOverATableOfTheOldestPgAMQP(t *testing.T) {
	p := server(t, 15)
	name := newDatabase(t, p)
	conn := connect(t, p, name)
	exec(t, conn, `create schema amqp`)
	exec(t, conn, `create table amqp.broker (broker_id serial not null primary key, host text, port integer, vhost text, username text, password text)`)
	exec(t, conn, `insert into amqp.broker (host) values (null)`)
	install(t, conn, name)
	brokers, err := catalog.Brokers(t.Context(), conn)
	want := []catalog.Broker{{ID: 1, OnReject: "dead_letter", Hosts: []catalog.Host{{Host: "localhost", Port: 5672, VHost: "/", Username: "guest", Password: "guest", Auth: "plain"}}}}
	if diff := cmp.Diff(want, brokers); err != nil || diff != "" {
		t.Errorf("brokers (-want +got):\n%s%v", diff, err)
	}
	exec(t, conn, `select amqp.publish(1, 'ex', 'k', 'm')`)
}

// The path for control files can be set on 18 only; the script does not depend on the version.
func TestInstallTakesOverTheExtensionPgAMQP(t *testing.T) {
	p := server(t, 18)
	name := newDatabase(t, p)
	conn := connect(t, p, name)
	//nolint:usetesting // the server runs as another user, who cannot reach into t.TempDir()
	dir, err := os.MkdirTemp("", "pgamqp-extension")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for file, text := range map[string]string{
		"amqp.control": "default_version = '0.4.2'\nrelocatable = false\nschema = amqp\n",
		"amqp--0.4.2.sql": strings.ReplaceAll(pgAMQP, "booltrue", "booleq") + asLibrary +
			";\nselect pg_catalog.pg_extension_config_dump('amqp.broker', '');",
	} {
		if err := os.MkdirAll(filepath.Join(dir, "extension"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "extension", file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, `select set_config('extension_control_path', $1, false)`, dir+":$system")
	exec(t, conn, `create extension amqp`)
	exec(t, conn, pgAMQPRows)

	exec(t, conn, `create view uses_it as select amqp.publish(1, 'e', 'k', 'm')`)
	_, err = catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name, Publication: name})
	if err == nil || !strings.Contains(err.Error(), "view public.uses_it depends on") {
		t.Errorf("a view on pg_amqp: %v", err)
	}
	exec(t, conn, `drop view uses_it`)
	checkTakenOver(t, conn, name)
	if n := value[int](t, conn, `select count(*) from pg_extension where extname = 'amqp'`); n != 0 {
		t.Error("the extension is still there")
	}
}

func TestInstallRefusesABrokerThatIsNoTable(t *testing.T) {
	p := server(t, 15)
	name := newDatabase(t, p)
	conn := connect(t, p, name)
	exec(t, conn, `create schema amqp`)
	exec(t, conn, `create view amqp.broker as select 1 as broker_id`)
	_, err := catalog.Install(t.Context(), conn, catalog.InstallOptions{Slot: name})
	if err == nil || !strings.Contains(err.Error(), "amqp.broker exists and is not a table") || !strings.Contains(err.Error(), "Rename it") {
		t.Errorf("error: %v", err)
	}
}
