package publisher

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// CheckName is how a connection of [Check] is called in RabbitMQ's lists.
const CheckName = "pgamqp check"

// Check logs in to a host as a lane does, and returns which of the exchanges are not there. It changes nothing, and
// returns within dialTimeout and some seconds; the error says what was tried.
func Check(ctx context.Context, h Host, exchanges []string) (missing []string, err error) {
	conn, err := dial(ctx, h, CheckName, func(bool, string) {})
	if err != nil {
		return nil, err
	}
	defer conn.close()
	defer context.AfterFunc(ctx, conn.raw.abort)() // the library knows no context
	for _, name := range exchanges {
		ch, err := conn.Channel()
		if err != nil {
			return missing, fmt.Errorf("open a channel to broker at %s: %w", h.Address(), err)
		}
		// Passive: the arguments but the name are not compared.
		err = ch.ExchangeDeclarePassive(name, amqp.ExchangeDirect, true, false, false, false, nil)
		var refused *amqp.Error
		switch {
		case err == nil:
			_ = ch.Close() // goes with the connection at the latest
		case errors.As(err, &refused) && refused.Code == amqp.NotFound:
			missing = append(missing, name) // the broker has closed the channel
		default:
			return missing, fmt.Errorf("look for exchange %q at %s: %w", name, h.Address(), err)
		}
	}
	return missing, nil
}
