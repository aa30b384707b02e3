package publisher

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// resolveAtOnce bounds how many entries get their verdict together.
const resolveAtOnce = 64

// confirmLoop waits for the verdict of each published entry, in order. A broker that is
// busy confirms many at once; these are resolved together.
func (p *pump) confirmLoop(ctx context.Context) {
	defer close(p.confirmed)
	acked := make([]*entry, 0, resolveAtOnce)
	for e := range p.sent {
		select {
		case <-e.confirm.Done():
		default:
			acked = p.succeed(acked)
			<-e.confirm.Done()
		}
		if len(p.returns) > 0 {
			acked = p.succeed(acked) // or a return could be taken for one of these
			p.collectReturns()
		}
		switch {
		case p.stray.Load():
			// Something of what is in flight came back, and perhaps this one. It stays in the
			// window.
		case e.confirm.Acked() && e.returned == nil:
			acked = append(acked, e)
		case e.confirm.Acked():
			acked = p.succeed(acked) // what follows may take long
			p.reject(ctx, e, verdict{reason: ReasonUnroutable, code: e.returned.ReplyCode, text: e.returned.ReplyText})
		case p.channel.IsClosed():
			// The channel's end resolves confirms as a negative one would. Not known: the
			// broker may have the message. It stays in the window.
		default:
			p.metrics.Exchange(e.request.exchange).Nacked.Inc()
			if e.nackedAt.IsZero() {
				e.nackedAt = time.Now()
			}
			p.nacked.Store(true)
			signal(p.refused)
		}
		if len(p.sent) == 0 || len(acked) == resolveAtOnce {
			acked = p.succeed(acked)
		}
	}
	p.succeed(acked)
}

// succeed resolves what the broker has confirmed, and returns the slice for the next.
func (p *pump) succeed(acked []*entry) []*entry {
	if len(acked) == 0 {
		return acked
	}
	now := time.Now()
	for _, e := range acked {
		p.metrics.Exchange(e.request.exchange).Confirmed.Inc()
		p.metrics.ConfirmSeconds.Observe(now.Sub(e.sentAt).Seconds())
		if !e.message.CommitTime.IsZero() {
			p.metrics.CommitToConfirm.Observe(max(0, now.Sub(e.message.CommitTime).Seconds()))
		}
		p.tellSettled(e, now, verdict{})
	}
	p.metrics.LastConfirmed.Set(float64(now.UnixMilli()) / 1e3)
	p.resolve(acked...)
	clear(acked)
	return acked[:0]
}

// collectReturns attaches returned messages to their entries. The library hands a
// return over before it resolves the confirm of the same message, and the broker
// sends both in the order of publishing. One that belongs to no entry ends the
// channel, and with it the use of all verdicts that are still to come.
func (p *pump) collectReturns() {
	for len(p.returns) > 0 {
		r := <-p.returns
		p.metrics.Exchange(r.Exchange).Returned(r.ReplyCode).Inc()
		if !p.attach(&r) && !p.stray.Swap(true) {
			p.log.Error("broker returned a message that does not look like any in flight; sending these again",
				slog.String("exchange", r.Exchange), slog.String("message_id", r.MessageId), slog.Int("code", int(r.ReplyCode)))
			signal(p.refused)
		}
	}
}

// attach gives a return to the first entry in flight that looks most like it, as a
// return carries no delivery tag. All properties and headers decide; but a broker may
// take some out or add some, so without an entry that has the same the headers decide,
// which an exchange may route by, then the rest, and a single entry is it whatever it
// looks like. false means that it is none of several.
func (p *pump) attach(r *amqp.Return) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found *entry
	best := 0
	open := p.window.inFlight()
	for _, e := range open {
		if e.returned != nil || !e.isReturnedAs(r) {
			continue
		}
		if alike := likeness(&e.request.properties, r); alike > best {
			found, best = e, alike
		}
		if best == alikeInAll {
			break
		}
	}
	if found == nil && len(open) == 1 && open[0].request.operation == nil {
		found = open[0]
	}
	if found != nil {
		found.returned = r
	}
	return found != nil
}

// isReturnedAs tells whether r can be this entry, its headers aside. Entries that
// are equal in all of this and in their headers are interchangeable.
func (e *entry) isReturnedAs(r *amqp.Return) bool {
	q := &e.request
	return q.operation == nil && q.exchange == r.Exchange && q.key == r.RoutingKey && q.mandatory &&
		q.properties.MessageId == r.MessageId && string(q.properties.Body) == string(r.Body)
}

// How alike a return and an entry can be that isReturnedAs takes for it.
const (
	alikeInBody = 1 + iota
	alikeInHeaders
	alikeInAll
)

func likeness(p *amqp.Publishing, r *amqp.Return) int {
	switch {
	case !sameHeaders(p.Headers, r.Headers):
		return alikeInBody
	case !sameProperties(p, r):
		return alikeInHeaders
	default:
		return alikeInAll
	}
}

// sameProperties compares what isReturnedAs and sameHeaders do not.
func sameProperties(p *amqp.Publishing, r *amqp.Return) bool {
	return p.ContentType == r.ContentType && p.ContentEncoding == r.ContentEncoding && p.DeliveryMode == r.DeliveryMode &&
		p.Priority == r.Priority && p.CorrelationId == r.CorrelationId && p.ReplyTo == r.ReplyTo && p.Expiration == r.Expiration &&
		p.Timestamp.Equal(r.Timestamp) && p.Type == r.Type && p.UserId == r.UserId && p.AppId == r.AppId
}

// sameHeaders compares headers as sent with headers as read from the wire, where
// only the zone of times differs.
func sameHeaders(a, b amqp.Table) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		if other, ok := b[key]; !ok || !sameValue(value, other) {
			return false
		}
	}
	return true
}

func sameValue(a, b any) bool {
	switch a := a.(type) {
	case time.Time:
		b, ok := b.(time.Time)
		return ok && a.Equal(b)
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameValue)
	case amqp.Table:
		b, ok := b.(amqp.Table)
		return ok && sameHeaders(a, b)
	}
	return a == b
}
