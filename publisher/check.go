package publisher

import (
	"context"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// CheckName is how a connection of [Check] is called in RabbitMQ's lists.
const CheckName = "pgamqp check"

// Obstacle is an exchange that messages cannot be published to, and why.
type Obstacle struct {
	Exchange string // "" is the default exchange
	Missing  bool   // it is not there
	Refused  string // what the broker says if the user may not write to it, or nobody may
}

// AlarmError is why a broker that lets us in takes no messages.
type AlarmError struct{ Reason string }

// Error has the broker's own word for the reason.
func (e *AlarmError) Error() string {
	return "the broker has an alarm and takes no messages: " + e.Reason
}

// Check logs in to a host as a lane does, and looks which of the exchanges cannot be published to. It leaves nothing
// behind, and returns within twice dialTimeout and some seconds; the error says what was tried, and is an [AlarmError] if
// the broker waits for memory or disk.
func Check(ctx context.Context, h Host, exchanges []string) (found []Obstacle, err error) {
	ctx, give := context.WithCancelCause(ctx)
	defer give(nil)
	// A broker with an alarm says so when it is sent something, and then reads no more.
	conn, err := dial(ctx, h, CheckName, func(blocked bool, reason string) {
		if blocked {
			give(&AlarmError{reason})
		}
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errors.New("the broker lets us in, and does not answer"))
	defer cancel()
	defer conn.close()
	defer context.AfterFunc(ctx, conn.raw.abort)() // the library knows no context
	for _, name := range exchanges {
		o := Obstacle{Exchange: name}
		if o.Missing, err = conn.misses(name); err == nil && !o.Missing {
			o.Refused, err = conn.refuses(ctx, name)
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause // of what came of it
		}
		if err != nil {
			return found, fmt.Errorf("look whether exchange %q at %s takes messages: %w", name, h.Address(), err)
		}
		if o.Missing || o.Refused != "" {
			found = append(found, o)
		}
	}
	return found, nil
}

// misses tells whether an exchange is not there. That needs no right to it.
func (c *connection) misses(exchange string) (bool, error) {
	if exchange == "" {
		return false, nil // the default exchange is always there, and cannot be declared
	}
	ch, err := c.Channel()
	if err != nil {
		return false, err
	}
	// Passive: the arguments but the name are not compared.
	err = ch.ExchangeDeclarePassive(exchange, amqp.ExchangeDirect, true, false, false, false, nil)
	if refused, ok := errors.AsType[*amqp.Error](err); ok && refused.Code == amqp.NotFound {
		return true, nil // the broker has closed the channel
	}
	if err == nil {
		_ = ch.Close() // goes with the connection at the latest
	}
	return false, err
}

// refuses returns what the broker says against publishing to an exchange: it looks at the rights when a message comes,
// also in a transaction, and the message goes when that is rolled back. The channel is one of its own, because RabbitMQ
// remembers rights for a channel, and closes it when it refuses.
func (c *connection) refuses(ctx context.Context, exchange string) (string, error) {
	ch, err := c.Channel()
	if err != nil {
		return "", err
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1)) // the reason, whichever call comes too late
	err = ch.Tx()
	if err == nil {
		err = ch.PublishWithContext(ctx, exchange, CheckName, true, false, amqp.Publishing{})
	}
	if err == nil {
		err = ch.TxRollback()
	}
	if err == nil {
		_ = ch.Close()
		return "", nil
	}
	if reason := <-closed; reason != nil {
		err = reason
	}
	refused, ok := errors.AsType[*amqp.Error](err)
	switch {
	case ok && refused.Code == amqp.NotFound:
		return "", nil // it went after misses had looked
	case ok && refused.Code == amqp.AccessRefused && strings.Contains(refused.Reason, " to topic "):
		return "", nil // the exchange may be written to, and our routing key is not one of the application's
	case ok && refused.Code == amqp.AccessRefused:
		return refused.Reason, nil
	}
	return "", err
}
