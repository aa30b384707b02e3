package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/decoder"
)

// operation is a declaration, a binding, or the wish to reconnect.
type operation struct {
	kind decoder.Kind

	exchange, exchangeType, queue, key     string
	passive, durable, autoDelete, internal bool
	arguments                              amqp.Table
}

func newOperation(e *decoder.Envelope) (*operation, error) {
	op := &operation{kind: e.Kind, exchange: e.Exchange, exchangeType: e.Type, queue: e.Queue, key: e.RoutingKey}
	for _, s := range [...]struct{ field, value string }{
		{"exchange", e.Exchange}, {"exchange type", e.Type}, {"queue", e.Queue}, {"routing key", e.RoutingKey},
	} {
		if len(s.value) > maxShortString {
			return nil, invalid(s.field, "has %d bytes, the protocol allows %d", len(s.value), maxShortString)
		}
	}
	for _, f := range e.Flags {
		switch f {
		case 'p':
			op.passive = true
		case 'd':
			op.durable = true
		case 'a':
			op.autoDelete = true
		case 'i':
			op.internal = true
		default:
			return nil, invalid("flag", "%q is not known", f)
		}
	}
	if e.Headers != "" {
		var err error
		if op.arguments, err = parseHeaders(e.Headers); err != nil {
			return nil, err
		}
	}
	return op, nil
}

// String names the operation without its arguments.
func (op *operation) String() string {
	switch op.kind {
	case decoder.KindExchangeDeclare:
		return fmt.Sprintf("declare exchange %q", op.exchange)
	case decoder.KindQueueDeclare:
		return fmt.Sprintf("declare queue %q", op.queue)
	case decoder.KindQueueBind:
		return fmt.Sprintf("bind queue %q to exchange %q", op.queue, op.exchange)
	case decoder.KindExchangeBind:
		return fmt.Sprintf("bind exchange %q to exchange %q", op.queue, op.exchange)
	}
	return op.kind.String()
}

// apply performs the operation.
func (op *operation) apply(ch *amqp.Channel) error {
	const noWait = false
	switch op.kind {
	case decoder.KindExchangeDeclare:
		if op.passive {
			return ch.ExchangeDeclarePassive(op.exchange, op.exchangeType, op.durable, op.autoDelete, op.internal, noWait, op.arguments)
		}
		return ch.ExchangeDeclare(op.exchange, op.exchangeType, op.durable, op.autoDelete, op.internal, noWait, op.arguments)
	case decoder.KindQueueDeclare:
		const exclusive = false // an exclusive queue would end with this connection
		declare := ch.QueueDeclare
		if op.passive {
			declare = ch.QueueDeclarePassive
		}
		_, err := declare(op.queue, op.durable, op.autoDelete, exclusive, noWait, op.arguments)
		return err
	case decoder.KindQueueBind:
		return ch.QueueBind(op.queue, op.key, op.exchange, noWait, op.arguments)
	case decoder.KindExchangeBind:
		return ch.ExchangeBind(op.queue, op.key, op.exchange, noWait, op.arguments)
	}
	return fmt.Errorf("apply operation %s: not an operation on the topology", op.kind)
}

// operate performs a declaration or a binding once nothing is in flight: it takes
// effect between the messages around it.
func (p *pump) operate(ctx context.Context, e *entry) bool {
	if !p.waitPending(ctx, 1) {
		return false
	}
	if e.request.operation.kind == decoder.KindDisconnect {
		p.log.Info("reconnecting to broker as asked by amqp.disconnect")
		p.resolve(e)
		p.again = true
		return false
	}
	refusal, err := p.apply(ctx, e.request.operation)
	switch {
	case err != nil:
		p.failure = fmt.Errorf("%s: %w", e.request.operation, err)
		return false
	case refusal == nil:
		p.log.Debug("declared", slog.String("operation", e.request.operation.String()))
		p.resolve(e)
		return true
	}
	// An internal error may be the broker's own trouble.
	if e.failures++; refusal.Code != amqp.InternalError || e.failures >= maxFailures {
		return p.reject(ctx, e, refusedBy(refusal))
	}
	p.failure = fmt.Errorf("%s: %w", e.request.operation, refusal)
	return false
}

// apply performs an operation on a connection of its own. A refusal is what the broker
// says of the operation; any other error is one of the connection.
func (p *pump) apply(ctx context.Context, op *operation) (refusal *amqp.Error, err error) {
	c, err := dial(ctx, p.conn.host, p.cfg.ConnectionName+" declarations", func(bool, string) {})
	if err != nil {
		return nil, err
	}
	defer c.close()
	defer context.AfterFunc(ctx, c.raw.abort)()
	ch, err := c.Channel()
	if err != nil {
		return nil, err
	}
	if err = op.apply(ch); errors.As(err, &refusal) && isRefusal(refusal) {
		return refusal, nil
	}
	return nil, err
}
