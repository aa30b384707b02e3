package publisher

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

func TestMessagesAreDoneWhenTheBrokerConfirmsThem(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	first, ps := w.inFlight("a", "b", "c")
	for i := range ps {
		if w.isDone(first + i) {
			t.Errorf("%d is done without a confirm", i)
		}
	}
	ps[1].Ack() // out of order: counted, but it is the first's turn
	ps[0].Ack()
	w.awaitDone(first, first+1)
	if w.isDone(first + 2) {
		t.Error("c is done without a confirm")
	}
	ps[2].Ack()
	w.awaitAll()
	w.noLetters()
	if n := w.counted("pgamqp_confirmed_messages_total", "x"); n != 4 {
		t.Errorf("%v confirms counted", n)
	}
}

func TestConfirmsOfManyAtOnceAndInAnyOrder(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	texts := list("m", 12)
	first, ps := w.inFlight(texts...)
	ps[11].Ack()
	ps[3].AckMultiple() // 0 to 3
	w.awaitDone(first, first+1, first+2, first+3)
	for _, i := range []int{9, 5, 7, 10} {
		ps[i].Ack()
	}
	if w.isDone(first + 8) {
		t.Error("8 is done without a confirm")
	}
	ps[8].AckMultiple()
	w.awaitAll()
	w.noLetters()
}

func TestMessageCarriesWhatTheEnvelopeSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, func(c *Config) { c.Headers = Headers{LSN: true} })
	n := w.publish(envelope(decoder.KindPublish, 1, fields{'x': "ex", 'k': "key", 'm': "1", 't': "text/plain", 'p': "3"}, "body"))
	p := w.arrival()
	got := p.Properties
	if p.Exchange != "ex" || p.Key != "key" || string(p.Body) != "body" || !p.Mandatory || got.DeliveryMode != 1 ||
		got.ContentType != "text/plain" || got.Priority != 3 || got.MessageID != numbered(n) {
		t.Errorf("got %v: %+v", p, got)
	}
	if want := "\x08x-pg-lsnS\x00\x00\x00\x06" + message(n, nil).LSN.String(); string(got.Headers) != want {
		t.Errorf("headers %q, want %q", got.Headers, want)
	}
	w.awaitDone(n)
}

// A broker acks what no queue takes, too. The return comes first.
func TestReturnedMessageIsNotDelivered(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	first, ps := w.inFlight("a", "nowhere", "c")
	ps[1].Return(312, "NO_ROUTE")
	ps[2].AckMultiple()
	w.awaitAll()
	dead := w.dead()
	if len(dead) != 1 {
		t.Fatalf("dead letters: %v", dead)
	}
	d := dead[0]
	if d.Reason != ReasonUnroutable || d.ReplyCode != 312 || d.ReplyText != "NO_ROUTE" || d.Origin != numbered(first+1) ||
		d.MessageID != d.Origin || d.Envelope.RoutingKey != "nowhere" || string(d.Body) != "nowhere" {
		t.Errorf("dead letter %+v", d)
	}
	again := parsed(t, slices.Concat(d.Head, d.Body))
	if again.Origin != d.Origin || again.Exchange != "x" || string(again.Body) != "nowhere" {
		t.Errorf("head and body are %+v", again)
	}
	if n := w.counted("pgamqp_returned_messages_total", "x", "312"); n != 1 {
		t.Errorf("%v returns counted", n)
	}
	if n := w.counted("pgamqp_confirmed_messages_total", "x"); n != 3 {
		t.Errorf("%v confirms counted", n)
	}
}

// Messages with the same id and body are different ones if their headers differ:
// an exchange may route by headers.
func TestReturnOfOneOfTwoAlikeBelongsToTheRightOne(t *testing.T) {
	t.Parallel()
	for what, pair := range map[string][2]fields{
		"headers":        {{'h': `{"to": "here", "n": 1}`}, {'h': `{"to": "nowhere", "n": [1, {"$timestamp": 1}]}`}},
		"correlation id": {{'c': "one"}, {'c': "another"}},
		"timestamp":      {{'s': "1700000000"}, {'s': "1700000001"}},
		"none and one":   {{}, {'y': "replies"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWarmWorld(t)
			alike := func(other fields) []byte {
				f := fields{'x': "x", 'i': "order-1"}
				maps.Copy(f, other)
				return envelope(decoder.KindPublish, 1, f, "body")
			}
			first := w.publish(alike(pair[0]), alike(pair[1]))
			ps := w.arrivals("body", "body")
			ps[1].Return(312, "NO_ROUTE")
			ps[1].AckMultiple()
			w.awaitAll()
			if dead := origins(w.dead()); !slices.Equal(dead, []string{numbered(first + 1)}) {
				t.Errorf("dead letters of %v, want one of %s", dead, numbered(first+1))
			}
		})
	}
}

// A broker may change headers on the way: BCC is taken out, interceptors add some.
// Which of them a return is attached to does not matter, as long as it is one whose verdict
// is still to come.
func TestOfMessagesAlikeAsManyAreDeadAsWereReturned(t *testing.T) {
	t.Parallel()
	const count = 3000
	returned := func(tag uint64) bool { return tag%3 == 0 }
	handler := func(p *fakeamqp.Publish) fakeamqp.Verdict {
		if returned(p.Tag) {
			return fakeamqp.Unroutable
		}
		return fakeamqp.Ack
	}
	w := newWorld(t, fakeamqp.Config{Handler: handler}, nil)
	want := 0
	for tag := range uint64(count) {
		w.publish(envelope(decoder.KindPublish, 1, fields{'x': "x", 'k': "nowhere", 'i': "same"}, "same"))
		if returned(tag + 1) {
			want++
		}
	}
	w.awaitAll()
	if dead := w.dead(); len(dead) != want {
		t.Errorf("%d dead letters, want %d", len(dead), want)
	}
}

func TestReturnWithChangedHeadersIsStillRecognized(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	n := w.publish(envelope(decoder.KindPublish, 1, fields{'x': "x", 'h': `{"BCC": ["a"], "n": 1}`}, "body"))
	p := w.arrival()
	p.Raw = []byte{0x20, 0x80, 0, 0, 0, 0} // an empty table, and the message id
	p.Raw = append(append(p.Raw, byte(len(numbered(n)))), numbered(n)...)
	p.Return(312, "NO_ROUTE")
	p.Ack()
	w.awaitDone(n)
	if dead := w.dead(); len(dead) != 1 || dead[0].Reason != ReasonUnroutable {
		t.Errorf("dead letters %+v", dead)
	}
}

// What came back is one of those in flight, and none may count as delivered before it is
// known which: each is sent again alone.
func TestReturnThatMatchesNothingDeliversNothing(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	first, ps := w.inFlight("a", "b", "c")
	changed := func(p *fakeamqp.Publish) {
		p.Body = []byte("what the broker made of it")
		p.Return(312, "NO_ROUTE")
	}
	changed(ps[1])
	ps[2].AckMultiple()
	again := w.arrivals("a")[0]
	if again.Conn != ps[0].Conn || again.Channel == ps[0].Channel {
		t.Errorf("again: %v, before %v", again, ps[0])
	}
	w.nothingArrivesSoon()
	for i := range 3 {
		if w.isDone(first + i) {
			t.Errorf("message %d counts as delivered", i)
		}
	}
	again.Ack()
	b := w.arrivals("b")[0]
	changed(b)
	b.Ack()
	w.arrivals("c")[0].Ack()
	w.awaitAll()
	if dead := w.dead(); len(dead) != 1 || dead[0].Origin != numbered(first+1) || dead[0].Reason != ReasonUnroutable {
		t.Errorf("dead letters %+v", dead)
	}
	if n := w.counted("pgamqp_publish_retries_total", "channel_closed"); n != 3 {
		t.Errorf("%v retries counted", n)
	}
}

// The return alone decides nothing: the broker owes an ack, which says that it is done
// with the message.
func TestReturnWithoutAckIsNoVerdict(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	first, ps := w.inFlight("a", "b")
	ps[0].Return(312, "NO_ROUTE")
	ps[1].Ack()
	w.nothingArrivesSoon()
	if w.isDone(first) || len(w.dead()) > 0 {
		t.Error("done without an ack")
	}
	ps[0].Conn.Close(320, "CONNECTION_FORCED") // orderly: what was sent before is read
	w.arrivals("a")[0].Ack()                   // on its way again nobody returns it
	w.awaitAll()
	w.nothingArrived()
	w.noLetters()
}

func TestHeadersAreTheSameBehindTheWire(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		sent := tables(3).Draw(r, "headers")
		if !sameHeaders(sent, overTheWire(sent).(amqp.Table)) {
			r.Fatalf("not the same: %v", sent)
		}
		other := tables(3).Draw(r, "other headers")
		want := cmp.Equal(sent, other, cmpopts.EquateEmpty())
		if got := sameHeaders(sent, overTheWire(other).(amqp.Table)); got != want {
			r.Fatalf("%v and %v: %t", sent, other, got)
		}
	})
}

// overTheWire is what the library reads where it wrote a value.
func overTheWire(value any) any {
	switch v := value.(type) {
	case time.Time:
		return time.Unix(v.Unix(), 0)
	case []byte:
		return append([]byte{}, v...)
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, overTheWire(e))
		}
		return out
	case amqp.Table:
		out := amqp.Table{}
		for key, e := range v {
			out[key] = overTheWire(e)
		}
		return out
	}
	return value
}

// What has no dead letter yet is not done, however long the table refuses it.
func TestDeadLetterIsStoredBeforeConfirmation(t *testing.T) {
	t.Parallel()
	junk := append([]byte{1}, "junk"...)
	for name, c := range map[string]struct {
		content []byte
		reason  Reason
	}{
		"unroutable":  {publication("x", "nowhere"), ReasonUnroutable},
		"not found":   {publication("missing", "a"), ReasonNotFound},
		"undecodable": {junk, ReasonUndecodable},
		"invalid":     {envelope(decoder.KindPublish, 1, fields{'m': "7"}, ""), ReasonInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeamqp.Config{
				Exchanges: []string{"x"},
				Handler:   func(*fakeamqp.Publish) fakeamqp.Verdict { return fakeamqp.Unroutable },
			}, nil)
			w.full = 2
			n := w.publish(c.content) // deadLetter looks that it is not done before
			w.awaitDone(n)
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.refused != 2 || len(w.letters) != 1 || w.letters[0].Reason != c.reason {
				t.Errorf("refused %d times, letters %+v", w.refused, w.letters)
			}
		})
	}
}

func TestMessagesThatAreNotForABrokerAreDoneAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	w.define(false) // no broker at all
	w.publish(
		envelope(decoder.KindPing, 0, nil, ""), envelope(decoder.KindHeartbeat, 0, nil, "nonce"),
		envelope(decoder.KindBrokersChanged, 0, nil, ""),
	)
	for n := range 3 {
		if !w.isDone(n) {
			t.Errorf("message %d is not done", n)
		}
	}
	for label, want := range map[string]float64{"control": 2, "heartbeat": 1} {
		if got := w.counted("pgamqp_received_messages_total", label); got != want {
			t.Errorf("%s: %v, want %v", label, got, want)
		}
	}
}

// The server sends messages of every prefix; one that only begins like ours is not ours.
func TestH07OnlyThePrefixItselfIsOurs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, nil)
	prefixes := []string{"", "a", "amq", "amqp2", "amqp ", " amqp", "AMQP", "Amqp", "amqp\x00", "amqp.x"}
	for _, prefix := range prefixes {
		n := w.next()
		m := message(n, publication("x", "forged"))
		m.Prefix = prefix
		if err := w.publisher.Publish(t.Context(), m, w.done(n)); err != nil {
			t.Error(err)
		}
		if !w.isDone(n) {
			t.Errorf("prefix %q holds up the stream", prefix)
		}
	}
	w.to("x", "ours")
	w.awaitAll()
	w.arrivals("ours")
	w.nothingArrived()
	w.noLetters()
	if n := w.counted("pgamqp_received_messages_total", "foreign"); n != float64(len(prefixes)) {
		t.Errorf("%v counted as foreign", n)
	}
}

func TestUndecodableContentIsKeptAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	junk := []byte("\x02 a version of the future")
	n := w.publish(junk)
	w.awaitDone(n)
	dead := w.dead()
	if len(dead) != 1 {
		t.Fatalf("dead letters: %v", dead)
	}
	d := dead[0]
	if d.Reason != ReasonUndecodable || len(d.Head) != 0 || string(d.Body) != string(junk) || d.Origin != numbered(n) || d.MessageID != d.Origin {
		t.Errorf("dead letter %+v", d)
	}
	if got := w.counted("pgamqp_dead_lettered_messages_total", "undecodable", "unknown"); got != 1 {
		t.Errorf("%v counted", got)
	}
}
