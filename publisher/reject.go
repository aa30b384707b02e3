package publisher

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/metrics"
)

// Reason is why a message became a dead letter.
type Reason = metrics.DeadLetterReason

// The reasons, as they stand in amqp.dead_letter.
const (
	ReasonUnroutable    = metrics.ReasonUnroutable
	ReasonNotFound      = metrics.ReasonNotFound
	ReasonTooLarge      = metrics.ReasonTooLarge
	ReasonNacked        = metrics.ReasonNacked
	ReasonUndecodable   = metrics.ReasonUndecodable
	ReasonInvalid       = metrics.ReasonInvalid
	ReasonUnknownBroker = metrics.ReasonUnknownBroker
	ReasonForged        = metrics.ReasonForged
)

// DeadLetter is a message that could not be delivered, with all that is needed to
// look at it and to send it again.
type DeadLetter struct {
	// Origin is the message's identity over all redeliveries: one letter for each.
	Origin string
	// Envelope is what was read of it; its zero value if it could not be read.
	Envelope  decoder.Envelope
	Message   decoder.Message
	MessageID string // as sent, or as it would have been
	Reason    Reason
	ReplyCode uint16 // of the broker, 0 if it was not asked
	ReplyText string
	// Head and Body are the content to be emitted again, one after the other.
	Head, Body []byte
}

// verdict is why a message is rejected.
type verdict struct {
	reason Reason
	code   uint16
	text   string
}

func (v verdict) String() string {
	if v.code == 0 {
		return fmt.Sprintf("%s, %s", v.reason, v.text)
	}
	return fmt.Sprintf("%s, %d %s", v.reason, v.code, v.text)
}

// maxFailures is how often a message may end a connection while alone on it,
// before it is taken to be the cause.
const maxFailures = 3

// isRefusal tells whether an error of the broker is about what was sent, as
// against the state of the connection or the broker.
func isRefusal(e *amqp.Error) bool {
	return e != nil && e.Server && e.Code != amqp.ConnectionForced && e.Code != 200
}

func refusedBy(e *amqp.Error) verdict {
	v := verdict{reason: metrics.ReasonRefused, code: uint16(e.Code), text: e.Reason}
	switch e.Code {
	case amqp.NotFound:
		v.reason = metrics.ReasonNotFound
	case amqp.AccessRefused:
		v.reason = metrics.ReasonAccessRefused
	case amqp.PreconditionFailed:
		v.reason = metrics.ReasonPreconditionFailed
	case amqp.ContentTooLarge, amqp.FrameError:
		v.reason = metrics.ReasonTooLarge
	}
	return v
}

// judge decides what becomes of everything that was in flight when the channel
// ended. Only then is it known what has a verdict.
func (p *pump) judge(ctx context.Context) ending {
	if p.cause == nil {
		select {
		case p.cause = <-p.closing:
		default:
		}
	}
	stray := p.stray.Load()
	p.mu.Lock()
	var open []*entry
	for _, e := range p.window.inFlight() {
		// One with an ack was returned and is held: it is not in doubt, unless all are.
		if e.confirm != nil && (stray || !e.confirm.Acked()) {
			open = append(open, e)
		}
	}
	p.mu.Unlock()

	if p.failure == nil && p.conn.IsClosed() {
		p.failure = amqp.ErrClosed
		if p.cause != nil {
			p.failure = p.cause
		}
	}
	nacked := p.nacked.Load() && p.cause == nil && !stray
	switch {
	case isRefusal(p.cause):
		p.findCulprit(ctx, open)
	case stray:
		p.sendAlone(open)
	case nacked:
		p.retryNacked(ctx, open)
	case len(open) > 0:
		p.metrics.Retries.ConnectionLost.Add(float64(len(open)))
	}
	p.rewind()
	return ending{err: p.failure, reconnect: p.again, nacked: nacked || stray, held: p.held.Load()}
}

// findCulprit deals with a channel, or connection, that the broker closed because
// of a message. With one message in flight it is known which. With several, each
// is sent again alone until the culprit is found.
func (p *pump) findCulprit(ctx context.Context, open []*entry) {
	clear(p.targets) // the exchange may be gone, the permission revoked
	if p.refusals.Worth(p.cause.Reason, time.Now()) {
		p.log.Warn("broker refused a message", slog.Int("code", p.cause.Code), slog.String("reason", p.cause.Reason),
			slog.Int("in_flight", len(open)))
	}
	if len(open) == 1 {
		e := open[0]
		// Errors of the connection may be the broker's own trouble.
		if e.failures++; !p.conn.IsClosed() || e.failures >= maxFailures {
			p.reject(ctx, e, refusedBy(p.cause))
			return
		}
	}
	p.sendAlone(open)
}

// sendAlone has what was on a closed channel sent again, one at a time.
func (p *pump) sendAlone(open []*entry) {
	p.metrics.Retries.ChannelClosed.Add(float64(len(open)))
	for _, e := range open {
		e.alone = true
	}
}

// retryNacked lets refused messages be sent again, in order and one at a time,
// until the time for that is over.
func (p *pump) retryNacked(ctx context.Context, open []*entry) {
	_, retry := p.currentPolicy()
	for _, e := range open {
		if e.nackedAt.IsZero() {
			continue
		}
		if time.Since(e.nackedAt) >= retry {
			p.reject(ctx, e, verdict{reason: ReasonNacked, text: "the broker could not take the message for " + retry.String()})
			continue
		}
		e.alone = true
		p.setTrouble(fmt.Errorf("%s is tried again: the broker could not take it", e.name()))
		p.metrics.Retries.Nacked.Inc()
	}
}

// deadLetter stores an entry as a dead letter and resolves it. It tries until it
// succeeds; false means that ctx ended before, and the entry has no verdict.
func (l *lane) deadLetter(ctx context.Context, e *entry, v verdict) bool {
	parsed, _ := decoder.ParseEnvelope(e.message.Content) // gave no error before
	letter := newDeadLetter(&e.message, &parsed, v)
	letter.MessageID = e.request.properties.MessageId
	if !l.cfg.bury(ctx, l.log, letter, l.setTrouble) {
		return false
	}
	l.letters.add(&letter)
	l.metrics.DeadLettered(v.reason).Inc()
	l.tellSettled(e, time.Now(), v)
	l.resolve(e)
	return true
}

// buryAll makes dead letters of what a deleted broker's lane still holds.
func (l *lane) buryAll(ctx context.Context) {
	for e := l.take(); e != nil; e = l.take() {
		if !l.deadLetter(ctx, e, verdict{reason: ReasonUnknownBroker, text: errRetired.Error()}) {
			return
		}
	}
}

func newDeadLetter(m *decoder.Message, e *decoder.Envelope, v verdict) DeadLetter {
	d := DeadLetter{
		Origin: identityOf(m, e), Envelope: *e, Message: *m, MessageID: e.MessageID,
		Reason: v.reason, ReplyCode: v.code, ReplyText: v.text, Body: m.Content,
	}
	if v.reason != ReasonUndecodable && v.reason != ReasonForged {
		d.Head, d.Body = e.SplitWithOrigin(m.Content, d.Origin)
	}
	return d
}

// bury stores a dead letter; it tries until it succeeds or ctx ends (false).
// Nothing is lost meanwhile: the message is not confirmed to PostgreSQL. failed is told of
// each error.
func (c *Config) bury(ctx context.Context, log *slog.Logger, d DeadLetter, failed func(error)) bool {
	wait := backoff.New(100*time.Millisecond, 10*time.Second)
	var failures backoff.Repeats
	for {
		err := c.DeadLetter(ctx, d)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		failed(fmt.Errorf("store a dead letter: %w", err))
		if failures.Worth(err.Error(), time.Now()) {
			log.Error("cannot store a dead letter, trying again", slog.String("message_id", d.MessageID), slog.Any("error", err))
		}
		if wait.Wait(ctx) != nil {
			return false
		}
	}
}
