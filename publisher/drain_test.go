package publisher

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/metrics"
)

// drained starts a Drain, and gives its error.
func (w *world) drained(ctx context.Context) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- w.publisher.Drain(ctx) }()
	return ended
}

func TestDrainWaitsUntilAllHaveTheirVerdict(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	if err := w.publisher.Drain(t.Context()); err != nil {
		t.Errorf("with nothing to wait for: %v", err)
	}
	w.warm("x")
	first, ps := w.inFlight("a", "b")
	ended := w.drained(t.Context())
	ps[0].Ack()
	w.awaitDone(first)
	select {
	case err := <-ended:
		t.Fatalf("did not wait for b: %v", err)
	default:
	}
	ps[1].Return(312, "NO_ROUTE")
	ps[1].Ack()
	if err := receive(t, "drain", ended); err != nil {
		t.Error(err)
	}
	if !w.isDone(first + 1) {
		t.Error("drained before b was done")
	}
}

// gaveUp checks what must hold when a Drain has given up: nothing of what was held
// is ever done, nothing of it is sent again, and what follows is.
func (w *world) gaveUp(forgotten ...int) {
	w.t.Helper()
	if s := w.status(); s.Held != 0 {
		w.t.Errorf("%d messages are still held", s.Held)
	}
	w.Admit(fakeamqp.Serve)
	next := w.to("x", "next")
	w.arrivals("next")[0].Ack()
	w.awaitDone(next)
	for _, n := range forgotten {
		if w.isDone(n) {
			w.t.Errorf("message %d is done, and was forgotten", n)
		}
	}
}

func TestDrainGivesUpOnABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	first := w.to("x", "a", "b")
	w.arrivals("a", "b")
	w.Admit(fakeamqp.Refuse)
	w.DropAll()
	if err := receive(t, "drain", w.drained(t.Context())); err == nil || !strings.Contains(err.Error(), "broker 1 is not available") {
		t.Errorf("got %v", err)
	}
	w.gaveUp(first, first+1)
}

func TestDrainGivesUpDuringAnAlarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	conn := w.connected()
	w.warm("x")
	conn.Block("disk")
	until(t, "the alarm to be seen", func() bool { return !w.status().Down.IsZero() })
	n := w.to("x", "a")
	if err := receive(t, "drain", w.drained(t.Context())); err == nil || !strings.Contains(err.Error(), "disk") {
		t.Errorf("got %v", err)
	}
	w.gaveUp(n)
}

func TestDrainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	first := w.to("x", "a", "b")
	ps := w.arrivals("a", "b") // connected, and never confirmed
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errTableFull{})
	defer cancel()
	if err := receive(t, "drain", w.drained(ctx)); !errors.Is(err, errTableFull{}) {
		t.Errorf("got %v", err)
	}
	ps[1].AckMultiple() // too late
	w.gaveUp(first, first+1)
}

func TestDrainOfOneBrokerDoesNotSufferFromAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	other := fakeamqp.Start(t, fakeamqp.Config{})
	other.Admit(fakeamqp.Refuse)
	w.define(true, brokerAt(1, w.Server), brokerAt(2, other))
	w.warm("x")
	lost := w.publish(publicationFor(2, "x", "lost"))
	n := w.to("x", "a")
	ended := w.drained(t.Context())
	until(t, "the other broker to be given up", func() bool { return w.statusOf(2).Held == 0 })
	w.arrivals("a")[0].Ack()
	err := receive(t, "drain", ended)
	if err == nil || !strings.Contains(err.Error(), "broker 2") || strings.Contains(err.Error(), "broker 1") {
		t.Errorf("got %v", err)
	}
	w.awaitDone(n)
	if w.isDone(lost) {
		t.Error("done without a broker")
	}
}

// A dead letter that cannot be stored holds up a stop no longer than its context.
func TestDrainGivesUpOnADeadLetterThatCannotBeStored(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	w.mu.Lock()
	w.full = 1 << 30
	w.mu.Unlock()
	n := w.to("x", "nowhere")
	p := w.arrivals("nowhere")[0]
	p.Return(312, "NO_ROUTE")
	p.Ack()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := receive(t, "drain", w.drained(ctx)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	w.mu.Lock()
	w.full = 0
	w.mu.Unlock()
	w.gaveUp(n)
	w.noLetters()
}

// Giving up and connecting again meet at every point of their ways.
func TestDrainThatGivesUpAgainAndAgainNeverHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil) // confirms nothing
	for i := range 100 {
		n := w.to("x", "a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond)
		if err := receive(t, "drain", w.drained(ctx)); err == nil {
			t.Error("drained without a confirm")
		}
		cancel()
		if s := w.status(); s.Held != 0 || w.isDone(n) {
			t.Fatalf("status %+v", s)
		}
	}
}

func TestVerdictOfWhatWasForgottenMeansNothing(t *testing.T) {
	reg := prometheus.NewRegistry()
	l := newLane(Broker{ID: 1}, Config{WindowMessages: 2, WindowBytes: 100}, quiet(), metrics.NewPublisher(reg).Broker(1))
	e := &entry{size: 1, done: func() { t.Error("done") }}
	if err := l.add(t.Context(), e); err != nil || l.take() != e {
		t.Fatal(err)
	}
	l.reset()
	l.resolve(e)
	if held := l.status().Held; held != 0 {
		t.Errorf("held %d", held)
	}
}

// Drain looks at the window, and what follows it is the last report of the position.
func TestMessageIsDoneBeforeItLeavesTheWindow(t *testing.T) {
	l := newLane(Broker{ID: 1, Hosts: []Host{{Host: "localhost"}}}, Config{WindowMessages: 1, WindowBytes: 1 << 10},
		slog.New(slog.DiscardHandler), metrics.NewPublisher(prometheus.NewRegistry()).Broker(1))
	heldWhenDone := -1
	e := &entry{done: func() { heldWhenDone = l.status().Held }}
	if err := l.add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	l.take()
	l.resolve(e)
	if heldWhenDone != 1 {
		t.Errorf("%d messages held when it was done, want 1", heldWhenDone)
	}
	if held := l.status().Held; held != 0 {
		t.Errorf("%d messages held afterwards", held)
	}
}
