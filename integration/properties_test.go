package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	amqp "github.com/rabbitmq/amqp091-go"
)

// seen is what a consumer sees of a message, without what the connection adds.
func seen(d amqp.Delivery) amqp.Delivery {
	d.Acknowledger, d.ConsumerTag, d.DeliveryTag, d.MessageCount = nil, "", 0, 0
	return d
}

func difference(want, got amqp.Delivery) string {
	return cmp.Diff(want, seen(got), cmpopts.EquateEmpty())
}

func TestEveryPropertyArrivesAsItWasGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	full := amqp.Delivery{
		RoutingKey: "q", Body: []byte("body"), DeliveryMode: amqp.Transient, ContentType: "text/plain; charset=utf-8",
		ReplyTo: "answers", CorrelationId: "c-1", MessageId: "m-1", Priority: 255, Expiration: "3600000", Type: "order.placed",
		AppId: "shop", UserId: "guest", ContentEncoding: "identity", Timestamp: time.Unix(1_700_000_000, 0),
		Headers: amqp.Table{"a": int64(1)},
	}
	long := strings.Repeat("ü", 127) + "x" // 255 bytes
	limits := amqp.Delivery{
		RoutingKey: "q", DeliveryMode: amqp.Persistent, ContentType: long, ReplyTo: long, CorrelationId: long,
		MessageId: long, Expiration: "4294967295", Type: long, AppId: long, ContentEncoding: long,
		Timestamp: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), Headers: amqp.Table{long: long},
	}
	for _, c := range []struct {
		name, call string
		args       []any
		want       amqp.Delivery
	}{
		{
			"by position",
			`(1, '', 'q', 'body', 1, 'text/plain; charset=utf-8', 'answers', 'c-1', '{"a": 1}', 'm-1', 255, '3600000', 'order.placed',
			  'shop', 'guest', 'identity', '2023-11-14 22:13:20.9+00', true)`,
			nil, full,
		},
		{
			"by name",
			`(broker_id => 1, exchange => '', routing_key => 'q', message => 'body', "timestamp" => '2023-11-14 23:13:20+01',
			  content_encoding => 'identity', user_id => 'guest', app_id => 'shop', type => 'order.placed', expiration => '3600000',
			  priority => 255, message_id => 'm-1', headers => '{"a": 1}', correlation_id => 'c-1', reply_to => 'answers',
			  content_type => 'text/plain; charset=utf-8', delivery_mode => 1)`,
			nil, full,
		},
		{
			"at their limits",
			`(1, '', 'q', '', 2, $1, $1, $1, jsonb_build_object($1::text, $1::text), $1, 0, '4294967295', $1, $1, null, $1,
			  '9999-12-31 23:59:59.999+00', true)`,
			[]any{long},
			limits,
		},
		{
			"nulls and empty texts are none", // as with pg_amqp, where the arguments were positional
			`(1, '', 'q', 'body', null, '', '', '', null, 'm-1', null, '', '', '', '', '', null, null)`,
			nil,
			amqp.Delivery{RoutingKey: "q", Body: []byte("body"), DeliveryMode: amqp.Persistent, MessageId: "m-1"},
		},
		{
			"a content type instead of that of jsonb",
			`(1, '', 'q', '[]'::jsonb, content_type => 'application/vnd.shop+json', message_id => 'm-1')`,
			nil,
			amqp.Delivery{
				RoutingKey: "q", Body: []byte("[]"), DeliveryMode: amqp.Persistent, MessageId: "m-1",
				ContentType: "application/vnd.shop+json",
			},
		},
		{
			"priority zero, time zero",
			`(1, '', 'q', 'body', message_id => 'm-1', priority => 0, expiration => '60000', "timestamp" => '1970-01-01 00:00:01+00')`,
			nil,
			amqp.Delivery{
				RoutingKey: "q", Body: []byte("body"), DeliveryMode: amqp.Persistent, MessageId: "m-1", Expiration: "60000",
				Timestamp: time.Unix(1, 0),
			},
		},
	} {
		for _, function := range []string{"publish", "autonomous_publish"} {
			w.exec(`select amqp.`+function+c.call, c.args...)
			got := w.received(1, "q")
			if len(got) != 1 {
				t.Errorf("%s %s: %d messages came", function, c.name, len(got))
				continue
			}
			if diff := difference(c.want, got[0]); diff != "" {
				t.Errorf("%s %s:\n%s", function, c.name, diff)
			}
		}
	}
}

func TestEveryTypeOfHeaderArrivesAsThatType(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	deep := `1`
	for range 15 {
		deep = `[` + deep + `]`
	}
	w.exec(`select amqp.publish(1, '', 'q', 'body', message_id => 'm-1', headers => $1::text::jsonb)`, `{
		"string": "Größe", "empty": "", "true": true, "false": false, "null": null,
		"zero": 0, "negative": -1, "beyond 32 bits": 5000000000, "lowest": -9223372036854775808, "highest": 9223372036854775807,
		"beyond 64 bits": 9223372036854775808, "fraction": 1.5, "whole fraction": 1.0, "power": 1e3, "tiny": 1e-300,
		"array": [1, "a", true, null, 2.5, [], {"k": {"$int8": 1}}], "empty array": [],
		"object": {"a": {"b": {"c": 1}}}, "empty object": {}, "two keys": {"$int8": 1, "b": 2},
		"int8": {"$int8": -128}, "uint8": {"$uint8": 255}, "int16": {"$int16": -32768}, "uint16": {"$uint16": 65535},
		"int32": {"$int32": -2147483648}, "uint32": {"$uint32": 4294967295}, "int64": {"$int64": -1},
		"float": {"$float": 1.5}, "double": {"$double": 0.1},
		"decimal": {"$decimal": "12.34"}, "negative decimal": {"$decimal": "-0.5"}, "whole decimal": {"$decimal": "7"},
		"seconds": {"$timestamp": 1700000000}, "date": {"$timestamp": "2023-11-14T23:13:20+01:00"},
		"bytes": {"$bytes": "AAH/"}, "no bytes": {"$bytes": ""}, "typed string": {"$string": "a"},
		"table": {"$table": {"$int8": 1}}, "depth": `+deep+`,
		"CC": ["nowhere"]
	}`)
	var bottom any = int64(1)
	for range 15 {
		bottom = []any{bottom}
	}
	when := time.Unix(1_700_000_000, 0)
	want := amqp.Delivery{
		RoutingKey: "q", Body: []byte("body"), DeliveryMode: amqp.Persistent, MessageId: "m-1",
		Headers: amqp.Table{
			"string": "Größe", "empty": "", "true": true, "false": false, "null": nil,
			"zero": int64(0), "negative": int64(-1), "beyond 32 bits": int64(5_000_000_000),
			"lowest": int64(-9223372036854775808), "highest": int64(9223372036854775807),
			"beyond 64 bits": 9223372036854775808.0, "fraction": 1.5, "whole fraction": 1.0,
			"power": int64(1000), // jsonb keeps no exponents
			"tiny":  1e-300,
			"array": []any{int64(1), "a", true, nil, 2.5, []any{}, amqp.Table{"k": int8(1)}}, "empty array": []any{},
			"object":       amqp.Table{"a": amqp.Table{"b": amqp.Table{"c": int64(1)}}},
			"empty object": amqp.Table{}, "two keys": amqp.Table{"$int8": int64(1), "b": int64(2)},
			"int8": int8(-128), "uint8": uint8(255), "int16": int16(-32768), "uint16": uint16(65535),
			"int32": int32(-2147483648), "uint32": uint32(4294967295), "int64": int64(-1),
			"float": float32(1.5), "double": 0.1,
			"decimal": amqp.Decimal{Scale: 2, Value: 1234}, "negative decimal": amqp.Decimal{Scale: 1, Value: -5},
			"whole decimal": amqp.Decimal{Value: 7},
			"seconds":       when, "date": when,
			"bytes": []byte{0, 1, 255}, "no bytes": []byte{}, "typed string": "a",
			"table": amqp.Table{"$int8": int64(1)}, "depth": bottom,
			"CC": []any{"nowhere"},
		},
	}
	got := w.received(1, "q")
	if len(got) != 1 {
		t.Fatalf("%d messages came", len(got))
	}
	if diff := difference(want, got[0]); diff != "" {
		t.Error(diff)
	}
}

func TestMessageIDNamesTheClusterTheTimelineAndThePosition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	form := regexp.MustCompile(`^` + value[string](w, `select system_identifier::text from pg_control_system()`) + `-1-([0-9A-F]+/[0-9A-F]+)$`)
	var before, after string
	for _, function := range []string{"publish", "autonomous_publish"} {
		before = value[string](w, `select pg_current_wal_insert_lsn()::text`)
		w.exec(`select amqp.` + function + `(1, '', 'q', g::text) from generate_series(1, 3) g`)
		after = value[string](w, `select pg_current_wal_insert_lsn()::text`)
		for _, m := range w.received(1, "q") {
			match := form.FindStringSubmatch(m.MessageId)
			if match == nil {
				t.Errorf("%s: message_id %q does not match %s", function, m.MessageId, form)
				continue
			}
			if !value[bool](w, `select $1::text::pg_lsn > $2::text::pg_lsn and $1::text::pg_lsn <= $3::text::pg_lsn`, match[1], before, after) {
				t.Errorf("%s: position %s is not between %s and %s", function, match[1], before, after)
			}
		}
	}
}

func TestH08HeadersAboutTheOriginAreThereWhenAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start("--pg-headers", "lsn,xid,commit_time,role")
	w.exec(`create role ` + w.database + `_app login in role pgamqp_publisher`)
	t.Cleanup(func() { w.exec(`drop role ` + w.database + `_app`) })
	conn := w.connectAs(w.database + "_app")
	run(t, conn, `begin`)
	run(t, conn, `select amqp.publish(1, '', 'q', 'a', headers => '{"mine": 1}')`)
	run(t, conn, `select amqp.autonomous_publish(1, '', 'q', 'b')`)
	var xid int64
	var now time.Time
	if err := conn.QueryRow(t.Context(), `select pg_current_xact_id()::text::bigint, now()`).Scan(&xid, &now); err != nil {
		t.Fatal(err)
	}
	run(t, conn, `commit`)
	got := w.received(1, "q")
	if len(got) != 2 {
		t.Fatalf("%d messages came", len(got))
	}
	autonomous, a := got[0], got[1]
	committed, err := time.Parse(time.RFC3339Nano, fmt.Sprint(a.Headers["x-pg-commit-time"]))
	if age := committed.Sub(now); err != nil || age < 0 || age > time.Minute {
		t.Errorf("x-pg-commit-time is %v; the transaction began at %s", a.Headers["x-pg-commit-time"], now)
	}
	delete(a.Headers, "x-pg-commit-time")
	want := amqp.Table{"mine": int64(1), "x-pg-lsn": lsnOf(a), "x-pg-xid": xid, "x-pg-role": w.database + "_app"}
	if diff := cmp.Diff(want, a.Headers); diff != "" {
		t.Errorf("headers of a message in a transaction:\n%s", diff)
	}
	want = amqp.Table{"x-pg-lsn": lsnOf(autonomous), "x-pg-role": w.database + "_app"}
	if diff := cmp.Diff(want, autonomous.Headers); diff != "" {
		t.Errorf("headers of an autonomous message:\n%s", diff)
	}
}

// lsnOf is the last part of a message_id.
func lsnOf(d amqp.Delivery) string { return d.MessageId[strings.LastIndexByte(d.MessageId, '-')+1:] }

// A trace that is begun in an application goes on at the consumer (W3C Trace Context), after a redelivery, too.
func TestHeadersOfATraceArriveUnchanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.start("--pg-headers", "lsn")
	const parent, state = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
	w.exec(`select amqp.publish(1, '', 'q', 'traced', headers => jsonb_build_object('traceparent', $1::text, 'tracestate', $2::text))`, parent, state)
	w.waitDelivered()
	w.queue(1, "q")
	w.exec(`select amqp.redeliver_all()`) // it was unroutable
	w.exec(`select amqp.publish(1, '', 'q', 'traced', headers => jsonb_build_object('traceparent', $1::text, 'tracestate', $2::text))`, parent, state)
	got := w.received(1, "q")
	if len(got) != 2 {
		t.Fatalf("%d messages came", len(got))
	}
	for _, m := range got {
		if m.Headers["traceparent"] != parent || m.Headers["tracestate"] != state {
			t.Errorf("headers %v", m.Headers)
		}
	}
}
