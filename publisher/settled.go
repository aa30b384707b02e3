package publisher

import (
	"time"

	"github.com/jackc/pglogrepl"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Settled is a message that has its verdict, as those are told of it who trace messages. What
// it points to is the message's own and must not be changed.
type Settled struct {
	Broker               int32
	Exchange, RoutingKey string
	MessageID            string
	Headers              amqp.Table
	BodySize             int // bytes
	LSN                  pglogrepl.LSN
	// Committed is by the server's clock, zero outside of any transaction; Accepted is when the
	// lane took the message, At when it got its verdict.
	Committed, Accepted, At time.Time
	// Reason and Text say why the broker did not take it; empty if it has confirmed it.
	Reason Reason
	Text   string
}

// tellSettled tells of an entry's verdict. Called from publish and confirm loop.
func (l *lane) tellSettled(e *entry, at time.Time, v verdict) {
	if l.cfg.Settled == nil || e.request.operation != nil {
		return
	}
	p := &e.request.properties
	l.cfg.Settled(&Settled{
		Broker: l.id, Exchange: e.request.exchange, RoutingKey: e.request.key, MessageID: p.MessageId,
		Headers: p.Headers, BodySize: len(p.Body), LSN: e.message.LSN,
		Committed: e.message.CommitTime, Accepted: e.addedAt, At: at,
		Reason: v.reason, Text: v.text,
	})
}
