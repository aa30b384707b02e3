package publisher

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// brokerAt is the definition of a broker with one host for each server.
func brokerAt(id int32, servers ...*fakeamqp.Server) Broker {
	b := Broker{ID: id}
	for _, s := range servers {
		b.Hosts = append(b.Hosts, hostOf(s))
	}
	return b
}

// away takes a server from the net.
func away(s *fakeamqp.Server) {
	s.Admit(fakeamqp.Refuse)
	s.DropAll()
}

// origins are those of dead letters, in the order of storing.
func origins(letters []DeadLetter) []string {
	var out []string
	for _, d := range letters {
		out = append(out, d.Origin)
	}
	return out
}

func TestAnnouncedBrokerIsKnownToTheNextMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	other := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	w.define(true, brokerAt(1, w.Server), brokerAt(2, other))
	w.awaitDone(w.publish(publicationFor(2, "x", "a")))
	w.noLetters()
	w.nothingArrived() // at broker 1
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.asked, message(0, nil).XID) {
		t.Errorf("definitions were asked for as of the transactions %v", w.asked)
	}
}

func TestBrokerThatWasNotAnnouncedIsLookedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, nil)
	w.awaitDone(w.to("x", "a"))
	w.define(false, brokerAt(1, w.Server), brokerAt(2, w.Server))
	w.awaitDone(w.publish(publicationFor(2, "x", "b")))
	w.noLetters()
}

func TestMessageForAnUnknownBrokerHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, nil)
	lost := w.publish(publicationFor(9, "x", "lost"), publicationFor(9, "x", "lost too"))
	w.awaitDone(lost, lost+1, w.to("x", "a"))
	dead := w.dead()
	if !slices.Equal(origins(dead), []string{numbered(lost), numbered(lost + 1)}) || dead[0].Reason != ReasonUnknownBroker ||
		dead[0].MessageID != dead[0].Origin || !strings.Contains(dead[0].ReplyText, "broker_id 9") || string(dead[0].Body) != "lost" {
		t.Errorf("dead letters %+v", dead)
	}
	if n := w.counted("pgamqp_dead_lettered_messages_total", "unknown", "unknown_broker"); n != 2 {
		t.Errorf("%v counted", n)
	}
	w.define(true, brokerAt(9, w.Server))
	w.awaitDone(w.publish(publicationFor(9, "x", "found")))
	if len(w.dead()) != 2 {
		t.Error("not known after it was defined")
	}
}

// Without definitions every broker would be an unknown one.
func TestMessagesWaitUntilDefinitionsCanBeRead(t *testing.T) {
	t.Parallel()
	failures := 3
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, func(c *Config) {
		read := c.Brokers
		c.Brokers = func(ctx context.Context, xid uint32) ([]Broker, error) {
			if failures--; failures >= 0 {
				return nil, errTableFull{}
			}
			return read(ctx, xid)
		}
	})
	w.awaitDone(w.to("x", "a"))
	w.mu.Lock()
	w.broken = 2
	w.mu.Unlock()
	w.define(true, brokerAt(1, w.Server), brokerAt(2, w.Server))
	w.awaitDone(w.publish(publicationFor(2, "x", "b")))
	w.noLetters()
}

func TestWhatADeletedBrokerHoldsBecomesDeadLetters(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(*world){
		"works":   func(*world) {},
		"is away": func(w *world) { away(w.Server) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeamqp.Config{}, func(c *Config) { c.WindowMessages = 4 })
			w.warm("x")
			first, ps := w.inFlight("a", "b", "c", "d")
			ps[0].Ack()
			w.awaitDone(first)
			before(w)
			waiting := make(chan error, 1) // for room
			n, m := w.next(), w.next()
			go func() {
				err := w.publisher.Publish(t.Context(), message(n, publication("x", "e")), w.done(n))
				waiting <- errors.Join(err, w.publisher.Publish(t.Context(), message(m, publication("x", "f")), w.done(m)))
			}()
			until(t, "a full window", func() bool { return w.counted("pgamqp_backpressure_seconds_total", "1", "window") > 0 })
			w.define(false)
			if err := w.publisher.refresh(t.Context(), 0); err != nil { // as every now and then
				t.Fatal(err)
			}
			if err := receive(t, "the waiting message", waiting); err != nil {
				t.Error(err)
			}
			w.awaitAll()
			dead := w.dead()
			for _, d := range dead {
				if d.Reason != ReasonUnknownBroker || d.MessageID == "" {
					t.Errorf("dead letter %+v", d)
				}
			}
			// What waited for room is stored by another goroutine.
			got := origins(dead)
			slices.Sort(got)
			want := []string{numbered(first + 1), numbered(first + 2), numbered(first + 3), numbered(n), numbered(m)}
			if !slices.Equal(got, want) {
				t.Errorf("dead letters of %v, want %v", got, want)
			}
			if got := w.publisher.Status(); len(got) != 0 {
				t.Errorf("status %+v", got)
			}
			until(t, "the metrics of the broker are gone", func() bool { return w.counted("pgamqp_unconfirmed_window", "1") == 0 })
		})
	}
}

// unhurried lets a lane that works deliver before a change for as long as a test may take.
func unhurried(c *Config) { c.settleBefore = limit }

// What was published before a change is delivered as it was before the change.
func TestChangedBrokerDeliversFirstAndThenMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, unhurried)
	other := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	conn := w.connected()
	w.warm("x")
	_, ps := w.inFlight("a", "b")
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		w.define(true, brokerAt(1, other))
		w.to("x", "c", "d")
	}()
	ps[0].Ack()
	ps[1].Ack()
	if closed := fakeamqp.Await[*fakeamqp.Closed](t, w.Server); closed.Conn != conn || !closed.Clean {
		t.Errorf("%v", closed)
	}
	receive(t, "the change", moved)
	w.awaitAll()
	w.noLetters()
	w.nothingArrived()
	for _, want := range []string{"c", "d"} {
		if p := fakeamqp.Await[*fakeamqp.Publish](t, other); string(p.Body) != want {
			t.Errorf("got %v, want %s", p, want)
		}
	}
}

func TestChangeOfABrokerThatIsAwayIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	other := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	w.warm("x")
	w.to("x", "a", "b", "c")
	w.arrivals("a", "b", "c")
	away(w.Server)
	until(t, "the loss to be seen", func() bool { return !w.status().Down.IsZero() })
	w.define(true, brokerAt(1, other))
	w.awaitAll()
	for _, want := range []string{"a", "b", "c"} {
		if p := fakeamqp.Await[*fakeamqp.Publish](t, other); string(p.Body) != want {
			t.Errorf("got %v, want %s", p, want)
		}
	}
}

// A broker that is frozen counts as connected until it has been silent for long, and its window fills sooner.
func TestChangedHostIsSeenThoughTheWindowOfAConnectedBrokerIsFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, func(c *Config) { c.WindowMessages, c.settleBefore = 3, time.Second })
	other := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	w.warm("x")
	w.to("x", "a", "b", "c")
	w.arrivals("a", "b", "c") // and no verdict
	w.define(false, brokerAt(1, other))
	// It blocks until there is room. That the definitions are read in their turn, after
	// refreshEvery, and the lane has had its time to deliver, takes longer than limit.
	w.to("x", "d")
	w.awaitAll()
	for _, want := range []string{"a", "b", "c", "d"} {
		if p := fakeamqp.Await[*fakeamqp.Publish](t, other); string(p.Body) != want {
			t.Errorf("got %v, want %s", p, want)
		}
	}
	w.noLetters()
}

func TestUnchangedDefinitionKeepsTheConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	w.connected()
	w.warm("x")
	w.to("x", "a")
	p := w.arrivals("a")[0]
	w.define(true, brokerAt(1, w.Server), brokerAt(2, w.Server))
	w.connected() // of broker 2
	p.Ack()
	w.awaitAll()
	w.to("x", "b")
	if again := w.arrivals("b")[0]; again.Channel != p.Channel {
		t.Errorf("%v, before %v", again, p)
	}
}

func TestNextHostTakesOverWhatWasInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	second := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	w.define(true, brokerAt(1, w.Server, second))
	w.warm("x")
	_, ps := w.inFlight("a", "b", "c")
	away(w.Server)
	w.awaitAll()
	w.noLetters()
	for i, want := range []string{"a", "b", "c"} {
		p := fakeamqp.Await[*fakeamqp.Publish](t, second)
		if string(p.Body) != want || p.Properties.MessageID != ps[i].Properties.MessageID {
			t.Errorf("got %v, want %s", p, want)
		}
	}
	if n := w.counted("pgamqp_publish_retries_total", "connection_lost"); n != 3 {
		t.Errorf("%v retries counted", n)
	}
}

func TestBrokersDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, nil)
	silent := fakeamqp.Start(t, fakeamqp.Config{})
	w.define(true, brokerAt(1, w.Server), brokerAt(2, silent))
	held := w.publish(publicationFor(2, "x", "held"))
	w.awaitDone(w.to("x", "a", "b", "c") + 2)
	p := fakeamqp.Await[*fakeamqp.Publish](t, silent)
	if w.isDone(held) {
		t.Error("done without a confirm")
	}
	p.Ack()
	w.awaitAll()
}
