package integration

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const consumeLimit = 60 * time.Second

// consumer takes messages out of a queue as they come.
type consumer struct {
	t          *testing.T
	deliveries <-chan amqp.Delivery
}

func (w *world) consume(broker int, queue string) *consumer {
	w.t.Helper()
	return consumeOn(w.t, w.channel(broker), queue)
}

func consumeOn(t *testing.T, ch *amqp.Channel, queue string) *consumer {
	t.Helper()
	deliveries, err := ch.Consume(queue, "", true, false, false, false, nil)
	if err != nil {
		t.Fatalf("consume from %s: %v", queue, err)
	}
	return &consumer{t: t, deliveries: deliveries}
}

// next returns the next n messages and waits for them.
func (c *consumer) next(n int) []amqp.Delivery {
	c.t.Helper()
	return c.until(fmt.Sprintf("message %d", n), func(got []amqp.Delivery) bool { return len(got) == n })
}

// until collects until it has enough, or nothing has come for too long, which ends the test.
func (c *consumer) until(what string, enough func([]amqp.Delivery) bool) []amqp.Delivery {
	c.t.Helper()
	timer := time.NewTimer(consumeLimit)
	defer timer.Stop()
	var got []amqp.Delivery
	for !enough(got) {
		select {
		case d, ok := <-c.deliveries:
			if !ok {
				c.t.Fatalf("the broker has closed the consumer, after %d messages", len(got))
			}
			got = append(got, d)
			timer.Reset(consumeLimit)
		case <-timer.C:
			c.t.Fatalf("waited %s for %s; %d came, at last %.1000q", consumeLimit, what, len(got), bodies(got[max(0, len(got)-5):]))
		}
	}
	return got
}

//nolint:gochecknoglobals // marks must differ over all tests
var marks atomic.Int64

// received waits until all that was committed is delivered, and takes everything out of a
// queue, in order. No more than that has come, which is known without waiting for it: a mark
// that is put behind it ends the list.
func (w *world) received(broker int, queue string) []amqp.Delivery {
	w.t.Helper()
	w.waitDelivered()
	return w.take(broker, queue)
}

// take is received for a test that knows by itself when delivery is over.
func (w *world) take(broker int, queue string) []amqp.Delivery {
	w.t.Helper()
	ch := w.channel(broker)
	got := consumeOn(w.t, ch, queue).untilMark(w.mark(broker, queue))
	if err := ch.Close(); err != nil {
		w.t.Error(err)
	}
	return got
}

// mark puts a message behind all that is in a queue and returns its type.
func (w *world) mark(broker int, queue string) string {
	w.t.Helper()
	mark := fmt.Sprintf("mark %d", marks.Add(1))
	ch := w.channel(broker)
	if err := ch.Confirm(false); err != nil {
		w.t.Fatal(err)
	}
	ctx := withDeadline(w.t, consumeLimit)
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, amqp.Publishing{Type: mark})
	if err != nil {
		w.t.Fatal(err)
	}
	if ok, err := confirm.WaitContext(ctx); !ok {
		w.t.Fatalf("put a mark into queue %s: %v", queue, err)
	}
	return mark
}

// untilMark returns what comes before a mark.
func (c *consumer) untilMark(mark string) []amqp.Delivery {
	c.t.Helper()
	got := c.until("a mark", func(got []amqp.Delivery) bool {
		return len(got) > 0 && got[len(got)-1].Type == mark
	})
	return got[:len(got)-1]
}

// bodies returns the messages' bodies.
func bodies(got []amqp.Delivery) []string {
	all := make([]string, len(got))
	for i, d := range got {
		all[i] = string(d.Body)
	}
	return all
}
