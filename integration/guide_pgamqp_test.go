package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// migrationPlan is what `pgamqp migrate --json` prints.
type migrationPlan struct {
	DryRun     bool `json:"dry_run"`
	Statements []string
	Done       []string
	ToDo       []string `json:"to_do"`
	Warnings   []string
}

// TestGuideFromPgAMQPHolds follows docs/migrate-from-pg_amqp.md, there and back.
func TestGuideFromPgAMQPHolds(t *testing.T) {
	t.Parallel()
	postgres := ownPostgres(t, testserver.PostgresOptions{})
	w := newWorld(t, worldOptions{postgres: postgres, bare: true})
	w.slot = "pgamqp"
	script, err := postgres.PgAMQP(withDeadline(t, sqlLimit))
	if err != nil {
		t.Fatal(err)
	}
	w.script(`create schema amqp`, script, `create view sender as select amqp.publish(1, 'shop', 'view', 'from the view')`)
	w.exec(`insert into amqp.broker (host, port, vhost) values ($1, $2, $3)`, w.rabbit.Host(), w.rabbit.Port(), w.vhosts[0])
	open := w.connect() // a session that does not end
	run(t, open, `prepare send as select amqp.publish(1, 'shop', 'prepared', $1)`)
	run(t, open, `prepare bye as select amqp.disconnect(1)`)
	run(t, open, `execute send('before')`)
	run(t, open, `execute bye`)
	pgAMQP := func() int {
		return value[int](w, `select count(*)::int from pg_proc where pronamespace = 'amqp'::regnamespace and probin is not null`)
	}

	plan := decode[migrationPlan](t, w.command(nil, 0, "migrate", "--from-pg_amqp", "--dry-run", "--json"))
	if !plan.DryRun || len(plan.Statements) < 5 || len(plan.Done) == 0 || plan.ToDo == nil || len(plan.Warnings) == 0 {
		t.Errorf("the plan is %+v", plan)
	}

	var d *daemon
	step := map[string]int{}
	for _, b := range claimed(t, guideFromPgAMQP) {
		step[b.Section]++
		place := fmt.Sprintf("%s, %d", b.Section, step[b.Section])
		switch place {
		case "Steps, 1":
			for i, args := range commands(t, b, "postgres://postgres@localhost/shop", w.url()) {
				code, out := pgamqp(t, args...)
				if code != 0 || !strings.Contains(out, "view public.sender: kept") {
					t.Fatalf("%q: exit code %d\n%s", args, code, out)
				}
				if pgAMQP() != 4*(1-i) {
					t.Errorf("%q: %d functions of pg_amqp are there", args, pgAMQP())
				}
			}
			run(t, open, `execute send('waits')`)
			if _, err := open.Exec(withDeadline(t, sqlLimit), `execute bye`); err == nil || !strings.Contains(err.Error(), "cached plan must not change result type") {
				t.Errorf("execute bye: %v", err)
			}
		case "Steps, 2":
			args := commands(t, b, "postgres://postgres@localhost/shop", w.url())[0]
			d = launch(t, append(args, "--listen", "127.0.0.1:0")...)
			d.waitReady()
			ch := w.channel(1)
			if err := ch.ExchangeDeclare("shop", "topic", true, false, false, false, nil); err != nil {
				t.Fatal(err)
			}
			w.queue(1, "all")
			if err := ch.QueueBind("all", "#", "shop", false, nil); err != nil {
				t.Fatal(err)
			}
			w.waitDelivered()
			w.exec(`select amqp.redeliver_all()`) // if it was faster than the exchange
			run(t, open, `select * from sender`)
			w.wantSet("all", "waits", "from the view")
		case "Steps, 3":
			// Here it would end the way back. It is run in a transaction that goes.
			conn := w.connect()
			run(t, conn, `begin`)
			runSQL(t, conn, b)
			run(t, conn, `rollback`)
		case "What to change in SQL, 1":
			runSQL(t, open, b)
			w.waitDelivered()
			got := w.received(1, "all")
			if len(got) != 1 || got[0].Headers["tenant"] != "a" || got[0].Headers["source"] != "web" {
				t.Errorf("%+v came", got)
			}
		case "What to change in SQL, 2", "The way back, 2":
			runSQL(t, open, b)
		case "The way back, 1":
			run(t, open, `execute send('on its way')`)
			for i, args := range commands(t, b, "postgres://postgres@localhost/shop", w.url()) {
				if code, out := pgamqp(t, args...); code != 0 || !strings.Contains(out, "view public.sender: kept") {
					t.Fatalf("%q: exit code %d\n%s", args, code, out)
				}
				if pgAMQP() != 4*i {
					t.Errorf("%q: %d functions of pg_amqp are there", args, pgAMQP())
				}
			}
			run(t, open, `execute send('by pg_amqp')`)
			w.wantSet("all", "on its way")
		case "The way back, 3":
			d.stop()
			args := commands(t, b, "postgres://postgres@localhost/shop", w.url())[0]
			if code, out := pgamqp(t, args...); code != 0 || !strings.Contains(out, "functions and brokers of pg_amqp") {
				t.Fatalf("%q: exit code %d\n%s", args, code, out)
			}
		default:
			t.Errorf("%s: nobody runs the block %q", b, place)
		}
	}
	run(t, open, `select * from sender`)
	if n := value[int](w, `select (select count(*) from pg_replication_slots)::int + (select count(*) from amqp.broker)::int * 10`); pgAMQP() != 4 || n != 10 {
		t.Errorf("%d functions of pg_amqp, and %d", pgAMQP(), n)
	}
}

// wantSet waits until everything is delivered and checks what a queue holds, in any order.
func (w *world) wantSet(queue string, want ...string) {
	w.t.Helper()
	compare(want, w.received(1, queue)).wantExact(w.t)
}
