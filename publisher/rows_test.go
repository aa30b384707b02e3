package publisher

import (
	"context"
	"errors"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// someRows makes messages of changes: as many as the ordinal says.
type someRows struct {
	changed []decoder.Message
	err     error
}

func (r *someRows) Messages(_ context.Context, m *decoder.Message) ([]decoder.Message, error) {
	var out []decoder.Message
	for i := range m.Change.Ordinal {
		one := *m
		one.Change, one.Prefix, one.ID = nil, decoder.Prefix, m.ID+"-"+list("r", 9)[i]
		one.Content = envelope(decoder.KindPublish, 1, fields{'x': "x"}, list("row", 9)[i])
		out = append(out, one)
	}
	return out, r.err
}

func (r *someRows) Changed(_ context.Context, m *decoder.Message) error {
	r.changed = append(r.changed, *m)
	return r.err
}

// publishRow publishes a change that becomes so many messages, and returns its number.
func (w *world) publishRow(messages int) (int, error) {
	n := w.next()
	m := message(n, nil)
	m.Prefix, m.Change = "", &decoder.Change{Op: decoder.OpInsert, Ordinal: messages}
	return n, w.publisher.Publish(w.t.Context(), m, w.done(n))
}

func TestRowIsDoneWhenAllOfItsMessagesAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, func(c *Config) { c.Rows = &someRows{} })
	w.warm("x")
	n, err := w.publishRow(3)
	if err != nil {
		t.Fatal(err)
	}
	ps := w.arrivals("row0", "row1", "row2")
	follower, err := w.publishRow(0) // becomes nothing: done at once
	if err != nil {
		t.Fatal(err)
	}
	w.awaitDone(follower)
	for i, p := range ps[:2] {
		p.Ack()
		until(t, "the verdict", func() bool { return w.status().Held == 2-i })
		if w.isDone(n) {
			t.Errorf("done, and %d of three messages are not confirmed", 2-i)
		}
	}
	ps[2].Ack()
	w.awaitDone(n)
	if got := w.counted("pgamqp_skipped_messages_total", "row"); got != 1 {
		t.Errorf("%v rows were passed over, want 1", got)
	}
}

func TestRoutesChangeAtTheirPlaceInTheStream(t *testing.T) {
	t.Parallel()
	rows := &someRows{}
	w := newWorld(t, fakeamqp.Config{}, func(c *Config) { c.Rows = rows })
	n := w.publish(envelope(decoder.KindRoutesChanged, 0, nil, ""))
	if !w.isDone(n) || len(rows.changed) != 1 {
		t.Errorf("done %t, told %d times", w.isDone(n), len(rows.changed))
	}
	rows.err = errors.New("the end")
	if n, err := w.publishRow(1); !errors.Is(err, rows.err) || w.isDone(n) {
		t.Errorf("a row that has no messages yet: %v, done %t", err, w.isDone(n))
	}
	n = w.next()
	err := w.publisher.Publish(t.Context(), message(n, envelope(decoder.KindRoutesChanged, 0, nil, "")), w.done(n))
	if !errors.Is(err, rows.err) || w.isDone(n) {
		t.Errorf("a change that was not read: %v, done %t", err, w.isDone(n))
	}
}

func TestRowsAreForThoseWhoHaveRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	n, err := w.publishRow(2)
	if err != nil || !w.isDone(n) {
		t.Errorf("%v, done %t", err, w.isDone(n))
	}
}
