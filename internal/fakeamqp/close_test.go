package fakeamqp_test

import (
	"context"
	"errors"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

// A confirmation that resolves because the channel closed looks like a nack; the
// channel, already closed by then, is what tells them apart.
func TestChannelCloseResolvesFalseWithClosedChannel(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	one, two := c.publish(t, "1"), c.publish(t, "2")
	fakeamqp.Await[*fakeamqp.Publish](t, s).Ack()
	p := fakeamqp.Await[*fakeamqp.Publish](t, s)
	p.Channel.Close(406, "PRECONDITION_FAILED - why not")
	if !verdict(t, one) {
		t.Error("1 was confirmed before")
	}
	if verdict(t, two) || !c.ch.IsClosed() {
		t.Errorf("acked %t, channel closed %t", two.Acked(), c.ch.IsClosed())
	}
	if e := receive(t, c.closes); e.Code != 406 || e.Reason != "PRECONDITION_FAILED - why not" {
		t.Errorf("closed with %v", e)
	}
	p.Ack() // too late: says nothing, or the client would close the connection
	if _, err := c.conn.Channel(); err != nil {
		t.Errorf("the connection has gone with the channel: %v", err)
	}
}

func TestPublishToMissingExchangeCloses404(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{Exchanges: []string{"x"}, Handler: fakeamqp.AckAll})
	c := connect(t, s)
	if !verdict(t, c.publish(t, "1")) {
		t.Fatal("x exists")
	}
	s.DeleteExchange("x")
	if verdict(t, c.publish(t, "2")) || !c.ch.IsClosed() {
		t.Error("confirmed though the exchange is gone")
	}
	if e := receive(t, c.closes); e.Code != amqp.NotFound {
		t.Errorf("closed with %v", e)
	}
}

func TestConnectionCloseByTheBroker(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	dc := c.publish(t, "1")
	fakeamqp.Await[*fakeamqp.Publish](t, s)
	c.broker.Close(320, "CONNECTION_FORCED - by hand")
	if verdict(t, dc) || !c.ch.IsClosed() {
		t.Error("confirmed by a close")
	}
	if e := receive(t, c.closes); e.Code != amqp.ConnectionForced {
		t.Errorf("closed with %v", e)
	}
	if e := fakeamqp.Await[*fakeamqp.Closed](t, s); !e.Clean || e.Conn != c.broker {
		t.Errorf("end: %v", e)
	}
}

func TestCloseByTheClientIsClean(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	if err := c.ch.Close(); err != nil {
		t.Fatal(err)
	}
	fakeamqp.Await[*fakeamqp.ChannelClosed](t, s)
	if err := c.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if e := fakeamqp.Await[*fakeamqp.Closed](t, s); !e.Clean {
		t.Errorf("end: %v", e)
	}
}

func TestDropAndReset(t *testing.T) {
	for name, end := range map[string]func(*fakeamqp.Conn){"drop": (*fakeamqp.Conn).Drop, "reset": (*fakeamqp.Conn).Reset} {
		t.Run(name, func(t *testing.T) {
			s := fakeamqp.Start(t, fakeamqp.Config{})
			c := connect(t, s)
			dc := c.publish(t, "1")
			fakeamqp.Await[*fakeamqp.Publish](t, s)
			end(c.broker)
			if verdict(t, dc) || !c.ch.IsClosed() {
				t.Error("confirmed by a lost connection")
			}
			_ = receive(t, c.closes) // whatever the reason
			if e := fakeamqp.Await[*fakeamqp.Closed](t, s); e.Clean {
				t.Errorf("end: %v", e)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{
		Login: func(user, password string) error {
			if user != "guest" || password != "guest" {
				return &fakeamqp.Refusal{Code: 403, Text: "ACCESS_REFUSED - who?"}
			}
			return nil
		},
		Open: func(vhost string) error {
			if vhost != "/" {
				return &fakeamqp.Refusal{Code: 530, Text: "NOT_ALLOWED - no such vhost"}
			}
			return nil
		},
	})
	for url, code := range map[string]int{
		"amqp://guest:wrong@" + s.Addr() + "/":      403,
		"amqp://guest:guest@" + s.Addr() + "/other": 530,
	} {
		conn, err := amqp.Dial(url)
		if err == nil {
			_ = conn.Close()
		}
		var e *amqp.Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("%d: got %v", code, err)
		}
		fakeamqp.Await[*fakeamqp.Closed](t, s)
	}
	connect(t, s)
}

func TestAdmission(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	s.Admit(fakeamqp.Refuse)
	if conn, err := amqp.Dial(s.URL()); err == nil {
		_ = conn.Close()
		t.Error("connected to a broker that is down")
	}
	if e := fakeamqp.Await[*fakeamqp.NotServed](t, s); e.Admission != fakeamqp.Refuse {
		t.Error(e)
	}
	s.Admit(fakeamqp.Ignore)
	dialed := make(chan error, 1)
	go func() {
		_, err := amqp.Dial(s.URL())
		dialed <- err
	}()
	fakeamqp.AwaitMatch(t, s, func(e *fakeamqp.NotServed) bool { return e.Admission == fakeamqp.Ignore }).Conn.Drop()
	if err := receive(t, dialed); err == nil {
		t.Error("connected to a broker that does not answer")
	}
	s.Admit(fakeamqp.Serve)
	connect(t, s)
}

func TestHardErrors(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	for code, do := range map[int]func(*client) error{
		amqp.NotImplemented: func(c *client) error { return c.ch.Tx() },
		amqp.FrameError: func(c *client) error {
			_, err := c.ch.PublishWithDeferredConfirm("x", "", false, false, amqp.Publishing{
				Headers: amqp.Table{"large": string(make([]byte, 200_000))},
			})
			return err
		},
	} {
		c := connect(t, s)
		closes := c.conn.NotifyClose(make(chan *amqp.Error, 1))
		_ = do(c) // the answer comes by the close
		if e := receive(t, closes); e == nil || e.Code != code {
			t.Errorf("got %v, want %d", e, code)
		}
	}
}

func TestNextTakesInOrderAndPendingOnlyLooks(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	c.publish(t, "1")
	c.publish(t, "2")
	for _, want := range []string{"1", "2"} {
		e, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := e.(*fakeamqp.Publish); !ok || p.Properties.MessageID != want {
			t.Errorf("got %v, want %s", e, want)
		}
	}
	if left := s.Pending(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if e, err := s.Next(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", e, err)
	}
}
