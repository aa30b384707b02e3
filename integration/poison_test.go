package integration

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// good is n bodies, some before the bad message and some behind it.
func good(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("good %d", i+1)
	}
	return all
}

// publishAround publishes 1000 good messages to queue q and executes a statement in their
// midst, all in one transaction.
func (w *world) publishAround(statement string, args ...any) {
	w.t.Helper()
	const half = `select amqp.publish(1, '', 'q', 'good ' || n) from generate_series($1::int, $2) n`
	conn := w.connect()
	run(w.t, conn, `begin`)
	run(w.t, conn, half, 1, 500)
	run(w.t, conn, statement, args...)
	run(w.t, conn, half, 501, 1000)
	run(w.t, conn, `commit`)
}

// What may be refused goes alone, so that its refusal takes the verdict of no other message
// along: not the first time, and not once it is known.
func TestR01AndR02AndR03AndR04AndR27BadMessageAmongAThousandRepeatsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exchange(1, "forbidden", false, "q")
	w.exchange(1, "hidden", true, "q")
	w.limitedUser(`^(amq\.default|hidden)$`)
	w.start()
	letters := 0
	for range 2 {
		for _, c := range []struct{ statement, reason string }{
			{`select amqp.publish(1, 'missing', '', 'bad')`, "not_found"},
			{`select amqp.publish(1, 'forbidden', '', 'bad')`, "access_refused"},
			{`select amqp.publish(1, 'hidden', '', 'bad')`, "access_refused"},
			{`select amqp.publish(1, '', 'no queue', 'bad')`, "unroutable"},
			{`select amqp.publish(1, '', 'q', 'bad', user_id => 'someone')`, "precondition_failed"},
			{`select pg_logical_emit_message(true, 'amqp', 'bad')`, "undecodable"},
		} {
			w.publishAround(c.statement)
			compare(good(1000), w.received(1, "q")).wantExact(t)
			letters++
			if all := w.letters(); len(all) != letters || all[letters-1].Reason != c.reason {
				t.Errorf("%s: the dead letters are %+v", c.statement, all)
			}
		}
	}
}

// A channel that the broker closes takes along the verdicts of all that is in flight, and
// these come again: what no longer holds of an exchange cannot be known before. That is at
// most a window, and only once.
func TestR01AndR03ExchangeThatTurnsBadRepeatsAtMostOneWindow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	const window = 100
	w.start("--window-messages", strconv.Itoa(window))
	remove := func() {
		t.Helper()
		if err := w.rabbit.DeleteExchange(withDeadline(t, sqlLimit), w.vhosts[0], "e"); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []struct {
		turn   func()
		reason string
	}{
		{remove, "not_found"},
		{func() { remove(); w.exchange(1, "e", true, "q") }, "access_refused"}, // an internal one
	} {
		w.exchange(1, "e", false, "q")
		w.exec(`select amqp.publish(1, 'e', '', 'while it works')`)
		compare([]string{"while it works"}, w.received(1, "q")).wantExact(t)
		c.turn()
		w.publishAround(`select amqp.publish(1, 'e', '', 'bad')`)
		got := compare(good(1000), w.received(1, "q"))
		got.wantComplete(t)
		t.Logf("%s: %d messages came twice", c.reason, len(got.repeated))
		if len(got.repeated) > window {
			t.Errorf("%s: %d messages came twice, the window is %d", c.reason, len(got.repeated), window)
		}
		w.publishAround(`select amqp.publish(1, 'e', '', 'bad again')`)
		compare(good(1000), w.received(1, "q")).wantExact(t)
		all := w.letters()
		if len(all) != 2*(i+1) || all[2*i].Reason != c.reason || string(all[2*i].Body) != "bad" || string(all[2*i+1].Body) != "bad again" {
			t.Errorf("the dead letters are %+v", all)
		}
	}
}

func TestBodyThatIsTooLargeForTheBrokerLosesNoMessageOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.start()
	w.publishAround(`select amqp.publish(1, '', 'q', $1::bytea)`, make([]byte, maxMessageSize+1))
	c := compare(good(1000), w.received(1, "q"))
	c.wantComplete(t)
	t.Logf("%d messages came twice", len(c.repeated))
	all := query[string](w, `select format('%s %s %s', reason, reply_code, reply_text) from amqp.dead_letter`)
	want := fmt.Sprintf("precondition_failed 406 PRECONDITION_FAILED - message size %d is larger than configured max size %d",
		maxMessageSize+1, maxMessageSize)
	if len(all) != 1 || all[0] != want {
		t.Errorf("the dead letters are %q, want %q", all, want)
	}
	if !value[bool](w, `select octet_length(body) = $1 from amqp.dead_letter`, maxMessageSize+1) {
		t.Error("the dead letter does not hold the whole body")
	}
}

func TestR09QueueThatRefusesForLongMakesDeadLettersInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	ch := w.channel(1)
	full := amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"}
	if _, err := ch.QueueDeclare("full", true, false, false, false, full); err != nil {
		t.Fatal(err)
	}
	w.start("--nack-retry-timeout", "1s")
	w.exec(`select amqp.publish(1, '', 'full', 'takes the room')`)
	w.waitDelivered()
	began := time.Now()
	conn := w.connect()
	run(t, conn, `begin`)
	run(t, conn, `select amqp.publish(1, '', 'q', 'good 1')`)
	run(t, conn, `select amqp.publish(1, '', 'full', 'bad ' || n) from generate_series(1, 3) n`)
	run(t, conn, `select amqp.publish(1, '', 'q', 'good 2')`)
	run(t, conn, `commit`)
	compare(good(2), w.received(1, "q")).wantComplete(t)
	if took := time.Since(began); took < time.Second {
		t.Errorf("the daemon gave up after %s, earlier than it should", took)
	}
	all := w.letters()
	for i, l := range all {
		if l.Reason != "nacked" || string(l.Body) != fmt.Sprintf("bad %d", i+1) {
			t.Errorf("dead letter %d is %+v", i+1, l)
		}
	}
	if len(all) != 3 {
		t.Errorf("%d dead letters, want 3", len(all))
	}
	if got := bodies(w.take(1, "full")); len(got) != 1 || got[0] != "takes the room" {
		t.Errorf("the full queue holds %q", got)
	}
}
