package publisher

import (
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// nothingArrivesSoon gives a mistake the time to show. A lane that is right never
// fails it.
func (w *world) nothingArrivesSoon() {
	w.t.Helper()
	<-time.After(50 * time.Millisecond)
	w.nothingArrived()
}

// A refusal takes the verdicts of all in flight along, so what may be refused has
// no company, neither in front nor behind.
func TestFirstMessageToAnExchangeGoesAlone(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	w.to("x", "a")
	a := w.arrivals("a")[0]
	w.to("y", "b", "c")
	w.to("x", "d")
	w.nothingArrivesSoon()
	a.Ack()
	b := w.arrivals("b")[0]
	w.nothingArrivesSoon()
	b.Ack()
	for _, p := range w.arrivals("c", "d") { // y is known now
		p.Ack()
	}
	w.awaitAll()
}

// Whoever may have closed the channel is sent alone, so that a second refusal
// takes nobody along: no message is sent a third time.
func TestSuspectsAreSentAgainOneByOne(t *testing.T) {
	t.Parallel()
	w := newWarmWorld(t)
	w.to("x", "a", "b", "bad", "d")
	w.arrivals("a", "b", "bad", "d")[2].Channel.Close(406, "PRECONDITION_FAILED")
	for _, text := range []string{"a", "b"} {
		p := w.arrivals(text)[0]
		w.nothingArrivesSoon()
		p.Ack()
	}
	bad := w.arrivals("bad")[0]
	w.nothingArrivesSoon()
	bad.Channel.Close(406, "PRECONDITION_FAILED")
	w.arrivals("d")[0].Ack()
	w.awaitAll()
	if dead := w.dead(); len(dead) != 1 || string(dead[0].Body) != "bad" {
		t.Errorf("dead letters %+v", dead)
	}
	if n := w.counted("pgamqp_publish_retries_total", "channel_closed"); n != 4 {
		t.Errorf("%v retries counted", n)
	}
}

// Both are known before anything is published, so the channel is spared.
func TestChannelSurvivesWhatIsKnownToBeRefused(t *testing.T) {
	t.Parallel()
	for name, content := range map[string][]byte{
		"missing exchange":     publication("missing", "lost"),
		"properties too large": withHeaders(t, 5000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeamqp.Config{FrameMax: 4096, Exchanges: []string{"x"}}, nil)
			w.warm("x")
			w.to("x", "a")
			a := w.arrivals("a")[0]
			lost := w.publish(content)
			w.to("x", "b")
			a.Ack()
			w.awaitDone(lost)
			b := w.arrivals("b")[0]
			if a.Channel != b.Channel {
				t.Errorf("%v, before %v", b, a)
			}
			b.Ack()
			w.awaitAll()
			if dead := w.dead(); len(dead) != 1 || dead[0].Origin != numbered(lost) {
				t.Errorf("dead letters %+v", dead)
			}
			w.AddExchange("missing")
			if name == "missing exchange" { // it is looked for each time
				n := w.publish(content)
				w.arrivals("lost")[0].Ack()
				w.awaitDone(n)
			}
		})
	}
}

// The end of a channel resolves confirms as a nack would. It is none.
func TestR08LostConfirmIsNoNack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, func(c *Config) { c.NackRetry = limit / 2 })
	w.warm("x")
	for _, end := range []func(*fakeamqp.Publish){
		func(p *fakeamqp.Publish) { p.Conn.Drop() },
		func(p *fakeamqp.Publish) { p.Conn.Close(320, "CONNECTION_FORCED") },
		func(p *fakeamqp.Publish) { p.Channel.Close(406, "PRECONDITION_FAILED") },
	} {
		w.to("x", "a", "b")
		end(w.arrivals("a", "b")[0])
		for _, text := range []string{"a", "b"} {
			w.arrivals(text)[0].Ack()
		}
		w.awaitAll()
	}
	w.noLetters()
	if n := w.counted("pgamqp_nacked_messages_total", "x"); n != 0 {
		t.Errorf("%v nacks counted", n)
	}
}

// What waits to go alone was published before the change as well.
func TestChangedBrokerIsSentWhatWaitedForItFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, unhurried)
	other := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	w.warm("x")
	w.to("x", "a")
	w.to("y", "b", "c")
	a := w.arrivals("a")[0]
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		w.define(true, brokerAt(1, other))
	}()
	until(t, "the change to be read", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.asked) > 1
	})
	w.nothingArrivesSoon()
	a.Ack()
	for _, text := range []string{"b", "c"} {
		w.arrivals(text)[0].Ack()
	}
	receive(t, "the change", changed)
	n := w.to("x", "d")
	w.awaitDone(n)
	if p := fakeamqp.Await[*fakeamqp.Publish](t, other); string(p.Body) != "d" {
		t.Errorf("%v", p)
	}
	w.awaitAll()
}
