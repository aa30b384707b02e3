package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// holdLimit is how soon a held message goes once the broker takes it: it is tried at least
// every five seconds. The rest is for a busy machine.
const holdLimit = 20 * time.Second

// awaitHeld waits until a broker's lane is held up.
func (d *daemon) awaitHeld(broker int) {
	d.t.Helper()
	await(d.t, startLimit, "a message is held", func() bool {
		return d.shows(fmt.Sprintf(`pgamqp_broker_holding{broker="%d"} 1`, broker))
	})
}

// shows tells whether /metrics has a line now; the series may not be there yet.
func (d *daemon) shows(line string) bool {
	_, text := d.get("/metrics")
	return strings.Contains(text, line+"\n")
}

// delivered tells whether all that was committed is, without waiting for long.
func (w *world) delivered() bool {
	w.t.Helper()
	return value[bool](w, `select amqp.wait_delivered("timeout" => '300ms')`)
}

func TestR01AndR02AndR04HeldMessageKeepsItsPlaceUntilTheCauseIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exchange(1, "forbidden", false, "q")
	user := w.limitedUser(`^amq\.default$`)
	w.exec(`update amqp.broker set on_reject = 'hold'`)
	d := w.start()
	for _, c := range []struct{ bad, why, mend string }{
		{`select amqp.publish(1, 'missing', '', 'bad')`, "no exchange 'missing'", "exchange"},
		{`select amqp.publish(1, 'forbidden', '', 'bad')`, "'forbidden'", "permission"},
		{`select amqp.publish(1, '', 'later', 'bad')`, "NO_ROUTE", "queue"},
	} {
		w.exec(`select amqp.publish(1, '', 'q', 'before')`)
		w.exec(c.bad)
		d.awaitHeld(1)
		w.exec(`select amqp.publish(1, '', 'q', 'behind ' || n) from generate_series(1, 100) n`)
		d.waitLog(c.why)
		if w.delivered() {
			t.Errorf("%s: delivered", c.bad)
		}
		if got := bodies(w.take(1, "q")); !slices.Equal(got, []string{"before"}) {
			t.Errorf("%s: %q came although it is held", c.bad, got)
		}
		if code := d.stop(); code != 0 { // a restart changes nothing
			t.Errorf("exit code %d", code)
		}
		d = w.start()
		d.awaitHeld(1)

		switch c.mend {
		case "exchange":
			w.exchange(1, "missing", false, "q")
			w.allow(user, `^(amq\.default|missing)$`)
		case "permission":
			w.allow(user, `^(amq\.default|forbidden)$`)
		case "queue":
			w.queue(1, "later")
		}
		began := time.Now()
		await(t, holdLimit, "delivered after the cause is gone", w.delivered)
		t.Logf("%s: all was delivered %s after the cause was gone", c.mend, time.Since(began).Round(time.Millisecond))
		var want []string
		if c.mend != "queue" {
			want = append(want, "bad")
		} else if got := bodies(w.take(1, "later")); !slices.Equal(got, []string{"bad"}) {
			t.Errorf("%q came", got)
		}
		for n := range 100 {
			want = append(want, fmt.Sprint("behind ", n+1))
		}
		compare(want, w.received(1, "q")).wantExact(t)
		if d.metric("pgamqp_broker_holding", `broker="1"`) != 0 {
			t.Error("by the metric, something is still held")
		}
	}
	if all := w.letters(); len(all) > 0 {
		t.Errorf("the dead letters are %+v", all)
	}
}

// The change stands in the stream behind more than the window holds, and is seen all the same.
func TestChangedPolicyFreesABrokerThatIsHeldUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exec(`update amqp.broker set on_reject = 'hold'`)
	d := w.start("--window-messages", "10")
	w.exec(`select amqp.publish(1, 'missing', '', 'bad')`)
	d.awaitHeld(1)
	w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series(1, 100) n`)
	d.waitLog("broker gets no messages until it takes this one")
	w.exec(`update amqp.broker set on_reject = 'dead_letter'`)
	await(t, holdLimit, "delivered after the change", w.delivered)
	compare(good(100), w.received(1, "q")).wantExact(t)
	if all := w.letters(); len(all) != 1 || all[0].Reason != "not_found" || string(all[0].Body) != "bad" {
		t.Errorf("the dead letters are %+v", all)
	}
}

func TestPolicyHoldsForWhatIsPublishedAfterItsChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	d := w.start()
	d.waitLog("connected to broker") // what a broker that is down has not taken follows the newest policy
	conn := w.connect()
	const rounds = 10
	for n := range rounds {
		run(t, conn, `update amqp.broker set on_reject = 'dead_letter'`)
		run(t, conn, `select amqp.publish(1, 'missing', '', 'kept ' || $1::int)`, n)
		w.waitDelivered() // the daemon reads the newest definition, so it must not be far behind
		run(t, conn, `update amqp.broker set on_reject = 'drop'`)
		run(t, conn, `select amqp.publish(1, 'missing', '', 'dropped ' || $1::int)`, n)
		w.waitDelivered()
	}
	var got, want []string
	for _, l := range w.letters() {
		got = append(got, string(l.Body))
	}
	for n := range rounds {
		want = append(want, fmt.Sprint("kept ", n))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the dead letters are %q, want %q", got, want)
	}
}

func TestR01AndR03AndR04AndR27DroppedMessagesAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	w.exchange(1, "hidden", true, "q")
	w.exec(`update amqp.broker set on_reject = 'drop'`)
	d := w.start()
	for reason, bad := range map[string]string{
		"not_found":           `select amqp.publish(1, 'missing', '', 'bad')`,
		"access_refused":      `select amqp.publish(1, 'hidden', '', 'bad')`,
		"unroutable":          `select amqp.publish(1, '', 'no queue', 'bad')`,
		"precondition_failed": `select amqp.publish(1, '', 'q', 'bad', user_id => 'someone')`,
		"too_large":           `select amqp.publish(1, '', 'q', 'bad', headers => jsonb_build_object('h', repeat('x', 150000)))`,
	} {
		w.publishAround(bad)
		compare(good(1000), w.received(1, "q")).wantExact(t)
		if n := d.metric("pgamqp_dropped_messages_total", `broker="1"`, `reason="`+reason+`"`); n != 1 {
			t.Errorf("%s: %v messages are counted as dropped", reason, n)
		}
	}
	d.waitLog("dropped what the broker will not take")
	if n := strings.Count(d.log.String(), "dropped what the broker will not take"); n > 5 {
		t.Errorf("%d lines in the log", n)
	}
	if all := w.letters(); len(all) > 0 {
		t.Errorf("the dead letters are %+v", all)
	}
}

// The row's limit counts, not the daemon's.
func TestFullQueueIsWaitedForAsTheBrokersRowSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "q")
	ch := w.channel(1)
	if _, err := ch.QueueDeclare("full", true, false, false, false, amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
	w.exec(`update amqp.broker set retry_timeout = '1 s'`)
	d := w.start("--nack-retry-timeout", "10m")
	w.exec(`select amqp.publish(1, '', 'full', 'takes the room')`)
	w.waitDelivered()
	began := time.Now()
	w.exec(`select amqp.publish(1, '', 'full', 'given up')`)
	w.waitDelivered()
	if took := time.Since(began); took < time.Second {
		t.Errorf("given up after %s", took)
	}
	if all := w.letters(); len(all) != 1 || all[0].Reason != "nacked" || orZero(all[0].Text) != "the broker could not take the message for 1s" {
		t.Errorf("the dead letters are %+v", all)
	}
	w.exec(`update amqp.broker set on_reject = 'hold'`)
	w.exec(`select amqp.publish(1, '', 'full', 'waits')`)
	d.awaitHeld(1)
	w.exec(`select amqp.publish(1, '', 'q', 'behind')`)
	if w.delivered() {
		t.Error("delivered into a full queue")
	}
	if _, err := ch.QueuePurge("full", false); err != nil {
		t.Fatal(err)
	}
	await(t, holdLimit, "delivered after there is room", w.delivered)
	for queue, want := range map[string]string{"full": "waits", "q": "behind"} {
		if d, ok, err := ch.Get(queue, true); err != nil || !ok || string(d.Body) != want {
			t.Errorf("queue %s has %q, %v, %v; want %s", queue, d.Body, ok, err, want)
		}
	}
	if n := w.deadLetters(); n != 1 {
		t.Errorf("%d dead letters", n)
	}
}
