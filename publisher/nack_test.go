package publisher

import (
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

func TestNackedMessagesAreSentAgainInOrderAndAlone(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	texts := list("m", 6)
	first, ps := w.inFlight(texts...)
	ps[1].Nack()
	ps[3].Nack()
	ps[5].AckMultiple() // everything else
	w.awaitDone(first, first+2, first+4, first+5)
	again := w.arrivals("m1")
	w.nothingArrived() // the next one waits for this one's verdict
	if w.isDone(first+1) || w.isDone(first+3) {
		t.Error("a nacked message is done")
	}
	again[0].Ack()
	w.arrivals("m3")[0].Ack()
	w.awaitAll()
	w.noLetters()
	if n := w.counted("pgamqp_publish_retries_total", "nacked"); n != 2 {
		t.Errorf("%v retries counted", n)
	}
	if n := w.counted("pgamqp_nacked_messages_total", "x"); n != 2 {
		t.Errorf("%v nacks counted", n)
	}
}

// NotifyPublish of the library would tell an ack here.
func TestR07NackOvertakenByAnAckOfManyIsNotDelivered(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	first, ps := w.inFlight("a", "full", "c")
	ps[1].Nack()
	ps[2].AckMultiple()
	w.awaitDone(first, first+2)
	p := w.arrivals("full")[0]
	if w.isDone(first + 1) {
		t.Error("done though the broker refused it")
	}
	p.Ack()
	w.awaitAll()
	w.noLetters()
}

func TestMessageNackedForTooLongBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	const retry = 200 * time.Millisecond
	var j judge
	j.set("full", refusals()["nacked"])
	w := newWorld(t, fakeamqp.Config{Handler: j.handle}, func(c *Config) { c.NackRetry = retry })
	w.to("x", "a", "full", "c")
	w.awaitAll()
	dead := w.dead()
	if len(dead) != 1 || dead[0].Reason != ReasonNacked || dead[0].Envelope.RoutingKey != "full" || dead[0].ReplyCode != 0 {
		t.Errorf("dead letters %+v", dead)
	}
	if took := time.Since(j.times("full")[0]); took < retry {
		t.Errorf("given up after %s", took)
	}
}

// What is in flight gets its verdict before the nacked one is sent again.
func TestVerdictsOfOthersAreAwaitedBehindANack(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	first, ps := w.inFlight("full", "b", "c")
	ps[0].Nack()
	until(t, "the nack to be seen", func() bool { return w.counted("pgamqp_nacked_messages_total", "x") == 1 })
	late := w.to("x", "d")
	ps[2].AckMultiple()
	w.awaitDone(first+1, first+2)
	w.arrivals("full")[0].Ack()
	w.arrivals("d")[0].Ack()
	w.awaitDone(first, late)
	w.noLetters()
}

// A channel is closed behind a nack; a broker that does not answer is given up.
func TestBrokerThatDoesNotCloseAChannelIsGivenUp(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	n := w.to("x", "full")
	p := w.arrivals("full")[0]
	p.Conn.Freeze()
	p.Nack()
	again := w.arrivals("full")[0]
	if again.Conn == p.Conn {
		t.Error("again on the same connection")
	}
	again.Ack()
	w.awaitDone(n)
}
