package fakeamqp_test

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/pgamqp/pgamqp/internal/testserver.spawnLoop"))
}

// limit bounds every wait of these tests; only a failing test reaches it.
const limit = 15 * time.Second

// client is a real client connection with one channel in confirm mode.
type client struct {
	conn    *amqp.Connection
	ch      *amqp.Channel
	returns chan amqp.Return
	closes  chan *amqp.Error // of the channel
	broker  *fakeamqp.Conn
}

// dial opens a client connection without any channel.
func dial(t *testing.T, s *fakeamqp.Server, c amqp.Config) (*amqp.Connection, *fakeamqp.Conn) {
	t.Helper()
	conn, err := amqp.DialConfig(s.URL(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseDeadline(time.Now().Add(limit)) })
	return conn, fakeamqp.Await[*fakeamqp.Conn](t, s)
}

func connect(t *testing.T, s *fakeamqp.Server) *client {
	t.Helper()
	conn, broker := dial(t, s, amqp.Config{})
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return &client{
		conn: conn, ch: ch, broker: broker,
		returns: ch.NotifyReturn(make(chan amqp.Return, 16)),
		closes:  ch.NotifyClose(make(chan *amqp.Error, 1)),
	}
}

// publish sends a mandatory message to exchange "x" with its id as body.
func (c *client) publish(t *testing.T, id string) *amqp.DeferredConfirmation {
	t.Helper()
	dc, err := c.ch.PublishWithDeferredConfirm("x", "key", true, false, amqp.Publishing{
		MessageId: id, DeliveryMode: amqp.Persistent, Body: []byte(id),
	})
	if err != nil {
		t.Fatal(err)
	}
	return dc
}

// verdict waits for the confirmation.
func verdict(t *testing.T, dc *amqp.DeferredConfirmation) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	acked, err := dc.WaitContext(ctx)
	if err != nil {
		t.Fatalf("no verdict for %d: %v", dc.DeliveryTag, err)
	}
	return acked
}

// receive waits for a value.
func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatalf("nothing on %T", c)
		panic("unreachable")
	}
}
