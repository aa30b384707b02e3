package publisher

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/metrics"
)

// obey gives broker 1 a policy.
func (w *world) obey(p Policy) {
	w.t.Helper()
	b := brokerAt(1, w.Server)
	b.Policy = p
	w.define(true, b)
}

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

// judge is a broker that takes all, but what a test tells it to refuse.
type judge struct {
	mu       sync.Mutex // guards all below
	refuse   map[string]func(*fakeamqp.Publish) fakeamqp.Verdict
	attempts []string
	accepted []string
}

func (j *judge) handle(p *fakeamqp.Publish) fakeamqp.Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := string(p.Body)
	j.attempts = append(j.attempts, text)
	if refuse := j.refuse[text]; refuse != nil {
		return refuse(p)
	}
	j.accepted = append(j.accepted, text)
	return fakeamqp.Ack
}

// set says how a message is refused; nil: no more.
func (j *judge) set(text string, refuse func(*fakeamqp.Publish) fakeamqp.Verdict) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.refuse == nil {
		j.refuse = map[string]func(*fakeamqp.Publish) fakeamqp.Verdict{}
	}
	j.refuse[text] = refuse
}

func (j *judge) took() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.accepted)
}

func (j *judge) tried(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, a := range j.attempts {
		if a == text {
			n++
		}
	}
	return n
}

// refusals are the ways of a broker not to take a message.
func refusals() map[string]func(*fakeamqp.Publish) fakeamqp.Verdict {
	closing := func(code uint16) func(*fakeamqp.Publish) fakeamqp.Verdict {
		return func(p *fakeamqp.Publish) fakeamqp.Verdict {
			p.Channel.Close(code, "REFUSED - as the broker says")
			return fakeamqp.Hold
		}
	}
	return map[string]func(*fakeamqp.Publish) fakeamqp.Verdict{
		"unroutable":          func(*fakeamqp.Publish) fakeamqp.Verdict { return fakeamqp.Unroutable },
		"nacked":              func(*fakeamqp.Publish) fakeamqp.Verdict { return fakeamqp.Nack },
		"access_refused":      closing(403),
		"not_found":           closing(404),
		"precondition_failed": closing(406),
		"refused": func(p *fakeamqp.Publish) fakeamqp.Verdict {
			p.Conn.Close(541, "INTERNAL_ERROR")
			return fakeamqp.Hold
		},
	}
}

func TestDroppedMessageIsCountedAndDisturbsNobody(t *testing.T) {
	t.Parallel()
	for reason, refuse := range refusals() {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			var j judge
			w := newWorld(t, fakeamqp.Config{Handler: j.handle}, nil)
			var none time.Duration
			w.obey(Policy{OnReject: Drop, RetryTimeout: &none})
			j.set("bad", refuse)
			w.to("x", "a", "b")
			w.awaitDone(w.to("x", "bad"))
			w.to("x", "c", "d")
			w.awaitAll()
			w.noLetters()
			if n := w.counted("pgamqp_dropped_messages_total", "1", reason); n != 1 {
				t.Errorf("%v counted as dropped", n)
			}
			if order, _ := firsts(j.took()); !slices.Equal(order, []string{"a", "b", "c", "d"}) {
				t.Errorf("took %v", order)
			}
			if s := w.status(); s.Held != 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// Whatever is wrong with a message: it keeps its place until the broker takes it.
func TestHeldMessageIsNotOvertaken(t *testing.T) {
	t.Parallel()
	for reason, refuse := range refusals() {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			var j judge
			w := newWorld(t, fakeamqp.Config{Handler: j.handle}, nil)
			var none time.Duration
			w.obey(Policy{OnReject: Hold, RetryTimeout: &none})
			w.awaitDone(w.to("x", "a"))
			j.set("bad", refuse)
			bad := w.to("x", "bad")
			if why := w.awaitHeld(); !strings.Contains(why, numbered(bad)) || !strings.Contains(why, reason) {
				t.Errorf("held: %s", why)
			}
			w.to("x", "b", "c")
			n := j.tried("bad")
			until(t, "more attempts", func() bool { return j.tried("bad") >= n+3 })
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
	first := w.to("x", "a", "b", "c", "d")
	ps := w.arrivals("a", "b", "c", "d")
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

// An operator must get a lane going again, without waiting for the next attempt.
func TestChangedPolicyFreesAHeldLaneAtOnce(t *testing.T) {
	t.Parallel()
	for _, to := range []OnReject{DeadLetters, Drop} {
		t.Run(string(to), func(t *testing.T) {
			t.Parallel()
			var j judge
			j.set("bad", refusals()["access_refused"])
			w := newWorld(t, fakeamqp.Config{Handler: j.handle}, nil)
			w.obey(Policy{OnReject: Hold})
			conn := w.connected()
			bad := w.to("x", "bad")
			w.to("x", "a")
			w.awaitHeld()
			until(t, "long delays", func() bool { return j.tried("bad") >= 6 })
			began := time.Now()
			w.obey(Policy{OnReject: to})
			w.awaitAll()
			if took := time.Since(began); took > eventually {
				t.Errorf("after %s", took)
			}
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
	return newLane(Broker{ID: 1}, Config{}, quiet(), metrics.NewPublisher(prometheus.NewRegistry()).Broker(1))
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

func TestHeldMessageGoesToTheNewHostAtOnce(t *testing.T) {
	t.Parallel()
	var j judge
	j.set("bad", refusals()["not_found"])
	w := newWorld(t, fakeamqp.Config{Handler: j.handle}, nil)
	other := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	w.obey(Policy{OnReject: Hold})
	w.to("x", "bad", "a")
	w.awaitHeld()
	until(t, "long delays", func() bool { return j.tried("bad") >= 6 })
	began := time.Now()
	b := brokerAt(1, other)
	b.Policy.OnReject = Hold
	w.define(true, b)
	w.awaitAll()
	if took := time.Since(began); took > eventually {
		t.Errorf("after %s", took)
	}
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
			var j judge
			j.set("bad", refusals()[reason])
			w := newWorld(t, fakeamqp.Config{Handler: j.handle}, nil)
			w.obey(Policy{OnReject: Hold})
			w.to("x", "bad")
			w.awaitHeld()
			n := j.tried("bad")
			const period = 1500 * time.Millisecond
			<-time.After(period)
			if more := j.tried("bad") - n; more < 1 || more > int(period/holdMin)+1 {
				t.Errorf("%d attempts in %s", more, period)
			}
			j.set("bad", nil)
			w.awaitAll()
		})
	}
}

// A nack is no rejection until the time for retries is over.
func TestRetryTimeoutOfTheBrokerCounts(t *testing.T) {
	t.Parallel()
	var j judge
	j.set("full", refusals()["nacked"])
	w := newWorld(t, fakeamqp.Config{Handler: j.handle}, nil) // the daemon's is longer than any test
	short := 300 * time.Millisecond
	w.obey(Policy{RetryTimeout: &short})
	began := time.Now()
	n := w.to("x", "full")
	w.to("x", "a")
	w.awaitAll()
	if took := time.Since(began); took < short {
		t.Errorf("given up after %s", took)
	}
	dead := w.dead()
	if len(dead) != 1 || dead[0].Origin != numbered(n) || dead[0].Reason != ReasonNacked || !strings.Contains(dead[0].ReplyText, "300ms") {
		t.Errorf("dead letters %+v", dead)
	}
	if j.tried("full") < 2 {
		t.Errorf("%d attempts", j.tried("full"))
	}
}

// No broker is to blame for these, so none says what becomes of them.
func TestWhatNoBrokerRejectsIsADeadLetterWhateverThePolicy(t *testing.T) {
	t.Parallel()
	for _, policy := range []OnReject{Hold, Drop} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll}, nil)
			w.obey(Policy{OnReject: policy})
			first := w.publish(
				[]byte("bad"),
				envelope(decoder.KindPublish, 9, fields{'x': "x"}, "no broker"),
				envelope(decoder.KindPublish, 1, fields{'x': "x", 'p': "300"}, "no priority"),
			)
			w.to("x", "a")
			w.awaitAll()
			var reasons []Reason
			for _, d := range w.dead() {
				reasons = append(reasons, d.Reason)
			}
			if want := []Reason{ReasonUndecodable, ReasonUnknownBroker, ReasonInvalid}; !slices.Equal(reasons, want) {
				t.Errorf("dead letters because of %v, want %v (from message %d)", reasons, want, first)
			}
		})
	}
}

func TestRefusedDeclarationFollowsThePolicy(t *testing.T) {
	t.Parallel()
	for _, policy := range []OnReject{Hold, Drop} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			var j judge
			var mu sync.Mutex
			refused := true
			w := newWorld(t, fakeamqp.Config{Handler: j.handle, Declare: func(o *fakeamqp.Topology) error {
				mu.Lock()
				defer mu.Unlock()
				if refused && o.Name == "e" && !o.Passive {
					return &fakeamqp.Refusal{Code: 406, Text: "PRECONDITION_FAILED - inequivalent arg"}
				}
				return nil
			}}, nil)
			w.obey(Policy{OnReject: policy})
			w.to("x", "a")
			n := w.publish(declaration("e"))
			w.to("x", "b")
			if policy == Drop {
				w.awaitAll()
				if got := w.counted("pgamqp_dropped_messages_total", "precondition_failed"); got != 1 {
					t.Errorf("%v dropped", got)
				}
			} else {
				if why := w.awaitHeld(); !strings.Contains(why, `declare exchange "e"`) || !strings.Contains(why, "406 PRECONDITION_FAILED") {
					t.Errorf("held: %s", why)
				}
				if w.isDone(n) || !slices.Equal(j.took(), []string{"a"}) {
					t.Errorf("took %v", j.took())
				}
				mu.Lock()
				refused = false
				mu.Unlock()
				w.awaitAll()
			}
			w.noLetters()
			if got := j.took(); !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("took %v", got)
			}
		})
	}
}

// A stop does not wait for a message that the broker will not take, and says so.
func TestDrainGivesUpOnAHeldLane(t *testing.T) {
	t.Parallel()
	var j judge
	j.set("bad", refusals()["unroutable"])
	w := newWorld(t, fakeamqp.Config{Handler: j.handle}, nil)
	w.obey(Policy{OnReject: Hold})
	bad := w.to("x", "bad")
	w.awaitHeld()
	began := time.Now()
	err := w.publisher.Drain(t.Context())
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), numbered(bad)) || took > limit/2 {
		t.Errorf("after %s: %v", took, err)
	}
	// The stream brings it again.
	j.set("bad", nil)
	until(t, "nothing is held", func() bool { return w.counted("pgamqp_broker_holding", "1") == 0 })
	if w.isDone(bad) {
		t.Error("done though it was given up")
	}
	w.awaitDone(w.to("x", "bad"))
}

// The password was changed while the connection of the messages lives on.
func TestDeclarationIsNotBlamedForARefusedLogin(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	logins := 0
	w := newWorld(t, fakeamqp.Config{Handler: fakeamqp.AckAll, Login: func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if logins++; logins == 2 || logins == 3 {
			return &fakeamqp.Refusal{Code: 403, Text: "ACCESS_REFUSED - Login was refused"}
		}
		return nil
	}}, nil)
	w.awaitDone(w.to("x", "a"))
	n := w.publish(declaration("e"))
	w.to("x", "b")
	w.awaitAll()
	w.noLetters()
	if o := w.operated(); o.Name != "e" {
		t.Errorf("%v (message %d)", o, n)
	}
	if n := w.counted("pgamqp_broker_connects_total", "denied"); n != 1 {
		t.Errorf("%v attempts were denied", n) // that of the declaration is not counted
	}
}

func TestDroppedMessagesAreFewLinesInTheLog(t *testing.T) {
	t.Parallel()
	var lines tally
	at := time.Unix(1000, 0)
	var got []string
	for i := range 1000 {
		if n := lines.add(at.Add(time.Duration(i) * dropLogEvery / 300)); n > 0 {
			got = append(got, fmt.Sprint(i, ":", n))
		}
	}
	if want := []string{"0:1", "300:300", "600:300", "900:300"}; !slices.Equal(got, want) {
		t.Errorf("lines at %v, want %v", got, want)
	}
}
