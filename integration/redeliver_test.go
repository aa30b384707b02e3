package integration

import (
	"slices"
	"testing"
)

// After the cause is mended, a dead letter arrives as the message that it was.
func TestRedeliveryBringsTheMessageUnderItsFirstID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exchange(1, "forbidden", false, "q")
	user := w.limitedUser(`^(amq\.default|later)$`)
	d := w.start()
	for _, c := range []struct {
		reason, statement string
		mend              func()
		queue             string
	}{
		{
			"unroutable", `select amqp.publish(1, '', 'new', $1, headers => '{"a": {"$int8": 1}}', priority => 7)`,
			func() { w.queue(1, "new") }, "new",
		},
		{
			"not_found", `select amqp.autonomous_publish(1, 'later', '', $1, headers => '{"a": {"$int8": 1}}', priority => 7)`,
			func() { w.exchange(1, "later", false, "q") }, "q",
		},
		{
			"access_refused", `select amqp.publish(1, 'forbidden', '', $1, headers => '{"a": {"$int8": 1}}', priority => 7)`,
			func() { w.allow(user, ".*") }, "q",
		},
		{
			"unknown_broker", `do $$ begin
				insert into amqp.broker (broker_id, host) values (7, 'nowhere');
				perform amqp.publish(7, '', 'q', 'a body', headers => '{"a": {"$int8": 1}}', priority => 7);
				delete from amqp.broker where broker_id = 7; end $$`,
			func() {
				w.exec(`insert into amqp.broker select 7, host, port, vhost from amqp.broker where broker_id = 1`)
				d.waitLog(`msg="connected to broker" broker=7`)
			}, "q",
		},
	} {
		if c.reason == "unknown_broker" {
			w.exec(c.statement)
		} else {
			w.exec(c.statement, "a body")
		}
		w.waitDelivered()
		all := w.letters()
		if len(all) != 1 || all[0].Reason != c.reason {
			t.Fatalf("%s: the dead letters are %+v", c.reason, all)
		}
		c.mend()

		w.script(`begin`, `select amqp.redeliver(id) from amqp.dead_letter`, `rollback`)
		if got := w.letters(); len(got) != 1 || got[0].ID != all[0].ID {
			t.Errorf("%s: after a redelivery that was rolled back the dead letters are %+v", c.reason, got)
		}
		if !value[bool](w, `select amqp.redeliver($1)`, all[0].ID) {
			t.Errorf("%s: redeliver says that there is no such dead letter", c.reason)
		}
		got := w.received(1, c.queue)
		if len(got) != 1 {
			t.Fatalf("%s: %d messages came after the redelivery", c.reason, len(got))
		}
		m := got[0]
		if m.MessageId != all[0].Origin || string(m.Body) != "a body" || m.Priority != 7 || m.Headers["a"] != int8(1) {
			t.Errorf("%s: it came as %+v, its first id was %s", c.reason, m, all[0].Origin)
		}
		if n := w.deadLetters(); n != 0 {
			t.Errorf("%s: %d dead letters after the redelivery", c.reason, n)
		}
		if value[bool](w, `select amqp.redeliver($1)`, all[0].ID) {
			t.Errorf("%s: it can be redelivered once more", c.reason)
		}
	}
}

func TestRedeliveryThatFailsAgainIsTheSameDeadLetter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "other")
	w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'a')`)
	w.waitDelivered()
	before := w.letters()
	for range 3 {
		w.exec(`select amqp.redeliver(id) from amqp.dead_letter`)
		w.waitDelivered()
		again := w.letters()
		if len(again) != 1 || again[0].Origin != before[0].Origin || orZero(again[0].MessageID) != before[0].Origin {
			t.Fatalf("the dead letter was %+v, is %+v", before, again)
		}
	}
	w.queue(1, "q")
	w.exec(`select amqp.redeliver(id) from amqp.dead_letter`)
	if got := w.received(1, "q"); len(got) != 1 || got[0].MessageId != before[0].Origin {
		t.Errorf("what came is %+v, its first id was %s", got, before[0].Origin)
	}
}

func TestRedeliverAllSendsWhatMatchesInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{brokers: 2})
	w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'a'), amqp.publish(1, 'e', '', 'b'), amqp.publish(2, '', 'q', 'c'),
	               amqp.publish(1, '', 'q', 'd', message_id => 'mine'), amqp.publish(1, '', 'q', 'e')`)
	w.waitDelivered()
	// The two brokers bury side by side.
	if got := query[string](w, `select convert_from(body, 'UTF8') from amqp.dead_letter order by broker_id, id`); !slices.Equal(got, []string{"a", "b", "d", "e", "c"}) {
		t.Fatalf("the dead letters are %q", got)
	}
	for broker := 1; broker <= 2; broker++ {
		w.queue(broker, "q")
		w.exchange(broker, "e", false, "q")
	}
	redeliver := func(arguments string, want int64) {
		t.Helper()
		if n := value[int64](w, `select amqp.redeliver_all(`+arguments+`)`); n != want {
			t.Errorf("redeliver_all(%s) is %d, want %d", arguments, n, want)
		}
	}
	redeliver(`reason => 'nacked'`, 0)
	redeliver(`1, 'unroutable', max_messages => 2`, 2)
	if got := w.received(1, "q"); !slices.Equal(bodies(got), []string{"a", "d"}) || got[1].MessageId != "mine" {
		t.Errorf("what came is %+v", got)
	}
	redeliver(`exchange => 'e'`, 1)
	redeliver(``, 2)
	redeliver(``, 0)
	if got := bodies(w.received(1, "q")); !slices.Equal(got, []string{"b", "e"}) {
		t.Errorf("%q came to broker 1", got)
	}
	if got := bodies(w.received(2, "q")); !slices.Equal(got, []string{"c"}) {
		t.Errorf("%q came to broker 2", got)
	}
}

// What was written by a newer version, or by nobody, is kept byte by byte.
func TestUndecodableMessageIsKeptAsItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.start()
	content := []byte{3, 'p', 0, 255, 'x', 0}
	w.exec(`select pg_logical_emit_message(true, 'amqp', $1::bytea)`, content)
	for range 2 {
		w.waitDelivered()
		if got := query[[]byte](w, `select head || body from amqp.dead_letter`); len(got) != 1 || !slices.Equal(got[0], content) {
			t.Fatalf("the dead letters hold %q, want %q", got, content)
		}
		w.exec(`select amqp.redeliver(id) from amqp.dead_letter`)
	}
}
