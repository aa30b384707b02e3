package integration

import (
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestGuideToQueuesHolds runs docs/guides/queues.md against a real RabbitMQ and looks at what each kind of queue does.
func TestGuideToQueuesHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.start()
	conn := w.connect()
	for _, b := range claimed(t, "docs/guides/queues.md") {
		runSQL(t, conn, b)
		w.waitDelivered()
		switch b.Section {
		case "Three kinds":
			types := map[string]string{}
			await(t, time.Minute, "the queues are there", func() bool {
				queues, err := w.rabbit.Queues(withDeadline(t, sqlLimit), w.vhosts[0])
				if err != nil {
					t.Fatal(err)
				}
				for _, q := range queues {
					types[q.Name] = q.Type
				}
				return len(types) == 3
			})
			if types["invoices"] != "classic" || types["payments"] != "quorum" || types["history"] != "stream" {
				t.Errorf("the queues are %v", types)
			}
		case "Full queues":
			w.wantBodies("small", "message 1", "message 2")
		case "Delivery limits":
			if n := w.giveBackUntilItFails("work", "failed"); n != 4 {
				t.Errorf("the message was delivered %d times, want one time and three again", n)
			}
		case "Streams":
			w.readStream("history", 7, "entry 7", "entry 8", "entry 9")
			w.readStream("history", "first", "entry 0", "entry 1")
		case "One consumer at a time":
			w.checkSingleActiveConsumer("ledger")
		case "Messages that nobody has asked for":
			w.wantBodies("unmatched", "goes to unmatched")
			w.wantBodies("failed", "goes to failed")
		case "Messages that expire, and messages that wait":
			ch := w.channel(1)
			if got := consumeOn(t, ch, "payments").next(1); string(got[0].Body) != "comes in a second" {
				t.Errorf("%q came", got[0].Body)
			}
			if err := ch.Close(); err != nil {
				t.Error(err)
			}
			w.wantBodies("invoices")
		case "Headers":
			w.wantBodies("payments", "matches", "to both")
			w.wantBodies("invoices", "to both")
		default:
			t.Errorf("%s: nobody looks at what comes of the section %q", b, b.Section)
		}
		if n := w.deadLetters(); n > 0 {
			t.Errorf("%s: %d dead letters", b, n)
		}
	}
}

// giveBackUntilItFails takes a message and gives it back until it comes out of another queue, and returns how often.
func (w *world) giveBackUntilItFails(queue, failed string) (deliveries int) {
	w.t.Helper()
	ch, other := w.channel(1), w.channel(1)
	work, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	out := consumeOn(w.t, other, failed)
	ctx := withDeadline(w.t, consumeLimit)
	for {
		select {
		case d := <-work:
			deliveries++
			if err := d.Nack(false, true); err != nil {
				w.t.Fatal(err)
			}
		case <-out.deliveries:
			_ = ch.Close()
			_ = other.Close()
			return deliveries
		case <-ctx.Done():
			w.t.Fatalf("after %d deliveries the message is not in queue %s", deliveries, failed)
		}
	}
}

// readStream reads a stream from an offset on, and checks what comes first.
func (w *world) readStream(stream string, offset any, want ...string) {
	w.t.Helper()
	ch := w.channel(1)
	if err := ch.Qos(len(want), 0, false); err != nil {
		w.t.Fatal(err)
	}
	deliveries, err := ch.Consume(stream, "", false, false, false, false, amqp.Table{"x-stream-offset": offset})
	if err != nil {
		w.t.Fatal(err)
	}
	got := bodies((&consumer{t: w.t, deliveries: deliveries}).next(len(want)))
	if !slices.Equal(got, want) {
		w.t.Errorf("from %v on the stream holds %q, want %q", offset, got, want)
	}
	_ = ch.Close()
}

// checkSingleActiveConsumer lets two consume from a queue that holds five messages: the second one gets nothing until
// the first one is gone.
func (w *world) checkSingleActiveConsumer(queue string) {
	w.t.Helper()
	ch := w.channel(1)
	first := consumeOn(w.t, ch, queue)
	first.next(5)
	second := w.consume(1, queue)
	w.exec(`select amqp.publish(1, '', $1, 'for the first') from generate_series(1, 4)`, queue)
	first.next(4)
	if err := ch.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.exec(`select amqp.publish(1, '', $1, 'for the second')`, queue)
	if got := second.next(1); string(got[0].Body) != "for the second" {
		w.t.Errorf("%q came to the second consumer", got[0].Body)
	}
}
