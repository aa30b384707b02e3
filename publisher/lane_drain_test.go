package publisher

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// drain calls Drain in the background.
func (w *world) drain(ctx context.Context) <-chan error {
	drained := make(chan error, 1)
	go func() { drained <- w.publisher.Drain(ctx) }()
	return drained
}

func TestDrainWaitsForTheLastVerdict(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	w.warm("x")
	if err := w.publisher.Drain(t.Context()); err != nil {
		t.Errorf("with nothing to wait for: %v", err)
	}
	w.to("x", "a", "nowhere", "c")
	ps := w.arrivals("a", "nowhere", "c")
	drained := w.drain(t.Context())
	ps[0].Ack()
	ps[1].Return(312, "NO_ROUTE")
	ps[1].Ack()
	select {
	case err := <-drained:
		t.Errorf("drained with a message in flight: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	ps[2].Ack()
	if err := receive(t, "Drain", drained); err != nil {
		t.Error(err)
	}
	for n := range w.sent {
		if !w.isDone(n) {
			t.Errorf("message %d is not done", n)
		}
	}
}

// What is given up is neither done nor sent: PostgreSQL will send it again.
func TestDrainGivesUpOnABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	other := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	w.define(true, brokerAt(1, w.Server), brokerAt(2, other))
	w.warm("x")
	first := w.to("x", "a", "b", "c")
	w.arrivals("a", "b", "c")
	away(w.Server)
	until(t, "the loss to be seen", func() bool { return !w.status().Down.IsZero() })
	delivered := w.publish(publicationFor(2, "x", "elsewhere"))
	began := time.Now()
	err := receive(t, "Drain", w.drain(t.Context()))
	if took := time.Since(began); took > patience+eventually {
		t.Errorf("gave up after %s", took)
	}
	if err == nil || !strings.Contains(err.Error(), "broker 1 is not available") || !strings.Contains(err.Error(), w.Addr()) {
		t.Errorf("error %v", err)
	}
	if s := w.status(); s.Held != 0 {
		t.Errorf("holds %d", s.Held)
	}
	w.Admit(fakeamqp.Serve)
	n := w.to("x", "d")
	w.arrivals("d")[0].Ack() // the first to arrive
	w.awaitDone(n, delivered)
	for n := first; n < first+3; n++ {
		if w.isDone(n) {
			t.Errorf("message %d is done", n)
		}
	}
	w.noLetters()
}

func TestDrainGivesUpWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	w.warm("x")
	first := w.to("x", "a", "b")
	ps := w.arrivals("a", "b")
	ctx, cancel := context.WithCancelCause(t.Context())
	drained := w.drain(ctx)
	cancel(errTableFull{})
	if err := receive(t, "Drain", drained); !errors.Is(err, errTableFull{}) {
		t.Errorf("error %v", err)
	}
	ps[1].AckMultiple() // too late
	n := w.to("x", "c")
	w.arrivals("c")[0].Ack()
	w.awaitDone(n)
	if w.isDone(first) || w.isDone(first+1) {
		t.Error("done after it was given up")
	}
}

// A dead letter that cannot be stored does not hold up the end either.
func TestDrainGivesUpWhileADeadLetterCannotBeStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	w.warm("x")
	w.mu.Lock()
	w.full = 1 << 30
	w.mu.Unlock()
	n := w.to("x", "nowhere")
	p := w.arrivals("nowhere")[0]
	p.Return(312, "NO_ROUTE")
	p.Ack()
	until(t, "an attempt to store it", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.refused > 0
	})
	ctx, cancel := context.WithCancel(t.Context())
	drained := w.drain(ctx)
	cancel()
	if err := receive(t, "Drain", drained); err == nil {
		t.Error("no error")
	}
	if w.isDone(n) {
		t.Error("done without a dead letter")
	}
}

func TestAlarmIsNotWaitedForAtTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	conn := w.connected()
	w.warm("x")
	conn.Block("memory")
	until(t, "the alarm to be seen", func() bool { return !w.status().Down.IsZero() })
	n := w.to("x", "a")
	began := time.Now()
	if err := receive(t, "Drain", w.drain(t.Context())); err == nil || !strings.Contains(err.Error(), "alarm") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > patience+eventually {
		t.Errorf("gave up after %s", took)
	}
	w.nothingArrived()
	if w.isDone(n) {
		t.Error("done without being sent")
	}
}
