package publisher

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/metrics"
)

// operated waits for the next declaration or binding that is not a look at an
// exchange before its first use.
func (w *world) operated() *fakeamqp.Topology {
	w.t.Helper()
	return fakeamqp.AwaitMatch(w.t, w.Server, func(o *fakeamqp.Topology) bool { return !o.Passive })
}

// nothingOperated fails if there was one.
func (w *world) nothingOperated() {
	w.t.Helper()
	for _, e := range w.Pending() {
		if o, ok := e.(*fakeamqp.Topology); ok && !o.Passive {
			w.t.Errorf("unexpected: %v", o)
		}
	}
}

// declaration is the content of amqp.exchange_declare.
func declaration(exchange string) []byte {
	return envelope(decoder.KindExchangeDeclare, 1, fields{'x': exchange, 'w': "topic", 'f': "d"}, "")
}

func TestOperationsTakeEffectBetweenTheMessagesAroundThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Exchanges: []string{"x"}, Queues: []string{}}, nil)
	conn := w.connected()
	w.warm("x")
	w.to("x", "a", "b")
	n := w.publish(
		declaration("new"),
		envelope(decoder.KindQueueDeclare, 1, fields{'q': "q", 'f': "d"}, ""),
		envelope(decoder.KindQueueBind, 1, fields{'x': "new", 'q': "q", 'k': "#"}, ""),
		envelope(decoder.KindExchangeBind, 1, fields{'x': "x", 'q': "new", 'k': "k"}, ""),
	)
	w.to("new", "c")
	ps := w.arrivals("a", "b")
	ps[0].Ack()
	w.awaitDone(n - 2)
	w.nothingOperated() // b is in flight
	w.nothingArrived()
	ps[1].Ack()
	for i, want := range []string{
		`exchange.declare "new", source "", key ""`, `queue.declare "q", source "", key ""`,
		`queue.bind "q", source "new", key "#"`, `exchange.bind "new", source "x", key "k"`,
	} {
		o := w.operated()
		if got := fmt.Sprintf("%s %q, source %q, key %q", o.Op, o.Name, o.Source, o.Key); got != want || o.Refused != nil {
			t.Errorf("operation %s (refused: %v), want %s", got, o.Refused, want)
		}
		if o.Conn == conn {
			t.Errorf("%v: on the connection of the messages", o)
		}
		if i == 0 && (o.Type != "topic" || !o.Durable || o.AutoDelete || o.Internal) {
			t.Errorf("declared as %+v", o)
		}
		w.awaitDone(n + i)
	}
	c := w.arrivals("c")[0]
	if c.Channel != ps[0].Channel {
		t.Errorf("%v, before %v", c, ps[0])
	}
	c.Ack()
	w.awaitAll()
	w.noLetters()
}

func TestRefusedOperationDisturbsNobody(t *testing.T) {
	t.Parallel()
	for code, reason := range map[uint16]Reason{
		403: metrics.ReasonAccessRefused, 406: metrics.ReasonPreconditionFailed,
		503: metrics.ReasonRefused, // an unknown exchange type ends the connection
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeamqp.Config{Declare: func(o *fakeamqp.Topology) error {
				if o.Name == "bad" {
					return &fakeamqp.Refusal{Code: code, Text: "no"}
				}
				return nil
			}}, nil)
			w.warm("x")
			w.to("x", "a")
			n := w.publish(declaration("bad"))
			w.to("x", "b")
			a := w.arrivals("a")[0]
			a.Ack()
			b := w.arrivals("b")[0]
			b.Ack()
			if a.Channel != b.Channel {
				t.Errorf("%v, before %v", b, a)
			}
			w.awaitAll()
			dead := w.dead()
			if len(dead) != 1 || dead[0].Origin != numbered(n) || dead[0].Reason != reason || dead[0].ReplyCode != code ||
				dead[0].Envelope.Kind != decoder.KindExchangeDeclare {
				t.Errorf("dead letters %+v", dead)
			}
		})
	}
}

// The broker's own trouble is not the operation's fault, the first times.
func TestOperationIsTriedAgainBeforeItIsTheCulprit(t *testing.T) {
	t.Parallel()
	attempts := 0
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll, Declare: func(o *fakeamqp.Topology) error {
		if o.Name == "bad" {
			if attempts++; attempts < maxFailures {
				return &fakeamqp.Refusal{Code: 541, Text: "INTERNAL_ERROR"}
			}
		}
		return nil
	}}, nil)
	w.to("x", "a")
	w.publish(declaration("bad"))
	w.to("x", "b")
	w.awaitAll()
	w.noLetters()
	for _, want := range []string{"a", "b"} {
		w.arrivals(want)
	}
	w.nothingArrived() // nothing twice
}

// Being refused a connection says nothing about the operation that it was for.
func TestOperationIsNotBlamedForAConnectionThatIsRefused(t *testing.T) {
	t.Parallel()
	var logins atomic.Int32
	troubles := 0
	w := newWorld(t, fakeamqp.Config{
		Handler: fakeamqp.AckAll,
		Login: func(string, string) error {
			if n := logins.Add(1); n%2 == 0 && n <= 2*maxFailures { // the lane connects before each
				return &fakeamqp.Refusal{Code: 403, Text: "ACCESS_REFUSED - Login was refused"}
			}
			return nil
		},
		Declare: func(o *fakeamqp.Topology) error {
			if o.Name == "new" {
				if troubles++; troubles == 1 {
					return &fakeamqp.Refusal{Code: 541, Text: "INTERNAL_ERROR"}
				}
			}
			return nil
		},
	}, nil)
	w.publish(declaration("new"))
	w.awaitAll()
	w.noLetters()
	if n := logins.Load(); n != 2*maxFailures+4 {
		t.Errorf("%d logins", n)
	}
}

func TestOperationWaitsForABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	w.to("x", "a")
	a := w.arrivals("a")[0]
	n := w.publish(declaration("new"))
	w.Admit(fakeamqp.Refuse) // no connection for it
	a.Ack()
	fakeamqp.AwaitMatch(t, w.Server, func(c *fakeamqp.Closed) bool { return c.Conn == a.Conn })
	if w.isDone(n) {
		t.Error("done without a broker")
	}
	w.Admit(fakeamqp.Serve)
	w.to("new", "b")
	if o := w.operated(); o.Name != "new" {
		t.Errorf("%v", o)
	}
	w.arrivals("b")[0].Ack()
	w.awaitAll()
	w.noLetters()
}

func TestDisconnectReconnectsAndLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	conn := w.connected()
	w.warm("x")
	w.to("x", "a", "b")
	n := w.publish(envelope(decoder.KindDisconnect, 1, nil, ""))
	w.to("x", "c")
	ps := w.arrivals("a", "b")
	ps[0].Ack()
	w.awaitDone(n - 2)
	if w.isDone(n) {
		t.Error("disconnected with a message in flight")
	}
	ps[1].Ack()
	if closed := fakeamqp.Await[*fakeamqp.Closed](t, w.Server); closed.Conn != conn || !closed.Clean {
		t.Errorf("%v", closed)
	}
	c := w.arrivals("c")[0]
	if c.Conn == conn {
		t.Error("still on the old connection")
	}
	c.Ack()
	w.awaitAll()
	w.noLetters()
	w.nothingArrived()
	if n := w.counted("pgamqp_publish_retries_total", "connection_lost"); n != 0 {
		t.Errorf("%v sent again", n)
	}
}
