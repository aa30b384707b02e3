package publisher

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/metrics"
)

// awaitHeld waits until the lane is held up, and returns why.
func (w *world) awaitHeld() string {
	w.t.Helper()
	until(w.t, "the lane is held up", func() bool { return w.counted("pgamqp_broker_holding", "1") == 1 })
	s := w.status()
	if s.Down.IsZero() || s.Err == nil {
		w.t.Fatalf("status %+v", s)
	}
	return s.Err.Error()
}

// Whatever is wrong with a message: it keeps its place until the broker takes it.
func TestHeldMessageIsNotOvertaken(t *testing.T) {
	t.Parallel()
	for reason, refuse := range refusals() {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			var none time.Duration
			w, j := newJudgedWorld(t, Policy{OnReject: Hold, RetryTimeout: &none})
			w.awaitDone(w.to("x", "a"))
			j.set("bad", refuse)
			bad := w.to("x", "bad")
			if why := w.awaitHeld(); !strings.Contains(why, numbered(bad)) || !strings.Contains(why, reason) {
				t.Errorf("held: %s", why)
			}
			w.to("x", "b", "c")
			n := j.tried("bad")
			until(t, "more attempts", func() bool { return j.tried("bad") >= n+2 })
			if got := j.took(); !slices.Equal(got, []string{"a"}) {
				t.Errorf("took %v behind the held one", got)
			}
			if s := w.status(); s.Held != 3 {
				t.Errorf("status %+v", s)
			}
			j.set("bad", nil)
			w.awaitAll()
			w.noLetters()
			if got := j.took(); !slices.Equal(got, []string{"a", "bad", "b", "c"}) {
				t.Errorf("took %v", got)
			}
			until(t, "the lane is free", func() bool {
				return w.counted("pgamqp_broker_holding", "1") == 0 && w.status().Down.IsZero()
			})
		})
	}
}

func TestHeldMessageGoesOnceItsExchangeIsThere(t *testing.T) {
	t.Parallel()
	var j judge
	w := newWorld(t, fakeamqp.Config{Handler: j.handle, Exchanges: []string{"x"}}, nil)
	w.obey(Policy{OnReject: Hold})
	w.to("x", "a")
	w.to("missing", "m")
	w.to("x", "b")
	if why := w.awaitHeld(); !strings.Contains(why, "no exchange 'missing'") {
		t.Errorf("held: %s", why)
	}
	w.AddExchange("missing")
	w.awaitAll()
	w.noLetters()
	if got := j.took(); !slices.Equal(got, []string{"a", "m", "b"}) {
		t.Errorf("took %v", got)
	}
}

// Several were in flight when the first was refused.
func TestHeldMessagesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeamqp.Config{}, nil)
	w.obey(Policy{OnReject: Hold})
	w.warm("x")
	first, ps := w.inFlight("a", "b", "c", "d")
	for _, p := range ps[1:3] { // b and c
		p.Return(312, "NO_ROUTE")
	}
	ps[3].AckMultiple()
	w.awaitDone(first, first+3)
	w.to("x", "e")
	for _, text := range []string{"b", "c", "e"} {
		p := w.arrivals(text)[0]
		w.nothingArrivesSoon() // each waits for the one before
		p.Ack()
	}
	w.awaitAll()
	w.noLetters()
	if n := w.counted("pgamqp_publish_retries_total", "connection_lost"); n != 0 {
		t.Errorf("%v sent again because of a lost connection", n)
	}
}

// An operator must get a lane going again.
func TestChangedPolicyFreesAHeldLane(t *testing.T) {
	t.Parallel()
	for _, to := range []OnReject{DeadLetters, Drop} {
		t.Run(string(to), func(t *testing.T) {
			t.Parallel()
			w, j := newJudgedWorld(t, Policy{OnReject: Hold})
			j.set("bad", refusals()["access_refused"])
			conn := w.connected()
			bad := w.to("x", "bad")
			w.to("x", "a")
			w.awaitHeld()
			w.obey(Policy{OnReject: to})
			w.awaitAll()
			if dead := origins(w.dead()); to == DeadLetters && !slices.Equal(dead, []string{numbered(bad)}) {
				t.Errorf("dead letters %v", dead)
			}
			if n := w.counted("pgamqp_dropped_messages_total", "access_refused"); to == Drop && n != 1 {
				t.Errorf("%v dropped", n)
			}
			for _, e := range w.Pending() { // a policy is no reason to reconnect
				if c, ok := e.(*fakeamqp.Closed); ok && c.Conn == conn {
					t.Error("the connection was closed")
				}
			}
		})
	}
}

// Whatever a lane waits for before it tries again, a change of the policy ends it.
func TestChangedPolicyEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBareLane(t)
		began := time.Now()
		go func() {
			<-time.After(time.Minute)
			w.setPolicy(Policy{OnReject: Drop})
		}()
		w.pause(t.Context(), backoff.New(time.Hour, time.Hour))
		if waited := time.Since(began); waited != time.Minute {
			t.Errorf("waited for %s", waited)
		}
		w.pause(t.Context(), backoff.New(time.Hour, time.Hour))
		if waited := time.Since(began); waited != time.Hour+time.Minute {
			t.Errorf("without a change, waited for %s", waited)
		}
	})
}

// newBareLane is a lane that nobody runs.
func newBareLane(t *testing.T) *lane {
	t.Helper()
	cfg := Config{WindowMessages: 10, WindowBytes: 1 << 20}
	return newLane(Broker{ID: 1}, cfg, quiet(), metrics.NewPublisher(prometheus.NewRegistry()).Broker(1))
}

// The next held message is news: its cause may be gone already.
func TestPauseOfAHeldMessageGrowsAndBeginsAnewWithTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newBareLane(t)
		p := &pump{lane: l, refused: make(chan struct{}, 1)}
		pause := func() time.Duration {
			began := time.Now()
			l.pauseHeld(t.Context())
			return time.Since(began)
		}
		for range 2 {
			e := &entry{done: func() {}}
			l.window.add(e)
			l.window.take()
			var longest time.Duration
			for i := range 100 {
				p.hold(e, verdict{reason: ReasonUnroutable})
				waited := pause()
				if i == 0 && waited != holdMin {
					t.Errorf("at first it waits for %s", waited)
				}
				longest = max(longest, waited)
			}
			if longest > holdMax || longest < holdMax/2 {
				t.Errorf("at last it waits for up to %s", longest)
			}
			l.resolve(e)
		}
	})
}

// The news of the change waits in the stream behind what the full window keeps back.
func TestChangedPolicyIsSeenThoughTheWindowIsFull(t *testing.T) {
	t.Parallel()
	var j judge
	j.set("bad", refusals()["unroutable"])
	w := newWorld(t, fakeamqp.Config{Handler: j.handle}, func(c *Config) { c.WindowMessages = 3 })
	w.obey(Policy{OnReject: Hold})
	w.to("x", "bad", "b", "c")
	w.awaitHeld()
	b := brokerAt(1, w.Server)
	w.define(false, b) // nothing in the stream says so
	w.to("x", "d")     // blocks until there is room
	w.awaitAll()
	if dead := w.dead(); len(dead) != 1 || string(dead[0].Body) != "bad" {
		t.Errorf("dead letters %+v", dead)
	}
}

func TestHeldMessageGoesToTheNewHost(t *testing.T) {
	t.Parallel()
	other := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	w, j := newJudgedWorld(t, Policy{OnReject: Hold})
	j.set("bad", refusals()["not_found"])
	w.to("x", "bad", "a")
	w.awaitHeld()
	b := brokerAt(1, other)
	b.Policy.OnReject = Hold
	w.define(true, b)
	w.awaitAll()
	for _, want := range []string{"bad", "a"} {
		if p := fakeamqp.Await[*fakeamqp.Publish](t, other); string(p.Body) != want {
			t.Errorf("got %v, want %s", p, want)
		}
	}
	w.noLetters()
}

func TestHeldMessageIsNotTriedInAHotLoop(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"unroutable", "access_refused", "refused"} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			w, j := newJudgedWorld(t, Policy{OnReject: Hold})
			j.set("bad", refusals()[reason])
			w.to("x", "bad")
			w.awaitHeld()
			n := j.tried("bad")
			until(t, "more attempts", func() bool { return j.tried("bad") >= n+3 })
			j.set("bad", nil)
			w.awaitAll()
			at := j.times("bad")
			for i := 2; i < len(at); i++ { // the policy, which is new, ends the first pause at once
				if pause := at[i].Sub(at[i-1]); pause < min(holdMin, unreachableMin) {
					t.Errorf("attempt %d comes after %s", i, pause)
				}
			}
		})
	}
}

// A stop does not wait for a message that the broker will not take, and says so.
func TestDrainGivesUpOnAHeldLane(t *testing.T) {
	t.Parallel()
	w, j := newJudgedWorld(t, Policy{OnReject: Hold})
	j.set("bad", refusals()["unroutable"])
	bad := w.to("x", "bad")
	w.awaitHeld()
	if err := receive(t, "drain", w.drained(t.Context())); err == nil || !strings.Contains(err.Error(), numbered(bad)) {
		t.Errorf("got %v", err)
	}
	// The stream brings it again.
	j.set("bad", nil)
	until(t, "nothing is held", func() bool { return w.counted("pgamqp_broker_holding", "1") == 0 })
	if w.isDone(bad) {
		t.Error("done though it was given up")
	}
	w.awaitDone(w.to("x", "bad"))
}
