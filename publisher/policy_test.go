package publisher

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// obey gives broker 1 a policy.
func (w *world) obey(p Policy) {
	w.t.Helper()
	b := brokerAt(1, w.Server)
	b.Policy = p
	w.define(true, b)
}

// judge is a broker that takes all, but what a test tells it to refuse.
type judge struct {
	mu       sync.Mutex // guards all below
	refuse   map[string]func(*fakeamqp.Publish) fakeamqp.Verdict
	attempts map[string][]time.Time // when each message came
	accepted []string
}

// newJudgedWorld is a world with such a broker, and a policy for it.
func newJudgedWorld(t *testing.T, p Policy) (*world, *judge) {
	t.Helper()
	j := new(judge)
	w := newWorld(t, fakeamqp.Config{Handler: j.handle}, nil)
	w.obey(p)
	return w, j
}

func (j *judge) handle(p *fakeamqp.Publish) fakeamqp.Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := string(p.Body)
	if j.attempts == nil {
		j.attempts = map[string][]time.Time{}
	}
	j.attempts[text] = append(j.attempts[text], time.Now())
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

// times are when a message has come.
func (j *judge) times(text string) []time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.attempts[text])
}

func (j *judge) tried(text string) int { return len(j.times(text)) }

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
			var none time.Duration
			w, j := newJudgedWorld(t, Policy{OnReject: Drop, RetryTimeout: &none})
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
			w.awaitEmpty(1)
		})
	}
}

// The library refuses to write it, whatever the broker.
func TestMessageThatBreaksTheProtocolIsNeitherHeldNorDropped(t *testing.T) {
	t.Parallel()
	for _, policy := range []OnReject{Hold, Drop} {
		l := newBareLane(t)
		var letters []DeadLetter
		l.cfg.DeadLetter = func(_ context.Context, d DeadLetter) error {
			letters = append(letters, d)
			return nil
		}
		l.setPolicy(Policy{OnReject: policy})
		content := publication("x", "a")
		e := &entry{message: message(0, content), done: func() {}}
		l.window.add(e)
		l.window.take()
		if !(&pump{lane: l}).reject(t.Context(), e, verdict{reason: ReasonInvalid}) || len(letters) != 1 {
			t.Errorf("%s: dead letters %+v", policy, letters)
		}
	}
}

// A nack is no rejection until the time for retries is over.
func TestRetryTimeoutOfTheBrokerCounts(t *testing.T) {
	t.Parallel()
	short := 300 * time.Millisecond
	w, j := newJudgedWorld(t, Policy{RetryTimeout: &short}) // the daemon's is longer than any test
	j.set("full", refusals()["nacked"])
	n := w.to("x", "full")
	w.to("x", "a")
	w.awaitAll()
	if took := time.Since(j.times("full")[0]); took < short {
		t.Errorf("given up after %s", took)
	}
	dead := w.dead()
	if len(dead) != 1 || dead[0].Origin != numbered(n) || dead[0].Reason != ReasonNacked || !strings.Contains(dead[0].ReplyText, "300ms") {
		t.Errorf("dead letters %+v", dead)
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
