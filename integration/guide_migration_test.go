package integration

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestGuideToMigrationHolds does what docs/guides/migration.md says, while an application that may not publish goes on
// with the old way.
func TestGuideToMigrationHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{postgres: ownPostgres(t, testserver.PostgresOptions{})})
	w.script(
		`create role shop_application login`,
		`create publication dbz_publication`,
		`select pg_create_logical_replication_slot('debezium', 'pgoutput')`,
	)
	w.start()
	conn := w.connect()
	application := w.connectAs("shop_application")
	insert := func(topics ...string) {
		for _, topic := range topics {
			run(t, application, `insert into outbox (topic, payload) values ($1, '{}')`, topic)
		}
	}
	event := func(n int) {
		run(t, application, `insert into outboxevent values ($1, 'order', '17', 'placed', '{"n": 1}')`, fmt.Sprintf("7c1a3a5e-2f0b-4c57-9d7b-00000000000%d", n))
	}
	var stop func() []string
	step := map[string]int{}
	for _, b := range claimed(t, "docs/guides/migration.md") {
		step[b.Section]++
		place := fmt.Sprintf("%s, %d", b.Section, step[b.Section])
		runSQL(t, conn, b)
		switch place {
		case "Moving to pgamqp, 1", "From Debezium's outbox event router, 3":
		case "From an outbox table with a poller, 1":
			w.exec(`grant insert on outbox to shop_application`)
			insert("first", "second")
		case "From an outbox table with a poller, 2":
			insert("third") // the trigger is not there yet
			stop = w.insertAllTheTime(4)
		case "From an outbox table with a poller, 3":
			want := append([]string{"first", "second", "third"}, stop()...)
			run(t, application, `begin`)
			insert("rolled back")
			run(t, application, `rollback`)
			insert("fourth")
			var got []string
			for _, m := range w.received(1, "shipping") {
				got = append(got, m.RoutingKey)
			}
			if !slices.Equal(got[:3], want[:3]) || got[len(got)-1] != "fourth" {
				t.Errorf("in front %q came, at the end %q", got[:3], got[len(got)-1])
			}
			want = append(want, "fourth")
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%d messages came of %d rows: %q, want %q", len(got), len(want), got, want)
			}
			w.wantCount("outbox", 0)
		case "From an outbox table with a poller, 4":
			insert("fifth")
			w.wantKeys("shipping")
			w.wantCount("outbox", 1)
		case "From pg-amqp-bridge, 1":
			w.script(`grant usage on schema rabbitmq to shop_application`)
		case "From pg-amqp-bridge, 2":
			run(t, application, `select rabbitmq.send_message('events', 'order.placed', '{"id": 1}')`)
			w.wantBodies("shipping", `{"id": 1}`)
			_, err := application.Exec(withDeadline(t, sqlLimit), `select rabbitmq.send_message('unknown', 'order.placed', '')`)
			if err == nil || !strings.Contains(err.Error(), "query returned no rows") {
				t.Errorf("a channel that is not in the table: %v", err)
			}
		case "From pg-amqp-bridge, 3":
		case "From Debezium's outbox event router, 1":
			w.exec(`grant insert on outboxevent to shop_application`)
			event(1)
			w.wantKeys("shipping")
		case "From Debezium's outbox event router, 2":
			event(2)
			w.wantKeys("shipping", "7c1a3a5e-2f0b-4c57-9d7b-000000000002 order.placed")
			w.wantCount("outboxevent", 2)
		default:
			t.Errorf("%s: nobody looks at what comes of %q", b, place)
		}
	}
	if n := value[int](w, `select count(*)::int from pg_replication_slots where slot_name = 'debezium'`); n != 0 {
		t.Error("the slot of Debezium is still there")
	}
	if n := w.deadLetters(); n > 0 {
		t.Errorf("%d dead letters", n)
	}
}

// wantKeys checks what a queue holds by message_id and routing key, and takes it.
func (w *world) wantKeys(queue string, want ...string) {
	w.t.Helper()
	var got []string
	for _, m := range w.received(1, queue) {
		got = append(got, m.MessageId+" "+m.RoutingKey)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("%q came, want %q", got, want)
	}
}

func (w *world) wantCount(table string, want int) {
	w.t.Helper()
	if got := value[int](w, `select count(*)::int from `+table); got != want {
		w.t.Errorf("table %s has %d rows, want %d", table, got, want)
	}
}

// insertAllTheTime lets so many sessions of the application insert, while the table's owner does something to it. What
// it returns ends them, when each has inserted some more, and returns the topics of all rows.
func (w *world) insertAllTheTime(sessions int) (stop func() []string) {
	w.t.Helper()
	var all errgroup.Group
	topics := make([][]string, sessions)
	done := make(chan struct{})
	var inserted atomic.Int64
	for s := range sessions {
		conn := w.connectAs("shop_application")
		all.Go(func() error {
			for n := 0; ; n++ {
				select {
				case <-done:
					return nil
				default:
				}
				topic := fmt.Sprintf("load.%d.%d", s, n)
				if _, err := conn.Exec(w.t.Context(), `insert into outbox (topic, payload) values ($1, '{}')`, topic); err != nil {
					return err
				}
				topics[s] = append(topics[s], topic)
				inserted.Add(1)
			}
		})
	}
	more := func() {
		enough := inserted.Load() + 100
		await(w.t, sqlLimit, "the application inserts", func() bool { return inserted.Load() > enough })
	}
	more()
	return func() []string {
		w.t.Helper()
		more()
		close(done)
		if err := all.Wait(); err != nil {
			w.t.Fatal(err)
		}
		return slices.Concat(topics...)
	}
}
