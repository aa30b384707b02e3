package publisher

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// pump publishes a lane's window over one channel. The publish loop (the lane's
// goroutine) is the only user of the channel; the confirm loop waits for verdicts
// in the order of publishing. Between them is a queue with room for the whole
// window.
type pump struct {
	*lane
	conn    *connection
	channel *amqp.Channel
	probe   *amqp.Channel // for passive declares, which close their channel on a miss; nil until needed

	sent      chan *entry // published, in order; closed when the publish loop ends
	confirmed chan struct{}
	returns   chan amqp.Return
	closing   chan *amqp.Error // the channel's end

	nacked  atomic.Bool
	held    atomic.Bool   // something is held
	stray   atomic.Bool   // a message came back that is none of those in flight
	refused chan struct{} // capacity 1: one of these was set
	cause   *amqp.Error   // why the channel ended; nil if not by an error
	failure error         // an error that makes the connection useless
	again   bool          // the connection is to be made anew
}

// ending says what to do after a pump.
type ending struct {
	err       error // the connection is broken
	reconnect bool  // it is to be made anew
	nacked    bool  // the broker could not store something: wait before trying again
	held      bool  // the broker will not take something, which is held: the same
}

// maxTargets bounds what is remembered of exchanges that were seen to work.
const maxTargets = 10_000

// settleTimeout bounds the wait for confirms before a working connection is given
// up on purpose.
const settleTimeout = 2 * time.Second

// pump publishes until ctx ends, the channel does, or the broker refuses
// something. Afterwards everything without a verdict waits in the window again.
func (l *lane) pump(ctx context.Context, c *connection) ending {
	l.pumping.Lock()
	defer l.pumping.Unlock()
	if l.halted() {
		return ending{reconnect: true}
	}
	ch, err := c.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		return ending{err: fmt.Errorf("open channel: %w", err)}
	}
	l.opened(c)
	size := l.cfg.WindowMessages
	p := &pump{
		lane: l, conn: c, channel: ch,
		sent:      make(chan *entry, size),
		confirmed: make(chan struct{}),
		// One return for each entry in flight: the library throws a return away when it
		// cannot hand it over, and the message would count as delivered.
		returns: ch.NotifyReturn(make(chan amqp.Return, size)),
		closing: ch.NotifyClose(make(chan *amqp.Error, 1)),
		refused: make(chan struct{}, 1),
	}
	go p.confirmLoop(ctx)
	p.publishLoop(ctx)
	close(p.sent)
	p.settle(ctx)
	p.closeChannels()
	<-p.confirmed
	return p.judge(ctx)
}

func (l *lane) halted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.halts > 0
}

// publishLoop publishes what the window gives, until something ends it.
func (p *pump) publishLoop(ctx context.Context) {
	defer p.flush()
	yielded := false
	for !p.sendsAgain() && ctx.Err() == nil {
		if p.conn.blocked.Load() {
			if !p.wait(ctx, p.conn.changed) {
				return
			}
			continue
		}
		e, more := p.next()
		if e == nil && !yielded {
			// Whoever adds entries may be about to add the next: it is given the chance before
			// what has gathered is written.
			yielded = true
			runtime.Gosched()
			continue
		}
		yielded = false
		if e == nil {
			if !p.wait(ctx, p.work) {
				return
			}
			continue
		}
		var ok bool
		if e.request.operation != nil { // it waits until nothing is in flight
			ok = p.operate(ctx, e)
		} else {
			ok = p.send(ctx, e, more)
		}
		if !ok {
			return
		}
	}
}

// flush makes the connection write what it has gathered. It comes before everything that
// waits.
func (p *pump) flush() { p.conn.raw.gather(false) }

// wait waits for a token; false means that publishing ends.
func (p *pump) wait(ctx context.Context, token <-chan struct{}) bool {
	p.flush()
	select {
	case <-token:
		return true
	case <-p.refused:
	case <-ctx.Done():
	case cause := <-p.closing: // nil when closed without an error
		p.cause = cause
	case cause := <-p.conn.closing:
		p.cause = cause
	}
	return false
}

// waitPending waits until at most n entries are in flight.
func (p *pump) waitPending(ctx context.Context, n int) bool {
	for p.pending() > n {
		if !p.wait(ctx, p.settled) {
			return false
		}
	}
	return !p.sendsAgain()
}

// sendsAgain tells whether something is to be sent again, before anything behind it.
func (p *pump) sendsAgain() bool { return p.nacked.Load() || p.held.Load() || p.stray.Load() }

// send publishes one message. A message to a target that is not known to work, or
// one suspected of having closed a channel, goes alone: with nothing else in
// flight, so that a refusal takes no other along. more says that another entry waits.
func (p *pump) send(ctx context.Context, e *entry, more bool) bool {
	target := e.request.target()
	known := p.targets[target]
	alone := e.alone || !known
	p.conn.raw.gather(more && !alone)
	if alone && !p.waitPending(ctx, 1) {
		return false
	}
	if !known {
		if exists, ok := p.exists(ctx, e); !ok || !exists {
			return ok
		}
	}
	if limit := p.conn.Config.FrameSize - 8; limit > 0 && headerFrameSize(&e.request.properties) > limit {
		p.flush()
		return p.reject(ctx, e, verdict{
			reason: ReasonTooLarge,
			text:   fmt.Sprintf("properties and headers take more than the %d bytes that the broker takes", limit),
		})
	}
	r := &e.request
	confirm, err := p.channel.PublishWithDeferredConfirm(r.exchange, r.key, r.mandatory, false, r.properties)
	if err != nil {
		return p.sendFailed(ctx, e, err)
	}
	e.confirm, e.sentAt = confirm, time.Now()
	p.metrics.Exchange(r.exchange).Published.Inc()
	p.sent <- e
	if alone {
		if !p.waitPending(ctx, 0) {
			return false
		}
		if len(p.targets) >= maxTargets {
			clear(p.targets)
		}
		p.targets[target.clone()] = true
	}
	return true
}

// sendFailed deals with an error of the library's. Usually the connection is
// gone. If it happens again and again with the same message it is the message.
func (p *pump) sendFailed(ctx context.Context, e *entry, err error) bool {
	if p.channel.IsClosed() {
		select { // the reason, if the broker gave one
		case p.cause = <-p.closing:
		default:
		}
		return false
	}
	if e.failures++; e.failures >= maxFailures {
		return p.reject(ctx, e, verdict{reason: ReasonInvalid, text: err.Error()})
	}
	p.failure = err
	return false
}

// exists asks the broker for the exchange on a channel of its own. On a miss the
// message is rejected. ok is false if publishing ends.
func (p *pump) exists(ctx context.Context, e *entry) (exists, ok bool) {
	name := e.request.exchange
	if name == "" {
		return true, true
	}
	var err error
	if p.probe == nil || p.probe.IsClosed() {
		if p.probe, err = p.conn.Channel(); err != nil {
			p.failure = fmt.Errorf("open channel: %w", err)
			return false, false
		}
	}
	// Passive: needs no permission, compares neither type nor flags.
	err = p.probe.ExchangeDeclarePassive(name, amqp.ExchangeDirect, false, false, false, false, nil)
	var refusal *amqp.Error
	switch {
	case err == nil:
		return true, true
	case errors.As(err, &refusal) && isRefusal(refusal) && !p.conn.IsClosed():
		return false, p.reject(ctx, e, refusedBy(refusal))
	}
	p.failure = fmt.Errorf("look for exchange %q: %w", name, err)
	return false, false
}

// settle waits for the verdicts of what is in flight, where that has a point: the
// broker refused one message, or the connection is given up on purpose.
func (p *pump) settle(ctx context.Context) {
	if p.failure != nil || p.channel.IsClosed() || p.stray.Load() {
		return
	}
	if ctx.Err() == nil {
		select {
		case <-p.confirmed:
			return
		case <-ctx.Done():
		}
	}
	if p.halted() {
		return
	}
	timer := time.NewTimer(settleTimeout)
	defer timer.Stop()
	select {
	case <-p.confirmed:
	case <-timer.C:
	}
}

// closeChannels closes the channels; if the broker does not answer, the whole
// connection. That resolves all confirms.
func (p *pump) closeChannels() {
	closed := make(chan struct{})
	go func() { // closer
		defer close(closed)
		_ = p.channel.Close()
		if p.probe != nil {
			_ = p.probe.Close()
		}
	}()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
		p.failure = errors.Join(p.failure, errors.New("broker does not answer"))
		p.conn.raw.abort()
		<-closed
	}
}
