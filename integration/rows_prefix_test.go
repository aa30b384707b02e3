package integration

import (
	"bytes"
	"fmt"
	"testing"
)

// TestWhatOthersEmitIsSentOn, under prefixes that routes are for, as bytes and with its transaction.
func TestWhatOthersEmitIsSentOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q", "signups")
	w.start()
	w.script(
		`select amqp.route_prefix('app.*', 1, '', 'q')`,
		`select amqp.route_prefix('app.signup', 1, '', 'signups')`,
		`select amqp.route_prefix('*', 1, '', '{prefix}')`,
		`select pg_logical_emit_message(true, 'app.signup', 'text')`,
		`select pg_logical_emit_message(true, 'app.', '\x00ff0d0a'::bytea)`,
		`select pg_logical_emit_message(true, 'other', 'to no queue')`,
		`begin; select pg_logical_emit_message(true, 'app.rolled back', 'never'); select pg_logical_emit_message(false, 'app.at once', 'stays'); rollback`,
		`begin; select pg_logical_emit_message(true, 'app.a', '1'); savepoint s; select pg_logical_emit_message(true, 'app.a', '2'); rollback to s;
			select amqp.publish(1, '', 'q', '3', message_id => 'three'); select pg_logical_emit_message(true, 'app.a', ''); commit`,
	)
	w.waitDelivered()
	var got []string
	ids := map[string]bool{}
	for _, m := range append(w.take(1, "q"), w.take(1, "signups")...) {
		got = append(got, fmt.Sprintf("%s %q %s", m.RoutingKey, m.Body, m.ContentType))
		ids[m.MessageId] = true
	}
	want := []string{
		`q "text" application/octet-stream`, `q "\x00\xff\r\n" application/octet-stream`, `q "stays" application/octet-stream`,
		`q "1" application/octet-stream`, `q "3" `, `q "" application/octet-stream`, `signups "text" application/octet-stream`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("there came\n%s\nwant\n%s", got, want)
	}
	if len(ids) != len(want) {
		t.Errorf("%d messages have %d ids", len(want), len(ids))
	}
	// Nothing is bound to the key other; the pattern * is for all that is not ours.
	letters := query[string](w, `select routing_key from amqp.dead_letter order by id`)
	if fmt.Sprint(letters) != "[app.signup app. other app.at%20once app.a app.a]" {
		t.Errorf("dead letters have keys %s", letters)
	}
	large := bytes.Repeat([]byte{0, 'x'}, 1<<20)
	w.exec(`select pg_logical_emit_message(true, 'app.large', $1::bytea)`, large)
	w.waitDelivered()
	if m := w.take(1, "q"); len(m) != 1 || !bytes.Equal(m[0].Body, large) {
		t.Errorf("%d messages of 2 MiB", len(m))
	}
}
