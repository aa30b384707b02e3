package integration

import (
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestTopologyIsDeclaredFromSQLInOrderWithTheMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.start()
	w.script(
		`begin`,
		`select amqp.exchange_declare(1, 'orders', 'topic', false, true)`,
		`select amqp.exchange_declare(1, 'audit', 'fanout', false, true, internal => true)`,
		`select amqp.queue_declare(1, 'new orders', arguments => '{"x-max-length": {"$int32": 1000}, "x-queue-type": "quorum"}')`,
		`select amqp.queue_declare(1, 'all')`,
		`select amqp.queue_bind(1, 'new orders', 'orders', '*.new')`,
		`select amqp.exchange_bind(1, 'audit', 'orders', '#')`,
		`select amqp.queue_bind(1, 'all', 'audit')`,
		`select amqp.publish(1, 'orders', 'shoes.new', 'a')`,
		`select amqp.publish(1, 'orders', 'shoes.old', 'b')`,
		`commit`,
	)
	if got := bodies(w.received(1, "new orders")); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q came by the binding", got)
	}
	if got := bodies(w.received(1, "all")); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q came by the exchange's binding", got)
	}
	if all := w.letters(); len(all) > 0 {
		t.Errorf("the dead letters are %+v", all)
	}
	// The broker compares all that was asked for.
	arguments := amqp.Table{"x-max-length": int32(1000), "x-queue-type": "quorum"}
	if _, err := w.channel(1).QueueDeclare("new orders", true, false, false, false, arguments); err != nil {
		t.Errorf("the queue was declared otherwise: %v", err)
	}
	if err := w.channel(1).ExchangeDeclare("audit", "fanout", true, false, true, false, nil); err != nil {
		t.Errorf("the exchange was declared otherwise: %v", err)
	}
	// Once more is no difference.
	w.exec(`select amqp.exchange_declare(1, 'orders', 'topic', false, true), amqp.exchange_declare(1, 'orders', '', true, true),
	               amqp.queue_declare(1, 'all'), amqp.queue_declare(1, 'all', passive => true)`)
	w.waitDelivered()
	if all := w.letters(); len(all) > 0 {
		t.Errorf("the dead letters are %+v", all)
	}
}

func TestDeclarationsAreSentEvenIfTheTransactionRollsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.start()
	w.script(`begin`, `select amqp.queue_declare(1, 'q')`, `rollback`)
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	if got := bodies(w.received(1, "q")); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q came", got)
	}
}

// A channel is closed by the broker for most of these, by version 3 the connection for the last.
func TestR34RefusedDeclarationIsADeadLetterAndDisturbsNoMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exchange(1, "e", false, "q")
	version, err := w.rabbit.Version(withDeadline(t, sqlLimit))
	if err != nil {
		t.Fatal(err)
	}
	unknownType, unknownTypeCode := "refused", 503
	if !strings.HasPrefix(version, "3.") {
		unknownType, unknownTypeCode = "precondition_failed", 406
	}
	w.start()
	for i, c := range []struct {
		call, kind, reason string
		code               int
		text               string
	}{
		{`exchange_declare(1, 'e', 'direct', false, true)`, "exchange_declare", "precondition_failed", 406, "inequivalent arg 'type' for exchange 'e'"},
		{`queue_declare(1, 'q', durable => false)`, "queue_declare", "precondition_failed", 406, "inequivalent arg 'durable' for queue 'q'"},
		{`queue_declare(1, 'missing', passive => true)`, "queue_declare", "not_found", 404, "no queue 'missing'"},
		{`queue_bind(1, 'missing', 'e')`, "queue_bind", "not_found", 404, "no queue 'missing'"},
		{`exchange_bind(1, 'missing', 'e')`, "exchange_bind", "not_found", 404, "no exchange 'missing'"},
		{`exchange_declare(1, 'amq.mine', 'direct', false, true)`, "exchange_declare", "access_refused", 403, "reserved prefix"},
		{`exchange_declare(1, 'x', 'no such type', false, true)`, "exchange_declare", unknownType, unknownTypeCode, "unknown exchange type"},
	} {
		w.script(
			`begin`,
			`select amqp.autonomous_publish(1, '', 'q', 'good ' || n) from generate_series(1, 100) n`,
			`select amqp.`+c.call,
			`select amqp.autonomous_publish(1, 'e', '', 'good ' || n) from generate_series(101, 200) n`,
			`commit`,
		)
		compare(good(200), w.received(1, "q")).wantExact(t)
		all := w.letters()
		if len(all) != i+1 {
			t.Fatalf("%s: there are %d dead letters", c.call, len(all))
		}
		l := all[i]
		if l.Kind != c.kind || l.Reason != c.reason || orZero(l.Code) != c.code || !strings.Contains(orZero(l.Text), c.text) {
			t.Errorf("%s: the dead letter is %s, %s, %d, %q", c.call, l.Kind, l.Reason, orZero(l.Code), orZero(l.Text))
		}
	}
	// A dead letter of a declaration can be sent again, too.
	w.queue(1, "missing")
	w.exec(`select amqp.redeliver(id) from amqp.dead_letter where kind = 'queue_bind'`)
	w.exec(`select amqp.publish(1, 'e', '', 'a')`)
	if got := bodies(w.received(1, "missing")); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q came by the binding that was sent again", got)
	}
}

func TestDisconnectMakesANewConnectionAndLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	d := w.start()
	d.waitLog("connected to broker") // ready does not wait for it
	connects := d.metric("pgamqp_broker_connects_total", `result="ok"`)
	w.publishAround(`select amqp.disconnect(1)`) // autonomous: between the transactions
	w.script(
		`begin`,
		`select amqp.autonomous_publish(1, '', 'q', 'good ' || n) from generate_series(1001, 1500) n`,
		`select amqp.disconnect(1)`,
		`select amqp.autonomous_publish(1, '', 'q', 'good ' || n) from generate_series(1501, 2000) n`,
		`commit`,
	)
	compare(good(2000), w.received(1, "q")).wantExact(t)
	if now := d.metric("pgamqp_broker_connects_total", `result="ok"`); now != connects+2 {
		t.Errorf("%v connections were made, want %v", now, connects+2)
	}
}
