package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What pgamqp builds on, looked at without it: whatever a node had confirmed when it was killed is in its queues
// afterwards, and what is there is in the order of publishing. An earlier message that was not confirmed may be missing
// and a later one be there. These holes are counted only, as not every kill makes one; the comparison after random
// faults allows for them (round.crashedWith).
func TestR12KilledNodeKeepsWhatItConfirmed(t *testing.T) {
	t.Parallel()
	const kills = 2
	w := &world{t: t, rabbit: breakable(t), vhosts: []string{fmt.Sprintf("world_%d", worlds.Add(1))}}
	if err := w.rabbit.AddVHost(withDeadline(t, sqlLimit), w.vhosts[0]); err != nil {
		t.Fatal(err)
	}
	quorum := amqp.Table{"x-queue-type": "quorum"}
	rounds := make([][]*killedQueue, kills)
	for i := range rounds { // each has its own queues: what was taken out of one may be back after the next kill
		for _, q := range []*killedQueue{
			{name: "classic, small bodies", size: smallBody},
			{name: "classic, large bodies", size: largeBody},
			{name: "classic, mixed bodies", size: mixedBody},
			{name: "quorum, mixed bodies", size: mixedBody, arguments: quorum},
		} {
			q.queue = fmt.Sprintf("%s, kill %d", q.name, i+1)
			declare(t, w.channel(1), q.arguments, q.queue)
			rounds[i] = append(rounds[i], q)
		}
	}
	if err := w.rabbit.Save(withDeadline(t, sqlLimit)); err != nil {
		t.Fatal(err)
	}
	for _, queues := range rounds {
		for _, q := range queues {
			q.publish(t, w.channel(1))
		}
		for _, q := range queues {
			q.awaitConfirms(t)
		}
		if err := w.rabbit.Kill(); err != nil {
			t.Fatal(err)
		}
		for _, q := range queues {
			q.ended.Wait()
		}
		if err := w.rabbit.Start(); err != nil {
			t.Fatal(err)
		}
		for _, q := range queues {
			q.judge(t, w.take(1, q.queue))
		}
	}
	if err := w.rabbit.DeleteVHost(withDeadline(t, sqlLimit), w.vhosts[0]); err != nil {
		t.Error(err)
	}
}

// RabbitMQ 3 keeps bodies of less than 4096 bytes in the index of a classic queue and others in a store, so that
// messages of the two kinds go to disk by different ways.
func smallBody() int { return 100 + rand.IntN(100) }

func largeBody() int { return 5_000 << rand.IntN(7) } // up to 320 kB

func mixedBody() int {
	if rand.IntN(4) == 0 {
		return largeBody()
	}
	return smallBody()
}

// killedQueue is a queue of a node that is killed, and what is published to it until then.
type killedQueue struct {
	name, queue string
	size        func() int
	arguments   amqp.Table

	sent   []killedMessage
	enough chan struct{} // closed when so many are confirmed that the node may be killed
	ended  sync.WaitGroup
}

type killedMessage struct {
	confirm *amqp.DeferredConfirmation
	size    int
}

// body is made of the letter that is its number's.
func (m *killedMessage) body(number int) []byte {
	return bytes.Repeat([]byte{'a' + byte(number%26)}, m.size)
}

// publish sends messages, many at a time, until the channel breaks.
func (q *killedQueue) publish(t *testing.T, ch *amqp.Channel) {
	t.Helper()
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	q.enough = make(chan struct{})
	inFlight := make(chan *amqp.DeferredConfirmation, 200) // more would only slow down other tests
	q.ended.Go(func() {
		confirmed, enough := 0, 50+rand.IntN(200)
		for c := range inFlight {
			if c.Wait() {
				if confirmed++; confirmed == enough {
					close(q.enough)
				}
			}
		}
	})
	q.ended.Go(func() {
		defer close(inFlight)
		slow := time.NewTicker(20 * time.Millisecond) // for a queue that has enough while others have not
		defer slow.Stop()
		for t.Context().Err() == nil {
			select {
			case <-q.enough:
				<-slow.C
			default:
			}
			m := killedMessage{size: q.size()}
			var err error
			m.confirm, err = ch.PublishWithDeferredConfirm("", q.queue, true, false, amqp.Publishing{
				DeliveryMode: amqp.Persistent, MessageId: strconv.Itoa(len(q.sent)), Body: m.body(len(q.sent)),
			})
			if err != nil {
				return
			}
			q.sent = append(q.sent, m)
			inFlight <- m.confirm
		}
	})
}

func (q *killedQueue) awaitConfirms(t *testing.T) {
	t.Helper()
	select {
	case <-q.enough:
	case <-time.After(consumeLimit):
		t.Fatalf("%s: too few messages are confirmed after %s", q.queue, consumeLimit)
	}
}

// judge compares what the queue holds after the restart with what was sent.
func (q *killedQueue) judge(t *testing.T, got []amqp.Delivery) {
	t.Helper()
	came := make([]bool, len(q.sent))
	last := -1
	for _, d := range got {
		n, err := strconv.Atoi(d.MessageId)
		switch {
		case err != nil || n < 0 || n >= len(q.sent):
			t.Errorf("%s: message %q was never sent", q.queue, d.MessageId) // the last one may have been, in part
			continue
		case n <= last:
			t.Errorf("%s: message %d came behind %d", q.queue, n, last)
		case !bytes.Equal(d.Body, q.sent[n].body(n)):
			t.Errorf("%s: message %d came with another body, of %d bytes", q.queue, n, len(d.Body))
		}
		came[n], last = true, max(last, n)
	}
	var confirmed, unconfirmed, holes, behind int
	lastConfirmed := -1
	for n := range q.sent {
		if q.sent[n].confirm.Acked() {
			confirmed, lastConfirmed = confirmed+1, n
			if !came[n] {
				t.Errorf("%s: message %d of %d bytes was confirmed and is gone", q.queue, n, q.sent[n].size)
			}
		}
	}
	for n := range q.sent {
		switch {
		case q.sent[n].confirm.Acked():
		case came[n]:
			unconfirmed++
		case n < lastConfirmed:
			behind++
			fallthrough
		case n < last:
			holes++
		}
	}
	t.Logf("%s: %d sent, %d confirmed, %d unconfirmed ones are there; %d are missing in front of one that is there, %d in front of a confirmed one",
		q.queue, len(q.sent), confirmed, unconfirmed, holes, behind)
}
