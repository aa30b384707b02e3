package publisher

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/metrics"

	"github.com/prometheus/client_golang/prometheus"
)

// newSplitWorld has two brokers, of which the first one is the world's.
func newSplitWorld(t *testing.T) (*world, *fakeamqp.Server) {
	t.Helper()
	w := newWorld(t, fakeamqp.Config{}, nil)
	other := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	w.define(true, w.brokers[0], Broker{ID: 2, Hosts: []Host{hostOf(other)}})
	t.Cleanup(other.DropAll)
	return w, other
}

// newCutWorld is one whose broker 1 was detached and is about to join the other again. It returns the number of a
// message, "kept", that the main stream keeps for it.
func newCutWorld(t *testing.T) (w *world, kept int) {
	t.Helper()
	w, _ = newSplitWorld(t)
	w.both("a")
	w.arrivals("a")
	if !w.publisher.Detach(1, 0) {
		t.Fatal("broker 1 is not detached")
	}
	w.publisher.Cut(1)
	return w, w.to("", "kept")
}

// both publishes a text to each broker and returns the numbers of the messages.
func (w *world) both(texts ...string) (first, second []int) {
	for _, text := range texts {
		first = append(first, w.publish(envelope(decoder.KindPublish, 1, fields{'k': text}, text)))
		second = append(second, w.publish(envelope(decoder.KindPublish, 2, fields{'k': text}, text)))
	}
	return first, second
}

// own starts the stream of broker 1's own slot. It ends with the test.
func (w *world) own() *Publisher {
	reg := prometheus.NewRegistry()
	received := metrics.NewReplication(reg, "own")
	p := w.publisher.Own(1, nil, Metrics{Brokers: metrics.NewPublisher(reg), Received: received.Received, Skipped: received.Skipped})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.Run(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		w.DropAll()
		receive(w.t, "end of the own stream", ended)
	})
	return p
}

// send hands a message, known by its number in the main stream, to another stream.
func send(t *testing.T, p *Publisher, n int, text string) (done chan struct{}) {
	t.Helper()
	done = make(chan struct{})
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := p.Publish(ctx, message(n, envelope(decoder.KindPublish, 1, fields{'k': text}, text)), func() { close(done) }); err != nil {
		t.Fatalf("publish %s: %v", text, err)
	}
	return done
}

func TestStuckIsWhoKeepsAnotherBrokerWaiting(t *testing.T) {
	w, other := newSplitWorld(t)
	w.publish(envelope(decoder.KindPublish, 1, fields{'k': "a"}, "a"))
	w.arrivals("a")
	if got := w.publisher.Stuck(0); len(got) > 0 {
		t.Errorf("stuck are %v although nobody else has work", got)
	}
	_, second := w.both("b")
	fakeamqp.Await[*fakeamqp.Publish](t, other)
	w.awaitDone(second...)
	w.awaitEmpty(2)
	if got := w.publisher.Stuck(time.Hour); len(got) > 0 {
		t.Errorf("stuck for an hour are %v", got)
	}
	if got := w.publisher.Stuck(0); !slices.Equal(got, []int32{1}) {
		t.Errorf("stuck are %v, want broker 1", got)
	}
	if w.publisher.Detach(1, time.Hour) {
		t.Error("a broker was detached that is not stuck for so long")
	}
}

// TestDetachedBrokerIsPassedOver goes all the way: detached, delivered by its own stream,
// cut, and joined again.
func TestDetachedBrokerIsPassedOver(t *testing.T) {
	w, _ := newSplitWorld(t)
	confirmed := w.to("", "confirmed")
	w.arrivals("confirmed")[0].Ack()
	w.awaitDone(confirmed)
	first, second := w.both("a", "b")
	w.arrivals("a", "b")
	if !w.publisher.Detach(1, 0) {
		t.Fatal("broker 1 is not detached")
	}
	w.awaitDone(slices.Concat(first, second)...)
	passed := w.to("", "passed over")
	w.awaitDone(passed)

	own := w.own()
	receive(t, "what was confirmed before", send(t, own, confirmed, "confirmed"))
	a, b, c := send(t, own, first[0], "a"), send(t, own, first[1], "b"), send(t, own, passed, "passed over")
	for _, text := range []string{"a", "b", "passed over"} {
		p := fakeamqp.AwaitMatch(t, w.Server, func(p *fakeamqp.Publish) bool { return string(p.Body) == text })
		p.Ack()
	}
	receive(t, "a", a)
	receive(t, "b", b)
	receive(t, "passed over", c)

	cut := w.publisher.Cut(1)
	if want := message(passed, nil); cut != want.Position() {
		t.Errorf("the cut is at %v, want %v", cut, want.Position())
	}
	kept := w.to("", "kept")
	if w.isDone(kept) {
		t.Error("what lies behind the cut is done before it was delivered")
	}
	held, cancel := context.WithCancel(context.Background())
	cancel()
	if err := own.Publish(held, message(kept, publication("", "kept")), func() { t.Error("done by the own stream") }); err == nil {
		t.Error("the own stream delivers what lies behind the cut")
	}
	w.nothingArrived()
	w.publisher.Join(1)
	fakeamqp.AwaitMatch(t, w.Server, func(p *fakeamqp.Publish) bool { return string(p.Body) == "kept" }).Ack()
	w.awaitDone(kept)
	w.noLetters()
}

// TestLaneIsNotHeldBeyondItsStream: the slot was dropped, and the main stream ended before it
// heard of that, so nobody joined what was cut.
func TestLaneIsNotHeldBeyondItsStream(t *testing.T) {
	t.Parallel()
	w, kept := newCutWorld(t)
	if err := w.publisher.Drain(t.Context()); err == nil {
		t.Error("what is kept is drained")
	}
	w.publisher.Begin(0, nil, true)
	again := w.to("", "kept") // the new stream brings it again
	fakeamqp.AwaitMatch(t, w.Server, func(p *fakeamqp.Publish) bool { return string(p.Body) == "kept" }).Ack()
	w.awaitDone(again)
	if w.isDone(kept) {
		t.Error("done though it was given up")
	}
}

// TestGateForgetsWhatWasJoinedInAnotherHistory, or before the server lost WAL: what is written
// anew at those positions is new.
func TestGateForgetsWhatWasJoinedInAnotherHistory(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{true, false} {
		g := NewGate(0x100)
		m := decoder.Position{Unit: 0x180, LSN: 0x180}
		g.Begin(0x100, true, true)
		g.ServesMain(m)
		g.Cut()
		g.Join()
		g.Begin(0x100, false, same)
		if got := g.ServesMain(m); got == same {
			t.Errorf("same history: %v; the main stream delivers what had been delivered: %v", same, got)
		}
	}
}

func TestUndoneCutLeavesAllToTheOwnStream(t *testing.T) {
	w, kept := newCutWorld(t)
	w.publisher.Undo(1)
	w.awaitDone(kept)
	w.awaitDone(w.to("", "later"))
	own := w.own()
	done := send(t, own, kept, "kept")
	fakeamqp.AwaitMatch(t, w.Server, func(p *fakeamqp.Publish) bool { return string(p.Body) == "kept" }).Ack()
	receive(t, "kept", done)
}

// TestFullWindowOfABrokerThatIsDownIsNotWaitedFor: with others waiting behind it.
func TestFullWindowOfABrokerThatIsDownIsNotWaitedFor(t *testing.T) {
	w, other := newSplitWorld(t)
	w.Admit(fakeamqp.Refuse)
	w.DropAll()
	until(t, "down", func() bool { return !w.status().Down.IsZero() })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.to("", list("m", 101)...)
		w.both("b")
	}()
	until(t, "stuck", func() bool { return slices.Equal(w.publisher.Stuck(time.Hour), []int32{1}) })
	if !w.publisher.Detach(1, time.Hour) {
		t.Error("broker 1 is not detached")
	}
	fakeamqp.Await[*fakeamqp.Publish](t, other)
	receive(t, "all taken over", ended)
	w.awaitAll()
}
