package integration

import (
	"testing"
)

// TestStatementsOfRowChangesHold runs the statements of docs/row-changes.md, and looks at the messages that they lead to.
func TestStatementsOfRowChangesHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.script(
		`create table public.orders (id bigint primary key)`,
		`insert into public.orders values (1)`,
		`select amqp.exchange_declare(1, e, 'topic', passive => false, durable => true) from unnest('{cdc,events}'::text[]) e`,
		`select amqp.queue_declare(1, e) from unnest('{cdc,events}'::text[]) e`,
		`select amqp.queue_bind(1, e, e, '#') from unnest('{cdc,events}'::text[]) e`,
	)
	w.start()
	w.waitDelivered()
	rows, events := w.consume(1, "cdc"), w.consume(1, "events")
	for _, b := range claimed(t, "docs/row-changes.md") {
		consumer, key := rows, ""
		switch b.Section + ", " + b.Language {
		case "Start, sql":
			runSQL(t, w.connect(), b)
			w.exec(`insert into public.orders values (2)`)
			key = "public.orders.insert"
		case "Rows that are there already, sql":
			w.exec(`truncate public.orders`)
			rows.next(1)
			w.exec(`insert into public.orders values (3)`)
			rows.next(1)
			runSQL(t, w.connect(), b)
			key = "public.orders.read"
		case "Messages of others, sql":
			runSQL(t, w.connect(), b)
			w.exec(`select pg_logical_emit_message(true, 'app.signup', 'content')`)
			consumer, key = events, "app.signup"
		default:
			t.Fatalf("%s: nobody runs a block of %s in the section %q", b, b.Language, b.Section)
		}
		if got := consumer.next(1)[0]; got.RoutingKey != key {
			t.Errorf("%s: a message with key %q comes, want %q", b, got.RoutingKey, key)
		}
	}
}
