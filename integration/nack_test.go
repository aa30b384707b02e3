package integration

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A broker nacks a message that one of its queues refuses, also if others have taken it.
func TestR09FullQueueIsWaitedForWhileItsTwinGetsRepetitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "open")
	declare(t, w.channel(1), amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"}, "full")
	w.exchange(1, "e", false, "open", "full")
	d := w.start()
	w.exec(`select amqp.publish(1, 'e', '', 'good 1')`)
	w.waitDelivered()
	w.exec(`select amqp.publish(1, 'e', '', 'good ' || n) from generate_series(2, 5) n`)
	await(t, startLimit, "a message is sent again and again", func() bool {
		return d.reading("pgamqp_publish_retries_total", `reason="nacked"`) > 5
	})
	full := w.consume(1, "full") // makes room, one by one
	w.waitDelivered()
	compare(good(5), full.next(5)).wantExact(t)
	twin := compare(good(5), w.received(1, "open"))
	twin.wantComplete(t)
	if len(twin.repeated) == 0 {
		t.Error("the open queue got each message once, as if the full one had not refused any")
	}
	if n := w.deadLetters(); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}
