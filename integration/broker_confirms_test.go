package integration

import (
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What a queue throws away it has taken first: RabbitMQ confirms it, and nobody can tell the
// difference. The operator decides that with the queue.
func TestR10QueueMayThrowAwayWhatItHasConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	ch := w.channel(1)
	for name, arguments := range map[string]amqp.Table{
		"one": {"x-max-length": 1},  // drop-head, by default
		"old": {"x-message-ttl": 0}, // expires at once without a consumer
	} {
		if _, err := ch.QueueDeclare(name, true, false, false, false, arguments); err != nil {
			t.Fatal(err)
		}
	}
	d := w.start()
	w.exec(`select amqp.publish(1, '', q, 'good ' || n) from generate_series(1, 4) n, (values ('one'), ('old')) v(q)`)
	w.waitDelivered()
	if n := d.confirmed(); n != 8 {
		t.Errorf("%v messages are confirmed, want 8", n)
	}
	if n := w.deadLetters(); n != 0 {
		t.Errorf("%d dead letters", n)
	}
	for queue, want := range map[string]int{"one": 1, "old": 0} {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if q.Messages != want {
			t.Errorf("queue %s holds %d messages, want %d", queue, q.Messages, want)
		}
	}
	for delivery, ok, err := ch.Get("one", true); ok; delivery, ok, err = ch.Get("one", true) {
		if err != nil || string(delivery.Body) != "good 4" {
			t.Errorf("%q is left, %v", delivery.Body, err)
		}
	}
}

// One at a time, each message would take a round trip. The window is what may come twice, and what is
// under way at once.
func TestR38ConfirmsArePipelined(t *testing.T) {
	t.Parallel()
	const (
		messages = 2000
		latency  = 20 * time.Millisecond // each way
		alone    = messages * 2 * latency
	)
	w, p := behindProxy(t)
	d := w.start()
	w.exec(`select amqp.publish(1, '', 'q', 'first')`)
	w.waitDelivered()
	p.delay(latency)
	began := time.Now()
	w.exec(`select amqp.publish(1, '', 'q', 'good ' || n) from generate_series(1, $1) n`, messages)
	w.waitDelivered()
	took := time.Since(began)
	t.Logf("%d messages over a network with %s of latency took %s; one at a time they would take %s", messages, latency, took.Round(time.Millisecond), alone)
	if took > alone/8 {
		t.Errorf("%d messages took %s", messages, took)
	}
	if mean := d.metric("pgamqp_publish_confirm_seconds_sum") / d.metric("pgamqp_publish_confirm_seconds_count"); mean < latency.Seconds() {
		t.Errorf("by the metric, a confirm took %vs on average, with a latency of %s", mean, latency)
	}
	got := w.received(1, "q")
	if first := bodies(got[:1]); !slices.Equal(first, []string{"first"}) {
		t.Errorf("first came %q", first)
	}
	compare(good(messages), got[1:]).wantExact(t)
}

// A transaction with messages to two brokers is one unit for PostgreSQL, and two parts for the
// brokers. While a process lives it knows which part is done.
func TestR39OnlyTheBrokerThatMissesItsPartIsSentAgain(t *testing.T) {
	t.Parallel()
	const each = 50
	w := newWorld(t, worldOptions{brokers: 2})
	w.queue(1, "q")
	w.queue(2, "q")
	p := startProxy(t, w.rabbit.Addr())
	w.exec(`update amqp.broker set port = $1 where broker_id = 2`, p.port())
	d := w.start()
	publish := func(from int) {
		t.Helper()
		w.exec(`select amqp.publish(b, '', 'q', 'good ' || n) from generate_series($1::int, $2) n, generate_series(1, 2) b`, from, from+each-1)
	}
	d.waitConnected(2)
	goroutines := d.metric("go_goroutines")
	firstPart := func(d *daemon, n float64) {
		t.Helper()
		await(t, startLimit, "the first broker has its part", func() bool { return d.confirmed(`broker="1"`) == n })
		if value[bool](w, `select amqp.wait_delivered("timeout" => '500ms')`) {
			t.Error("the transaction counts as delivered, and one broker has nothing of it")
		}
	}

	p.refuse() // down before the second broker gets anything
	publish(1)
	firstPart(d, each)
	p.accept()
	w.waitDelivered()

	p.freeze() // and lost with the second part in flight, which it then may get twice
	publish(1 + each)
	firstPart(d, 2*each)
	p.cut()
	p.thaw()
	w.waitDelivered()
	compare(good(2*each), w.received(1, "q")).wantExact(t)
	compare(good(2*each), w.received(2, "q")).wantComplete(t)
	checkGoroutines(t, d, goroutines)

	// The next process knows what PostgreSQL knows: the transaction is not done.
	p.refuse()
	publish(1)
	firstPart(d, 3*each)
	d.kill()
	d = w.start()
	firstPart(d, each)
	p.accept()
	again := compare(good(each), w.received(1, "q"))
	again.wantComplete(t) // under the same message_id
	if n := len(again.repeated); n != each {
		t.Errorf("%d messages came again to the broker that had them, want %d", n, each)
	}
	compare(good(each), w.received(2, "q")).wantExact(t)
	w.checkLeftovers(d)
}
