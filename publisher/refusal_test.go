package publisher

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/metrics"
)

// ledger is what a broker has done with the messages, by their bodies.
type ledger struct {
	mu       sync.Mutex // guards all below
	attempts []string   // in order of arrival
	accepted []string   // in order, a message again when it came again
}

func (l *ledger) arrived(p *fakeamqp.Publish) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attempts = append(l.attempts, string(p.Body))
}

// accept notes a message that a queue now has, whether the confirm arrives or not.
func (l *ledger) accept(p *fakeamqp.Publish) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted = append(l.accepted, string(p.Body))
}

// firsts returns the first occurrence of each, and how many repeat one.
func firsts(all []string) (first []string, repeated int) {
	seen := map[string]bool{}
	for _, s := range all {
		if seen[s] {
			repeated++
			continue
		}
		seen[s] = true
		first = append(first, s)
	}
	return first, repeated
}

// A refusal closes the channel and takes the verdicts of all in flight along.
func TestRefusedMessageIsFoundAmongMany(t *testing.T) {
	t.Parallel()
	for code, reason := range map[uint16]Reason{
		403: metrics.ReasonAccessRefused, 404: ReasonNotFound, 406: metrics.ReasonPreconditionFailed,
		311: ReasonTooLarge, 405: metrics.ReasonRefused,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			const window = 20
			var l ledger
			var held []*fakeamqp.Publish // until the first refusal nothing is confirmed
			refused := false
			w := newWorld(t, fakeamqp.Config{Handler: func(p *fakeamqp.Publish) fakeamqp.Verdict {
				l.arrived(p)
				switch {
				case string(p.Body) == "warm":
					return fakeamqp.Ack
				case strings.HasPrefix(string(p.Body), "bad"):
					refused = true
					p.Channel.Close(code, "REFUSED - as the broker says")
					return fakeamqp.Hold
				case !refused:
					l.accept(p)
					held = append(held, p)
					return fakeamqp.Hold
				}
				l.accept(p)
				time.AfterFunc(2*time.Millisecond, p.Ack) // so that more than one is in flight
				return fakeamqp.Hold
			}}, func(c *Config) { c.WindowMessages = window })
			w.to("x", "warm")
			w.awaitAll()
			var good, bad []string
			for i := range 60 {
				text := fmt.Sprint("good", i)
				if i == window/2 || i == 40 {
					text = fmt.Sprint("bad", i)
					bad = append(bad, numbered(w.to("x", text)))
					continue
				}
				good = append(good, text)
				w.to("x", text)
			}
			w.awaitAll()
			got := w.dead()
			for i, d := range got {
				if i >= len(bad) || d.Origin != bad[i] || d.Reason != reason || d.ReplyCode != code || d.ReplyText != "REFUSED - as the broker says" {
					t.Errorf("dead letter %d: %s %s %d %s", i, d.Origin, d.Reason, d.ReplyCode, d.ReplyText)
				}
			}
			if len(got) != len(bad) {
				t.Errorf("%d dead letters for %d refused messages", len(got), len(bad))
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			order, duplicates := firsts(l.accepted)
			if !slices.Equal(order, good) {
				t.Errorf("accepted %v", order)
			}
			if duplicates > 2*window {
				t.Errorf("%d duplicates with a window of %d and two refusals", duplicates, window)
			}
		})
	}
}

// The first message to an exchange goes alone, behind a look whether it exists.
func TestMissingExchangeDisturbsNobody(t *testing.T) {
	t.Parallel()
	var l ledger
	channels := map[*fakeamqp.Channel]bool{}
	w := newWorld(t, fakeamqp.Config{Exchanges: []string{"x"}, Handler: func(p *fakeamqp.Publish) fakeamqp.Verdict {
		l.arrived(p)
		l.mu.Lock()
		defer l.mu.Unlock()
		channels[p.Channel] = true
		return fakeamqp.Ack
	}}, nil)
	var want []string
	for i := range 30 {
		text := fmt.Sprint("m", i)
		want = append(want, text)
		w.to("x", text)
		if i%10 == 5 {
			w.to("missing", "lost")
		}
	}
	w.awaitAll()
	dead := w.dead()
	for _, d := range dead {
		if d.Reason != ReasonNotFound || d.ReplyCode != 404 || d.Envelope.Exchange != "missing" || !strings.Contains(d.ReplyText, "no exchange 'missing'") {
			t.Errorf("dead letter %+v", d)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(dead) != 3 || !slices.Equal(l.attempts, want) {
		t.Errorf("%d dead letters, attempts %v", len(dead), l.attempts)
	}
	if len(channels) != 1 {
		t.Errorf("used %d channels", len(channels))
	}
}

func TestExchangeDeletedUnderWay(t *testing.T) {
	t.Parallel()
	var l ledger
	w := newWorld(t, fakeamqp.Config{Exchanges: []string{"x", "y"}, Handler: func(p *fakeamqp.Publish) fakeamqp.Verdict {
		l.arrived(p)
		return fakeamqp.Ack
	}}, nil)
	w.to("x", "warm x")
	w.to("y", "warm y")
	w.awaitAll()
	w.DeleteExchange("y")
	for i := range 10 {
		w.to("x", fmt.Sprint("x", i))
		w.to("y", fmt.Sprint("y", i))
	}
	w.awaitAll()
	dead := w.dead()
	for i, d := range dead {
		if d.Reason != ReasonNotFound || string(d.Body) != fmt.Sprint("y", i) {
			t.Errorf("dead letter %d: %s %q", i, d.Reason, d.Body)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	order, _ := firsts(l.attempts[2:])
	if len(dead) != 10 || !slices.Equal(order, list("x", 10)) {
		t.Errorf("%d dead letters, accepted %v", len(dead), order)
	}
}

// A message that makes the broker close the whole connection is the culprit only
// when it has done so several times alone: it may be the broker's own trouble.
func TestMessageThatBreaksTheConnectionAgainAndAgainIsTheCulprit(t *testing.T) {
	t.Parallel()
	var l ledger
	w := newWorld(t, fakeamqp.Config{Handler: func(p *fakeamqp.Publish) fakeamqp.Verdict {
		l.arrived(p)
		if string(p.Body) == "bad" {
			p.Conn.Close(541, "INTERNAL_ERROR")
			return fakeamqp.Hold
		}
		return fakeamqp.Ack
	}}, nil)
	w.warm("x")
	w.to("x", "a", "bad", "c")
	w.awaitAll()
	dead := w.dead()
	if len(dead) != 1 || string(dead[0].Body) != "bad" || dead[0].Reason != metrics.ReasonRefused || dead[0].ReplyCode != 541 {
		t.Errorf("dead letters %+v", dead)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.attempts {
		if s == "bad" {
			n++
		}
	}
	if order, _ := firsts(l.attempts); n < maxFailures || n > maxFailures+1 || !slices.Equal(order, []string{"warm", "a", "bad", "c"}) {
		t.Errorf("attempts %v", l.attempts)
	}
}

// An operator closes connections; no message is to blame.
func TestForcedCloseBlamesNoMessage(t *testing.T) {
	t.Parallel()
	forced := 0
	w := newWorld(t, fakeamqp.Config{Handler: func(p *fakeamqp.Publish) fakeamqp.Verdict {
		if string(p.Body) == "unlucky" && forced < 4 {
			forced++
			p.Conn.Close(320, "CONNECTION_FORCED - Closed via management plugin")
			return fakeamqp.Hold
		}
		return fakeamqp.Ack
	}}, nil)
	w.awaitDone(w.to("x", "unlucky"))
	w.noLetters()
}
