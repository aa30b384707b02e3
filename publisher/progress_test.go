package publisher

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// TestStatusSaysSinceWhenNothingIsConfirmed by a broker that takes messages and gives no
// verdict, as a quorum queue without a majority.
func TestStatusSaysSinceWhenNothingIsConfirmed(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	if s := w.status(); !s.Still.IsZero() {
		t.Errorf("with nothing to do: %+v", s)
	}
	before := time.Now()
	first := w.to("x", "a")
	after := time.Now()
	n := w.to("x", "b", "c")
	ps := w.arrivals("a", "b", "c")
	if s := w.status(); !s.Down.IsZero() || s.Still.Before(before) || s.Still.After(after) {
		t.Errorf("status %+v, want it still since the first message, which came between %s and %s", s, before, after)
	}
	before = time.Now()
	ps[0].Ack()
	w.awaitDone(first)
	until(t, "progress", func() bool { return !w.status().Still.Before(before) })
	ps[2].AckMultiple()
	w.awaitDone(n, n+1)
	until(t, "nothing to do", func() bool { return w.status().Still.IsZero() })
}

func TestStatusSaysWhatABrokerNacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Handler: func(*fakeamqp.Publish) fakeamqp.Verdict { return fakeamqp.Nack }}, nil)
	n := w.to("", "a")
	until(t, "it says so", func() bool {
		s := w.status()
		return s.Err != nil && strings.Contains(s.Err.Error(), numbered(n)) && strings.Contains(s.Err.Error(), "the broker could not take it")
	})
}

// TestStatusSaysThatADeadLetterCannotBeStored that a lane has to store.
func TestStatusSaysThatADeadLetterCannotBeStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Exchanges: []string{}}, nil)
	w.mu.Lock()
	w.full = 1 << 30
	w.mu.Unlock()
	w.to("missing", "a")
	until(t, "it says so", func() bool {
		s := w.status()
		return s.Err != nil && !s.Still.IsZero() && strings.Contains(s.Err.Error(), "store a dead letter: disk full")
	})
	w.mu.Lock()
	w.full = 0
	w.mu.Unlock()
	w.awaitAll()
	until(t, "all is well", func() bool { return w.status().Err == nil })
}

// TestWaitsSaysWhatPublishWaitsFor when that is the database.
func TestWaitsSaysWhatPublishWaitsFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		content []byte
		begin   func(w *world)
		says    string
	}{
		"dead letter": {envelope(decoder.KindPublish, 7, fields{'k': "a"}, "a"), func(w *world) { w.full = 1 << 30 }, "store a dead letter: disk full"},
		"definitions": {envelope(decoder.KindBrokersChanged, 0, nil, ""), func(w *world) { w.broken = 1 << 30 }, "read amqp.broker: disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, nil)
			w.awaitDone(w.to("", "a"))
			if since, err := w.publisher.Waits(); !since.IsZero() || err != nil {
				t.Errorf("waits since %s for %v", since, err)
			}
			w.mu.Lock()
			c.begin(w)
			w.mu.Unlock()
			before := time.Now()
			ended := make(chan error, 1)
			n := w.next()
			go func() { ended <- w.publisher.Publish(context.Background(), message(n, c.content), w.done(n)) }()
			until(t, "it says so", func() bool {
				since, err := w.publisher.Waits()
				return err != nil && strings.Contains(err.Error(), c.says) && since.After(before)
			})
			w.mu.Lock()
			w.full, w.broken = 0, 0
			w.mu.Unlock()
			if err := receive(t, "the message", ended); err != nil {
				t.Error(err)
			}
			if since, err := w.publisher.Waits(); !since.IsZero() || err != nil {
				t.Errorf("waits since %s for %v", since, err)
			}
		})
	}
}

// TestLoginAloneIsNoWorkingConnection to a broker that ends each connection when a channel
// is opened.
func TestLoginAloneIsNoWorkingConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Channel: func() error { return &fakeamqp.Refusal{Code: 504, Text: "no channel"} }}, nil)
	until(t, "a lane", func() bool { return !w.status().Down.IsZero() })
	began := w.status().Down
	w.to("", "a")
	for range 3 {
		w.connected()
	}
	if s := w.status(); !s.Down.Equal(began) || s.Err == nil || !strings.Contains(s.Err.Error(), "no channel") {
		t.Errorf("status %+v, want it down since %s", s, began)
	}
}
