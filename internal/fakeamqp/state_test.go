package fakeamqp_test

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

func TestBlockedNoticeReachesTheClient(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	notices := c.conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	c.broker.Block("low on memory")
	if b := receive(t, notices); !b.Active || b.Reason != "low on memory" {
		t.Errorf("got %+v", b)
	}
	c.broker.Unblock()
	if b := receive(t, notices); b.Active {
		t.Errorf("got %+v", b)
	}
}

func TestFreezeHoldsPublishesUntilThaw(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	c := connect(t, s)
	c.broker.Freeze()
	dc := c.publish(t, "1")
	other := connect(t, s) // another connection is served meanwhile
	if !verdict(t, other.publish(t, "2")) {
		t.Fatal("the other connection is not served")
	}
	select {
	case <-dc.Done():
		t.Error("confirmed while frozen")
	default:
	}
	if left := s.Pending(); len(left) != 1 {
		t.Errorf("events while frozen: %v", left)
	}
	c.broker.Thaw()
	if !verdict(t, dc) {
		t.Error("not confirmed after thaw")
	}
}

// deadlined gives every write a deadline once the broker is frozen, the only thing that
// gets a publisher out of a write to a broker that has stopped reading.
type deadlined struct {
	net.Conn
	frozen *atomic.Bool
}

func (c deadlined) Write(p []byte) (int, error) {
	if c.frozen.Load() {
		if err := c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

func TestFrozenBrokerBlocksTheWriterUntilItsDeadline(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{ReadBuffer: 4096})
	var frozen atomic.Bool
	conn, broker := dial(t, s, amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
		nc, err := net.Dial(network, addr)
		return deadlined{nc, &frozen}, err
	}})
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	broker.Freeze()
	frozen.Store(true)
	body := make([]byte, 1<<20)
	for range 64 { // more than the kernel can hold
		if err = ch.Publish("x", "", false, false, amqp.Publishing{Body: body}); err != nil {
			break
		}
	}
	if !isTimeout(err) {
		t.Errorf("64 MiB into a frozen broker: %v", err)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// beats tells when the client receives a heartbeat.
type beats struct {
	net.Conn
	seen chan<- struct{}
}

func (c beats) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 8 && p[0] == 8 {
		c.seen <- struct{}{}
	}
	return n, err
}

func TestHeartbeatsComeUntilSilence(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{Heartbeat: time.Second})
	for deadline := time.After(limit); ; {
		seen := make(chan struct{}, 100)
		conn, broker := dial(t, s, amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
			nc, err := net.Dial(network, addr)
			return beats{nc, seen}, err
		}})
		closes := conn.NotifyClose(make(chan *amqp.Error, 1))
		if broker.Heartbeat != time.Second {
			t.Fatalf("heartbeat %v", broker.Heartbeat)
		}
		select {
		case <-seen:
			broker.Silence()
			if e := receive(t, closes); e == nil {
				t.Error("the client closed cleanly, without running out of patience")
			}
			return
		case <-closes: //nolint:errcheck // this machine stood still for longer than the client waits
		case <-deadline:
			t.Fatal("no heartbeat")
		}
	}
}

func TestHalfFrameIsNoConfirm(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	dc := c.publish(t, "1")
	p := fakeamqp.Await[*fakeamqp.Publish](t, s)
	c.broker.HalfFrame()
	p.Ack() // silent: not written
	c.broker.Drop()
	if verdict(t, dc) || !c.ch.IsClosed() {
		t.Error("half a frame confirmed a message")
	}
}

func TestTopology(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{
		Exchanges: []string{"there"}, Queues: []string{},
		Declare: func(d *fakeamqp.Topology) error {
			switch d.Name {
			case "soft":
				return &fakeamqp.Refusal{Code: 406, Text: "PRECONDITION_FAILED - differs"}
			case "hard":
				return &fakeamqp.Refusal{Code: 503, Text: "COMMAND_INVALID - unknown exchange type 'no'"}
			}
			return nil
		},
	})
	conn, _ := dial(t, s, amqp.Config{})
	args := amqp.Table{"a": true}
	for _, step := range []struct {
		name string
		do   func(*amqp.Channel) error
		code int
		want fakeamqp.Topology
	}{
		{
			"passive of an existing exchange", func(ch *amqp.Channel) error {
				return ch.ExchangeDeclarePassive("there", "topic", false, false, false, false, nil)
			}, 0,
			fakeamqp.Topology{Op: "exchange.declare", Name: "there", Type: "topic", Passive: true},
		},
		{
			"passive of a missing exchange", func(ch *amqp.Channel) error {
				return ch.ExchangeDeclarePassive("new", "topic", false, false, false, false, nil)
			}, 404,
			fakeamqp.Topology{Op: "exchange.declare", Name: "new", Type: "topic", Passive: true},
		},
		{
			"declare", func(ch *amqp.Channel) error {
				return ch.ExchangeDeclare("new", "fanout", true, true, true, false, args)
			}, 0,
			fakeamqp.Topology{Op: "exchange.declare", Name: "new", Type: "fanout", Durable: true, AutoDelete: true, Internal: true},
		},
		{
			"bind exchanges", func(ch *amqp.Channel) error {
				return ch.ExchangeBind("new", "#", "there", false, nil)
			}, 0,
			fakeamqp.Topology{Op: "exchange.bind", Name: "new", Source: "there", Key: "#"},
		},
		{
			"bind a missing queue", func(ch *amqp.Channel) error {
				return ch.QueueBind("q", "#", "there", false, nil)
			}, 404,
			fakeamqp.Topology{Op: "queue.bind", Name: "q", Source: "there", Key: "#"},
		},
		{
			"declare a queue", func(ch *amqp.Channel) error {
				_, err := ch.QueueDeclare("q", true, false, true, false, nil)
				return err
			}, 0,
			fakeamqp.Topology{Op: "queue.declare", Name: "q", Durable: true, Exclusive: true},
		},
		{
			"bind it, no wait", func(ch *amqp.Channel) error {
				return ch.QueueBind("q", "#", "there", true, nil)
			}, 0,
			fakeamqp.Topology{Op: "queue.bind", Name: "q", Source: "there", Key: "#"},
		},
		{
			"refused by the test", func(ch *amqp.Channel) error {
				return ch.ExchangeDeclare("soft", "topic", true, false, false, false, nil)
			}, 406,
			fakeamqp.Topology{Op: "exchange.declare", Name: "soft", Type: "topic", Durable: true},
		},
		{
			"refused by closing the connection", func(ch *amqp.Channel) error {
				return ch.ExchangeDeclare("hard", "no", true, false, false, false, nil)
			}, 503,
			fakeamqp.Topology{Op: "exchange.declare", Name: "hard", Type: "no", Durable: true},
		},
	} {
		ch, err := conn.Channel()
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		err = step.do(ch)
		var e *amqp.Error
		code := 0
		if errors.As(err, &e) {
			code = e.Code
		}
		if code != step.code || (err == nil) != (step.code == 0) {
			t.Errorf("%s: %v, want code %d", step.name, err, step.code)
		}
		got := fakeamqp.Await[*fakeamqp.Topology](t, s)
		if (got.Refused != nil) != (step.code != 0) {
			t.Errorf("%s: refused %v", step.name, got.Refused)
		}
		if g, w := flat(got), flat(&step.want); g != w {
			t.Errorf("%s:\ngot  %+v\nwant %+v", step.name, g, w)
		}
	}
	if !conn.IsClosed() {
		t.Error("503 closed the channel only")
	}
}

// flat is what of a declaration can be compared.
func flat(d *fakeamqp.Topology) any {
	return struct {
		op, name, source, key, kind                       string
		passive, durable, autoDelete, internal, exclusive bool
	}{d.Op, d.Name, d.Source, d.Key, d.Type, d.Passive, d.Durable, d.AutoDelete, d.Internal, d.Exclusive}
}
