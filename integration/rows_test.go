package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// row is the body of a message about a row.
type row struct {
	Schema, Table, Op string
	Before, After     map[string]any
	Unchanged         []string
}

// rowsOf consumes so many messages about rows.
func rowsOf(t *testing.T, w *world, queue string, n int) (keys []string, rows []row) {
	t.Helper()
	for _, m := range w.consume(1, queue).next(n) {
		var r row
		if err := json.Unmarshal(m.Body, &r); err != nil {
			t.Fatalf("%s: %v", m.Body, err)
		}
		keys, rows = append(keys, m.RoutingKey), append(rows, r)
	}
	return keys, rows
}

func TestRowsBecomeMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "rows")
	w.script(
		`create table public.orders (id int primary key, note text, price numeric(10,2), tags text[], at timestamptz, big text)`,
		`alter table public.orders alter column big set storage external`,
		`insert into public.orders values (0, 'before the route', 1, null, null, null)`,
	)
	w.queue(1, "q")
	ch := w.channel(1)
	if err := ch.ExchangeDeclare("cdc", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("rows", "#", "cdc", false, nil); err != nil {
		t.Fatal(err)
	}
	d := w.start()
	d.waitReady()
	w.exec(`select amqp.route_table('public.orders', broker_id => 1, exchange => 'cdc', routing_key => '{schema}.{table}.{op}.{column.note}')`)
	w.script(
		`insert into public.orders values (1, 'a.b', 12.50, '{x,"y z",NULL}', '2026-01-02 03:04:05.5+00', repeat('big', 2000))`,
		`update public.orders set note = 'c' where id = 1`,
		`update public.orders set id = 2 where id = 1`,
		`delete from public.orders where id = 2`,
		`begin; select amqp.publish(1, '', 'rows', '{"op": "message"}'); insert into public.orders select n, 'n' || n from generate_series(10, 12) n; commit`,
		`truncate public.orders`,
	)
	keys, rows := rowsOf(t, w, "rows", 9)
	want := []string{
		"public.orders.insert.a%2Eb", "public.orders.update.c", "public.orders.update.c", "public.orders.delete.null",
		"rows", "public.orders.insert.n10", "public.orders.insert.n11", "public.orders.insert.n12", "public.orders.truncate.null",
	}
	if fmt.Sprint(keys) != fmt.Sprint(want) {
		t.Errorf("routing keys %q, want %q", keys, want)
	}
	after := rows[0].After
	if after["id"] != 1.0 || after["price"] != "12.50" || after["at"] != "2026-01-02T03:04:05.5Z" || fmt.Sprint(after["tags"]) != "[x y z <nil>]" {
		t.Errorf("inserted %v", after)
	}
	if _, there := rows[1].After["big"]; there || fmt.Sprint(rows[1].Unchanged) != "[big]" || rows[1].Before != nil {
		t.Errorf("updated %+v", rows[1])
	}
	if fmt.Sprint(rows[2].Before) != "map[id:1]" || rows[2].After["id"] != 2.0 {
		t.Errorf("updated the key %+v", rows[2])
	}
	if fmt.Sprint(rows[3].Before) != "map[id:2]" || rows[3].After != nil {
		t.Errorf("deleted %+v", rows[3])
	}
	w.waitDelivered()
}

// TestRouteHoldsFromItsPlaceInTheStreamOn, also for a daemon that starts after it.
func TestRouteHoldsFromItsPlaceInTheStreamOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "a", "b")
	w.script(
		`create table public.t (id int primary key)`,
		`select amqp.route_table('public.t', 1, '', routing_key => 'a')`,
		`insert into public.t values (1), (2)`,
		`update amqp.route set routing_key = 'b'`,
		`insert into public.t values (3)`,
		`select amqp.unroute(route_id) from amqp.route`,
		`insert into public.t values (4)`,
	)
	d := w.start()
	w.wantRows(map[string]string{"a": "[1 2]", "b": "[3]"})
	w.script(
		`select amqp.route_table('public.t', 1, '', routing_key => 'a')`,
		`insert into public.t values (5)`,
	)
	w.wantRows(map[string]string{"a": "[5]", "b": "[]"})
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// The next daemon begins behind the change that made the route, and before the one that
	// amqp.route shows.
	w.script(
		`insert into public.t values (6)`,
		`update amqp.route set routing_key = 'b'`,
		`insert into public.t values (7)`,
	)
	w.start()
	w.wantRows(map[string]string{"a": "[6]", "b": "[7]"})
}

// wantRows takes the ids of all rows that have come to queues.
func (w *world) wantRows(queues map[string]string) {
	w.t.Helper()
	for queue, want := range queues {
		got := []any{}
		for _, r := range w.changes(queue) {
			got = append(got, r.After["id"])
		}
		if fmt.Sprint(got) != want {
			w.t.Errorf("queue %s has rows %v, want %s", queue, got, want)
		}
	}
}

// TestRowsThatPostgreSQLCouldNotUpdateAreNotPublished: a published table without an identity
// refuses every UPDATE.
func TestRowsThatPostgreSQLCouldNotUpdateAreNotPublished(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.exec(`create table public.bare (n int)`)
	err := w.try(`select amqp.route_table('public.bare', 1, 'cdc')`)
	if err == nil || !strings.Contains(err.Error(), "no replica identity") {
		t.Errorf("%v", err)
	}
	w.script(`insert into public.bare values (1)`, `update public.bare set n = 2`)
	for _, bad := range []string{
		`select amqp.route_table('public.missing', 1, 'cdc')`,
		`select amqp.route_table('public.bare', 1, 'cdc', routing_key => '{unknown}')`,
		`select amqp.route_table('pg_catalog.pg_class', 1, 'cdc')`,
		`select amqp.route_table('public.bare', 9, 'cdc')`,
	} {
		if err := w.try(bad); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
