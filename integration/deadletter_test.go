package integration

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

// letter is what a test looks at in a row of amqp.dead_letter.
type letter struct {
	ID                         int64
	Origin, Kind, Reason       string
	Broker, Code               *int
	Text, MessageID            *string
	Exchange, RoutingKey, Role *string
	Properties, Headers        *string
	Body                       []byte
}

// letters returns all dead letters, the oldest first.
func (w *world) letters() []letter {
	w.t.Helper()
	ctx := withDeadline(w.t, sqlLimit)
	rows, err := w.connect().Query(ctx, `
		select id, origin, kind, reason, broker_id, reply_code, reply_text, message_id, exchange, routing_key, role,
		       properties::text, headers::text, body
		  from amqp.dead_letter order by id`)
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[letter])
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// limitedUser makes a user of RabbitMQ who may write where a pattern allows, and lets the
// daemon be that user at broker 1.
func (w *world) limitedUser(write string) (name string) {
	w.t.Helper()
	ctx := withDeadline(w.t, sqlLimit)
	name = w.database + "_limited"
	if err := w.rabbit.AddUser(ctx, name, userPassword, ""); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := w.rabbit.API(withDeadline(w.t, sqlLimit), http.MethodDelete, "/users/"+name, nil, nil); err != nil {
			w.t.Error(err)
		}
	})
	w.allow(name, write)
	w.exec(`update amqp.broker set username = $1, password = $2 where broker_id = 1`, name, userPassword)
	return name
}

// allow changes where a user may write at broker 1.
func (w *world) allow(user, write string) {
	w.t.Helper()
	if err := w.rabbit.SetPermissions(withDeadline(w.t, sqlLimit), w.vhosts[0], user, "", write, ""); err != nil {
		w.t.Fatal(err)
	}
}

// exchange declares a fanout exchange at a broker, and binds queues to it.
func (w *world) exchange(broker int, name string, internal bool, queues ...string) {
	w.t.Helper()
	ch := w.channel(broker)
	if err := ch.ExchangeDeclare(name, amqp.ExchangeFanout, true, false, internal, false, nil); err != nil {
		w.t.Fatal(err)
	}
	for _, q := range queues {
		if err := ch.QueueBind(q, "", name, false, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := ch.Close(); err != nil {
		w.t.Error(err)
	}
}

// Each message that cannot be delivered stands between two that can, in one transaction and
// in one lane.
func TestH05AndR01AndR02AndR03UndeliverableMessagesBecomeDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exchange(1, "open", false, "q")
	w.exchange(1, "forbidden", false, "q")
	w.exchange(1, "hidden", true, "q")
	user := w.limitedUser(`^(open|hidden|amq\.default|unbound)$`)
	d := w.start()

	forged := func(fields string) string { // an envelope that amqp.publish would not write
		return `select pg_logical_emit_message(true, 'amqp', '\x017000000001'::bytea || ` + fields + ` || '\x00000000'::bytea || 'bad')`
	}
	for i, c := range []struct {
		statement     string
		reason        string
		code          int // 0: the broker was not asked
		text          string
		broker        int // 0: not known
		exchange, key string
	}{
		{`select amqp.publish(1, '', 'no queue', 'bad')`, "unroutable", 312, `^NO_ROUTE$`, 1, "", "no queue"},
		{`select amqp.publish(1, 'missing', 'k', 'bad')`, "not_found", 404, `^NOT_FOUND - no exchange 'missing' in vhost '` + w.vhosts[0] + `'$`, 1, "missing", "k"},
		{`select amqp.autonomous_publish(1, 'missing', 'k', 'bad')`, "not_found", 404, `no exchange 'missing'`, 1, "missing", "k"},
		{`select amqp.publish(1, 'forbidden', 'k', 'bad')`, "access_refused", 403, `^ACCESS_REFUSED - .*'forbidden'.*` + user, 1, "forbidden", "k"},
		{`select amqp.publish(1, 'hidden', 'k', 'bad')`, "access_refused", 403, `internal exchange 'hidden'`, 1, "hidden", "k"},
		{`select amqp.publish(1, '', 'q', 'bad', user_id => 'someone')`, "precondition_failed", 406, `user_id.*'someone'.*'` + user + `'`, 1, "", "q"},
		{`select amqp.publish(1, '', 'q', 'bad', headers => jsonb_build_object('h', repeat('x', 150000)))`, "too_large", 0, `131064 bytes`, 1, "", "q"},
		{`select pg_logical_emit_message(true, 'amqp', 'bad')`, "undecodable", 0, `^read envelope: 3 bytes are too short$`, 0, "", ""},
		{`select pg_logical_emit_message(false, 'amqp', '\xff'::bytea || 'bad')`, "undecodable", 0, `.`, 0, "", ""},
		{forged(`'\x7000000333303078000001'::bytea || 'x'`), "invalid", 0, `priority is "300"`, 1, "x", ""},
		{forged(`'\x7a00000131'::bytea`), "undecodable", 0, `field 'z' is not known; a newer pgamqp may read it`, 0, "", ""},
		{
			`with b as (insert into amqp.broker (broker_id, host) values (77, 'nowhere') returning 1) select 1 from b;
			 select amqp.publish(77, '', 'q', 'bad'); delete from amqp.broker where broker_id = 77`,
			"unknown_broker", 0, `broker_id 77`, 77, "", "q",
		},
	} {
		before, behind := fmt.Sprintf("before %d", i), fmt.Sprintf("behind %d", i)
		conn := w.connect()
		run(t, conn, `begin`)
		run(t, conn, `select amqp.publish(1, '', 'q', $1)`, before)
		for statement := range strings.SplitSeq(c.statement, ";") {
			run(t, conn, statement)
		}
		run(t, conn, `select amqp.publish(1, 'open', '', $1)`, behind)
		run(t, conn, `commit`)

		compare([]string{before, behind}, w.received(1, "q")).wantExact(t)
		letters := w.letters()
		if len(letters) != i+1 {
			t.Fatalf("%s: there are %d dead letters, want one more than %d", c.statement, len(letters), i)
		}
		l := letters[i]
		if l.Reason != c.reason || orZero(l.Code) != c.code || !regexp.MustCompile(c.text).MatchString(orZero(l.Text)) {
			t.Errorf("%s: the dead letter says %s, %d, %q; want %s, %d, %q",
				c.statement, l.Reason, orZero(l.Code), orZero(l.Text), c.reason, c.code, c.text)
		}
		if orZero(l.Broker) != c.broker || orZero(l.Exchange) != c.exchange || orZero(l.RoutingKey) != c.key {
			t.Errorf("%s: the dead letter is for broker %d, exchange %q, routing key %q",
				c.statement, orZero(l.Broker), orZero(l.Exchange), orZero(l.RoutingKey))
		}
		if !bytes.HasSuffix(l.Body, []byte("bad")) {
			t.Errorf("%s: the dead letter's body is %.100q", c.statement, l.Body)
		}
		if l.Origin == "" || orZero(l.MessageID) != l.Origin {
			t.Errorf("%s: the dead letter has origin %q, message_id %q", c.statement, l.Origin, orZero(l.MessageID))
		}
		if n := d.metric("pgamqp_dead_lettered_messages_total", `reason="`+c.reason+`"`); n < 1 {
			t.Errorf("%s: the metric of dead letters because of %s is %v", c.statement, c.reason, n)
		}
	}
}

func orZero[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

func TestDeadLetterTellsAllThatIsKnownOfItsMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	role := w.database + "_app"
	w.exec(`create role ` + role + ` login in role pgamqp_publisher`)
	t.Cleanup(func() { w.exec(`drop role ` + role) })
	w.start()
	run(t, w.connectAs(role), `select amqp.publish(1, 'missing', 'k', 'a body', 1, 'text/plain', 'r', 'c', '{"a": {"$int8": 1}}',
		'my id', 7, '1000', 't', 'a', null, 'gzip', '2023-11-14 22:13:20+00', false)`)
	w.waitDelivered()
	all := w.letters()
	if len(all) != 1 {
		t.Fatalf("%d dead letters", len(all))
	}
	l := all[0]
	if orZero(l.MessageID) != "my id" || l.Origin == "my id" || l.Kind != "publish" || orZero(l.Role) != role || string(l.Body) != "a body" {
		t.Errorf("the dead letter is %+v", l)
	}
	if orZero(l.Headers) != `{"a": {"$int8": 1}}` {
		t.Errorf("its headers are %s", orZero(l.Headers))
	}
	want := `{"type": "t", "flags": "u", "app_id": "a", "priority": "7", "reply_to": "r", "timestamp": "1700000000", "expiration": "1000", ` +
		`"message_id": "my id", "content_type": "text/plain", "delivery_mode": "1", "correlation_id": "c", "content_encoding": "gzip"}`
	if orZero(l.Properties) != want {
		t.Errorf("its properties are %s", orZero(l.Properties))
	}
}

func TestR04MessageThatNeedNotBeRoutedIsNoDeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.start()
	w.exec(`select amqp.publish(1, '', 'no queue', 'gone', mandatory => false)`)
	w.exec(`select amqp.publish(1, 'amq.topic', 'nobody', 'gone', mandatory => false)`)
	w.waitDelivered()
	if n := w.deadLetters(); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}
