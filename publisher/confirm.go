package publisher

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// confirmLoop waits for the verdict of each published entry, in order.
func (p *pump) confirmLoop(ctx context.Context) {
	defer close(p.confirmed)
	for e := range p.sent {
		<-e.confirm.Done()
		p.collectReturns()
		counts := p.metrics.Exchange(e.request.exchange)
		switch {
		case e.confirm.Acked() && e.returned == nil:
			now := time.Now()
			counts.Confirmed.Inc()
			p.metrics.LastConfirmed.Set(float64(now.UnixMilli()) / 1e3)
			p.metrics.ConfirmSeconds.Observe(now.Sub(e.sentAt).Seconds())
			if !e.message.CommitTime.IsZero() {
				p.metrics.CommitToConfirm.Observe(max(0, now.Sub(e.message.CommitTime).Seconds()))
			}
			p.resolve(e)
		case e.confirm.Acked():
			p.reject(ctx, e, verdict{reason: ReasonUnroutable, code: e.returned.ReplyCode, text: e.returned.ReplyText})
		case p.channel.IsClosed():
			// The channel's end resolves confirms as a negative one would. Not known: the
			// broker may have the message. It stays in the window.
		default:
			counts.Nacked.Inc()
			if e.nackedAt.IsZero() {
				e.nackedAt = time.Now()
			}
			p.nacked.Store(true)
			signal(p.refused)
		}
	}
}

// collectReturns attaches returned messages to their entries. The library hands a
// return over before it resolves the confirm of the same message, and the broker
// sends both in the order of publishing; so it belongs to the first entry in
// flight that looks the same. A return carries no delivery tag.
func (p *pump) collectReturns() {
	for {
		select {
		case r, ok := <-p.returns:
			if !ok {
				p.returns = nil
				return
			}
			p.metrics.Exchange(r.Exchange).Returned(r.ReplyCode).Inc()
			p.mu.Lock()
			for _, e := range p.window.inFlight() {
				if e.returned == nil && e.isReturnedAs(&r) {
					e.returned = &r
					break
				}
			}
			p.mu.Unlock()
		default:
			return
		}
	}
}

// isReturnedAs tells whether r can be this entry. Entries that are equal in all
// of this are interchangeable.
func (e *entry) isReturnedAs(r *amqp.Return) bool {
	q := &e.request
	return q.operation == nil && q.exchange == r.Exchange && q.key == r.RoutingKey && q.mandatory &&
		q.properties.MessageId == r.MessageId && string(q.properties.Body) == string(r.Body)
}
