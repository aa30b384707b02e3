package publisher

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgamqp/pgamqp/internal/backoff"
)

// OnReject is what becomes of a message that the broker will not take, however
// often it is sent. Anything else than the constants below means [DeadLetters].
type OnReject string

// The values of amqp.broker.on_reject.
const (
	// DeadLetters stores the message in amqp.dead_letter.
	DeadLetters OnReject = "dead_letter"
	// Hold keeps the message in its place and tries it until the broker takes it.
	// Nothing behind it is sent meanwhile.
	Hold OnReject = "hold"
	// Drop throws the message away and counts it.
	Drop OnReject = "drop"
)

// Policy is what a broker's definition says about messages that it will not take.
type Policy struct {
	OnReject OnReject
	// RetryTimeout is how long a nacked message is tried again before OnReject applies
	// to it; nil means [Config.NackRetry].
	RetryTimeout *time.Duration
}

func (p Policy) equal(o Policy) bool {
	a, b := p.RetryTimeout, o.RetryTimeout
	return p.OnReject == o.OnReject && (a == nil) == (b == nil) && (a == nil || *a == *b)
}

const (
	// A held message is tried again after holdMin, then ever more slowly up to holdMax:
	// nothing tells the daemon that a queue was bound or a permission given.
	holdMin, holdMax = 100 * time.Millisecond, 5 * time.Second
	// dropLogEvery is how often dropped messages are worth a line in the log.
	dropLogEvery = 10 * time.Second
)

// currentPolicy is the policy as defined now, with its defaults filled in.
func (l *lane) currentPolicy() (onReject OnReject, retry time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	retry = l.cfg.NackRetry
	if l.policy.RetryTimeout != nil {
		retry = *l.policy.RetryTimeout
	}
	return l.policy.OnReject, retry
}

// setPolicy changes what becomes of rejected messages, and has a lane that waits
// before it tries one again try at once.
func (l *lane) setPolicy(p Policy) {
	l.mu.Lock()
	l.policy = p
	l.mu.Unlock()
	signal(l.hurry)
}

// reject does with an entry what the broker's policy says. True means that it has
// its verdict. False means that publishing ends here: it is held, or ctx ended.
func (p *pump) reject(ctx context.Context, e *entry, v verdict) bool {
	onReject, _ := p.currentPolicy()
	switch {
	case onReject == Hold && v.reason.ByBroker():
		p.hold(e, v)
		return false
	case onReject == Drop && v.reason.ByBroker():
		p.drop(e, v)
		return true
	}
	return p.deadLetter(ctx, e, v)
}

// drop throws an entry away. Called from publish and confirm loop.
func (l *lane) drop(e *entry, v verdict) {
	l.metrics.Dropped(v.reason).Inc()
	if n := l.drops.add(time.Now()); n > 0 {
		l.log.Warn("dropped what the broker will not take", slog.Int("count", n),
			slog.String("last", e.name()), slog.String("reason", v.String()))
	}
	l.tellSettled(e, time.Now(), v)
	l.resolve(e)
}

// hold ends publishing on this channel. The entry waits in the window, in its
// place, and is sent again alone.
func (p *pump) hold(e *entry, v verdict) {
	p.mu.Lock()
	if e.heldAt.IsZero() {
		e.heldAt = time.Now()
	}
	e.heldFor = v
	e.alone = true
	p.measure()
	p.mu.Unlock()
	p.held.Store(true)
	signal(p.refused)
}

// holding returns the entry that holds up the lane, nil if none does. The lock is
// held.
func (l *lane) holding() *entry {
	if e := l.window.front(); e != nil && !e.heldAt.IsZero() {
		return e
	}
	return nil
}

// unavailable returns since when the lane cannot deliver (zero: it can), and why:
// the broker is down, or will not take the message that is next. The lock is held.
func (l *lane) unavailable() (since time.Time, err error) {
	if e := l.holding(); e != nil && (l.down.IsZero() || e.heldAt.Before(l.down)) {
		return e.heldAt, e.heldError()
	}
	return l.down, l.err
}

// holdPause spaces out the attempts to send a held message. It belongs to the lane's
// goroutine.
type holdPause struct {
	wait    *backoff.Backoff
	heldAt  time.Time // of the message that it was last about
	repeats backoff.Repeats
}

// pauseHeld waits before a held message is tried again, but not longer than until
// ctx ends or the policy changes.
func (l *lane) pauseHeld(ctx context.Context) {
	h := &l.holdPause
	l.mu.Lock()
	e := l.holding()
	l.mu.Unlock()
	if e != nil {
		if !e.heldAt.Equal(h.heldAt) { // another one: there is progress
			h.heldAt = e.heldAt
			h.wait.Reset()
		}
		if err := e.heldError(); h.repeats.Worth(err.Error(), time.Now()) {
			l.log.Warn("broker gets no messages until it takes this one", slog.Any("error", err))
		}
	}
	l.pause(ctx, h.wait)
}

// pause waits for the next delay of b, or until ctx ends or the policy changes.
func (l *lane) pause(ctx context.Context, b *backoff.Backoff) {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.hurry:
	case <-ctx.Done():
	}
}

func (e *entry) heldError() error {
	return fmt.Errorf("%s is held until the broker takes it: %s", e.name(), e.heldFor)
}

// name says which message, or declaration, an entry is.
func (e *entry) name() string {
	if op := e.request.operation; op != nil {
		return op.String()
	}
	return fmt.Sprintf("message %s to exchange %q with routing key %q", e.request.properties.MessageId, e.request.exchange, e.request.key)
}

// tally turns many equal lines of a log into a few with a count.
type tally struct {
	mu    sync.Mutex // guards all below
	count int        // since the last line
	at    time.Time  // of the last line
}

// add counts one more. If a line is due it returns the count to put there, else 0.
func (t *tally) add(now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if now.Sub(t.at) < dropLogEvery {
		return 0
	}
	n := t.count
	t.count, t.at = 0, now
	return n
}
