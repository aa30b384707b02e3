package integration

import (
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestReadmeOfOperationsHolds runs the commands and statements of docs/operations.md in the state that they are for.
func TestReadmeOfOperationsHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{}), bare: true})
	w.slot = "pgamqp"
	w.install()
	w.exec(`insert into amqp.broker (host, port, vhost) values ($1, $2, $3)`, w.rabbit.Host(), w.rabbit.Port(), w.vhosts[0])
	d := w.start()
	for _, b := range claimed(t, "docs/operations.md") {
		switch b.Section + ", " + b.Language {
		case "Looking at it, sh":
			for _, args := range commands(t, b) {
				if args[len(args)-1] == "--watch" { // until somebody ends it
					watch := launch(t, append(args, "--database-url", w.url(), "--listen", d.address())...)
					await(t, startLimit, "the status is shown again", func() bool {
						return strings.Count(watch.log.String(), w.database) > 1
					})
					watch.kill()
					continue
				}
				w.command(d, 0, args...)
			}
		case "Messages that a broker will not take, sql":
			runSQL(t, w.connect(), b)
			if got := value[string](w, `select on_reject || ' ' || retry_timeout from amqp.broker`); got != "hold 00:05:00" {
				t.Errorf("the broker's policy is %q", got)
			}
			w.exec(`update amqp.broker set on_reject = 'dead_letter', retry_timeout = null`)
		case "Dead letters, sh":
			w.deadLettersFrom(17, 2)
			for _, args := range commands(t, b) {
				w.command(d, 0, args...)
			}
			w.wantNoDeadLetters(17, 18)
		case "Dead letters, sql":
			w.deadLettersFrom(17, 2)
			runSQL(t, w.connect(), b)
			w.wantNoDeadLetters(17, 18)
		case "Lost slot, sql":
			d.stop()
			runSQL(t, w.connect(), b)
			w.install()
			if n := value[int](w, `select count(*)::int from pg_replication_slots where slot_name = 'pgamqp'`); n != 1 {
				t.Errorf("%d slots", n)
			}
		case "Publication missing, sql":
			w.exec(`select amqp.publish(1, '', 'q', 'to be seen')`)
			w.exec(`drop publication pgamqp`)
			conn := w.connect()
			seen := statements(b.Text)
			if len(seen) != 3 {
				t.Fatalf("%s: %d statements", b, len(seen))
			}
			b.Text = seen[0].sql + seen[1].sql
			if rows, _ := runSQL(t, conn, b); len(rows) != 1 {
				t.Errorf("%s: what the slot holds is %q", b, rows)
			}
			b.Text = seen[2].sql
			runSQL(t, conn, b)
			w.install()
		default:
			t.Errorf("%s: nobody runs a block of %s in the section %q", b, b.Language, b.Section)
		}
	}
}

// deadLettersFrom makes n dead letters, the first one with this id.
func (w *world) deadLettersFrom(id, n int) {
	w.t.Helper()
	w.exec(`delete from amqp.dead_letter`)
	w.exec(`select setval(pg_get_serial_sequence('amqp.dead_letter', 'id'), $1, false)`, id)
	for range n {
		w.exec(`select amqp.publish(1, '', 'nowhere', 'no queue is there')`)
	}
	w.waitDelivered()
	if n := value[int](w, `select count(*)::int from amqp.dead_letter where id between $1 and $2`, id, id+n-1); n != 2 {
		w.t.Fatalf("%d dead letters", n)
	}
}

func (w *world) wantNoDeadLetters(ids ...int) {
	w.t.Helper()
	if left := query[int](w, `select id::int from amqp.dead_letter where id = any($1)`, ids); len(left) > 0 {
		w.t.Errorf("dead letters %d are still there", left)
	}
}
