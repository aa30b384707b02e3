package integration

import (
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestGuideToManagedPostgreSQLHolds runs docs/guides/managed-postgresql.md as services let one: by a role that owns
// the database, may create roles and use slots, and is no superuser.
func TestGuideToManagedPostgreSQLHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{}), bare: true})
	w.slot = "pgamqp"
	w.script(
		`create role shop_admin login createrole replication`,
		`alter database `+w.database+` owner to shop_admin`,
	)
	var d *daemon
	for _, b := range claimed(t, "docs/guides/managed-postgresql.md") {
		if b.Language == "sql" {
			runSQL(t, w.connectAs("shop_admin"), b)
			if strings.Contains(b.Text, "create role shop_pgamqp") {
				w.exec(`alter role shop_pgamqp replication`) // what each service has a way of its own for
			}
			continue
		}
		for _, args := range commands(t, b, "postgres://shop_admin@db.example/shop", w.urlAs("shop_admin"), "postgres://shop_pgamqp@db.example/shop", w.urlAs("shop_pgamqp")) {
			if args[0] == "run" {
				d = launch(t, append(args, "--listen", "127.0.0.1:0")...)
				d.waitReady()
				continue
			}
			code, out := pgamqp(t, args...)
			switch {
			case args[0] == "doctor" && w.installed():
				wantMatch(t, out, `every role of this database may call`)
			case args[0] == "doctor":
				wantMatch(t, out, `pgamqp install`)
			case code != 0:
				t.Fatalf("%q: exit code %d\n%s", args, code, out)
			default:
				wantMatch(t, out, `every role of this database may call pg_logical_emit_message`)
			}
		}
		if d == nil && w.installed() {
			conn := w.connectAs("shop_admin") // the owner of the schema names the broker
			run(t, conn, `insert into amqp.broker (host, port, vhost) values ($1, $2, $3)`, w.rabbit.Host(), w.rabbit.Port(), w.vhosts[0])
			run(t, conn, `select amqp.queue_declare(1, 'q')`)
		}
	}
	if d == nil {
		t.Fatal("the guide starts no daemon")
	}
	run(t, w.connectAs("shop_application"), `select amqp.publish(1, '', 'q', 'by an application')`)
	w.wantBodies("q", "by an application")
}

func (w *world) installed() bool {
	w.t.Helper()
	return value[bool](w, `select to_regclass('amqp.installation') is not null`)
}
