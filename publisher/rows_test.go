package publisher

import (
	"context"
	"errors"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// someRows makes messages of changes: as many as the ordinal says, and of all else as many as count.
type someRows struct {
	told  []decoder.Kind
	count int
	err   error
}

func (r *someRows) Messages(_ context.Context, m *decoder.Message) ([]decoder.Message, error) {
	if m.Change == nil {
		return r.make(m, r.count), r.err
	}
	return r.make(m, m.Change.Ordinal), r.err
}

func (r *someRows) make(m *decoder.Message, n int) (out []decoder.Message) {
	for i := range n {
		one := *m
		one.Change, one.Prefix, one.ID = nil, decoder.Prefix, m.ID+"-"+list("r", 9)[i]
		one.Content = envelope(decoder.KindPublish, 1, fields{'x': "x"}, list("row", 9)[i])
		out = append(out, one)
	}
	return out
}

func (r *someRows) Told(_ context.Context, m *decoder.Message, e *decoder.Envelope) ([]decoder.Message, error) {
	r.told = append(r.told, e.Kind)
	return r.make(m, r.count), r.err
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
	for _, kind := range []decoder.Kind{decoder.KindRoutesChanged, decoder.KindSnapshotsChanged} {
		n := w.publish(envelope(kind, 0, nil, ""))
		if told := rows.told; !w.isDone(n) || len(told) == 0 || told[len(told)-1] != kind {
			t.Errorf("done %t, told of %q", w.isDone(n), told)
		}
	}
	rows.err = errors.New("the end")
	if n, err := w.publishRow(1); !errors.Is(err, rows.err) || w.isDone(n) {
		t.Errorf("a row that has no messages yet: %v, done %t", err, w.isDone(n))
	}
	n := w.next()
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

// What takes the place of a message is published there: rows of a snapshot, and what a message
// of another prefix becomes.
func TestMessagesTakeThePlaceOfOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, func(c *Config) { c.Rows = &someRows{count: 2} })
	w.warm("x")
	chunk := w.publish(envelope(decoder.KindSnapshotChunk, 0, nil, "{}"))
	ps := w.arrivals("row0", "row1")
	foreign := w.next()
	m := message(foreign, []byte("content"))
	m.Prefix = "somebody's"
	if err := w.publisher.Publish(t.Context(), m, w.done(foreign)); err != nil {
		t.Fatal(err)
	}
	ps = append(ps, w.arrivals("row0", "row1")...)
	if w.isDone(chunk) || w.isDone(foreign) {
		t.Error("done before a confirm")
	}
	for _, p := range ps {
		p.Ack()
	}
	w.awaitDone(chunk)
	w.awaitDone(foreign)
}
