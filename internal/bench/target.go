package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// target is a broker, as the bench itself and its workers reach it.
type target struct {
	URL    string
	CAFile string // who signs its certificate; empty: the system knows
}

func (w *world) target() target { return target{URL: w.broker.String(), CAFile: w.caFile} }

// dial connects. over, if not nil, is put between the library and the socket.
func (t target) dial(over func(net.Conn) net.Conn) (*amqp.Connection, error) {
	uri, err := amqp.ParseURI(t.URL)
	if err != nil {
		return nil, err
	}
	config, err := t.config(uri)
	if err != nil {
		return nil, err
	}
	if over != nil {
		dial := amqp.DefaultDial(10 * time.Second)
		config.Dial = func(network, address string) (net.Conn, error) {
			c, err := dial(network, address)
			if err != nil {
				return nil, err
			}
			return over(c), nil
		}
	}
	conn, err := amqp.DialConfig(t.URL, config)
	if err != nil {
		return nil, fmt.Errorf("connect to RabbitMQ at %s:%d: %w", uri.Host, uri.Port, err)
	}
	return conn, nil
}

// config is what the library needs besides the URL.
func (t target) config(uri amqp.URI) (amqp.Config, error) {
	c := amqp.Config{Vhost: uri.Vhost, Heartbeat: 10 * time.Second, Properties: amqp.NewConnectionProperties()}
	c.Properties.SetClientConnectionName("pgamqp bench")
	if uri.Scheme != "amqps" {
		return c, nil
	}
	c.TLSClientConfig = &tls.Config{ServerName: uri.Host, MinVersion: tls.VersionTLS12}
	if t.CAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return c, err
	}
	c.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !c.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
		return c, fmt.Errorf("read certificate: %s has none", t.CAFile)
	}
	return c, nil
}

// destination is a queue and the ways to it: each message goes to the next exchange.
type destination struct {
	Queue     string
	Arguments amqp.Table
	// Exchanges are bound to the queue; none is the default exchange.
	Exchanges []string
}

func (d destination) exchange(n int) (exchange, key string) {
	if len(d.Exchanges) == 0 {
		return "", d.Queue
	}
	return d.Exchanges[n%len(d.Exchanges)], d.Queue
}

// destination names a queue of a type with a number of exchanges; 0 is the default one.
func (w *world) destination(queueType string, exchanges int) destination {
	d := destination{Queue: w.name, Arguments: amqp.Table{"x-queue-type": queueType}}
	for i := range exchanges {
		d.Exchanges = append(d.Exchanges, fmt.Sprintf("%s_%d", w.name, i+1))
	}
	return d
}

// reset makes the destination anew, and empty.
func (w *world) reset(d destination) error {
	return w.withBroker(func(ch *amqp.Channel) error {
		if _, err := ch.QueueDelete(d.Queue, false, false, false); err != nil {
			return fmt.Errorf("delete queue %s: %w", d.Queue, err)
		}
		if _, err := ch.QueueDeclare(d.Queue, true, false, false, false, d.Arguments); err != nil {
			return fmt.Errorf("declare queue %s: %w", d.Queue, err)
		}
		for _, e := range d.Exchanges {
			if err := ch.ExchangeDeclare(e, "direct", true, false, false, false, nil); err != nil {
				return fmt.Errorf("declare exchange %s: %w", e, err)
			}
			if err := ch.QueueBind(d.Queue, d.Queue, e, false, nil); err != nil {
				return fmt.Errorf("bind queue %s: %w", d.Queue, err)
			}
		}
		return nil
	})
}

// remove deletes the destination.
func (w *world) remove(d destination) error {
	return w.withBroker(func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(d.Queue, false, false, false)
		for _, e := range d.Exchanges {
			err = errors.Join(err, ch.ExchangeDelete(e, false, false))
		}
		return err
	})
}

// isStream tells whether the queue is one that keeps what was consumed.
func (d destination) isStream() bool { return d.Arguments["x-queue-type"] == "stream" }

// consume opens a consumer that reads from the beginning. A stream wants acknowledgements.
func (d destination) consume(ch *amqp.Channel) (<-chan amqp.Delivery, error) {
	arguments := amqp.Table{}
	if d.isStream() {
		arguments["x-stream-offset"] = "first"
		if err := ch.Qos(1000, 0, false); err != nil {
			return nil, err
		}
	}
	deliveries, err := ch.Consume(d.Queue, "", !d.isStream(), false, false, false, arguments)
	if err != nil {
		return nil, fmt.Errorf("consume from %s: %w", d.Queue, err)
	}
	return deliveries, nil
}

// countable tells whether the broker can say how many messages the queue has.
func (d destination) countable() bool {
	return !d.isStream() && d.Arguments["x-max-length"] == nil
}

// expect fails unless the queue has so many messages, soon: a quorum queue counts with a delay.
func (w *world) expect(ctx context.Context, d destination, messages int) error {
	if !d.countable() {
		return nil
	}
	return w.withBroker(func(ch *amqp.Channel) error {
		return soon(ctx, func() error {
			q, err := ch.QueueDeclarePassive(d.Queue, true, false, false, false, nil)
			if err == nil && q.Messages != messages {
				err = fmt.Errorf("queue %s has %d messages, not %d", d.Queue, q.Messages, messages)
			}
			return err
		})
	})
}
