package fakeamqp_test

import (
	"bytes"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
)

func TestPublishCarriesEverything(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{FrameMax: 4096})
	c := connect(t, s)
	body := bytes.Repeat([]byte("0123456789"), 1000) // three body frames
	dc, err := c.ch.PublishWithDeferredConfirm("ex", "a.b", true, false, amqp.Publishing{
		ContentType: "text/plain", ContentEncoding: "gzip", DeliveryMode: 2, Priority: 7, CorrelationId: "corr",
		ReplyTo: "reply", Expiration: "1000", MessageId: "id-1", Timestamp: time.Unix(1700000000, 0), Type: "type",
		UserId: "guest", AppId: "app", Headers: amqp.Table{"k": "v"}, Body: body,
	})
	if err != nil {
		t.Fatal(err)
	}
	p := fakeamqp.Await[*fakeamqp.Publish](t, s)
	got, headers := p.Properties, p.Properties.Headers
	got.Headers = nil
	if !bytes.Equal(headers, []byte("\x01kS\x00\x00\x00\x01v")) {
		t.Errorf("headers %q", headers)
	}
	type flat struct {
		a, b         string
		mandatory    bool
		tag          uint64
		ct, ce, corr string
		mode, prio   uint8
		re, exp, id  string
		ts           uint64
		ty, us, app  string
	}
	want := flat{"ex", "a.b", true, 1, "text/plain", "gzip", "corr", 2, 7, "reply", "1000", "id-1", 1700000000, "type", "guest", "app"}
	have := flat{
		p.Exchange, p.Key, p.Mandatory, p.Tag, got.ContentType, got.ContentEncoding, got.CorrelationID, got.DeliveryMode,
		got.Priority, got.ReplyTo, got.Expiration, got.MessageID, got.Timestamp, got.Type, got.UserID, got.AppID,
	}
	if have != want {
		t.Errorf("got %+v\nwant %+v", have, want)
	}
	if !bytes.Equal(p.Body, body) {
		t.Errorf("body of %d bytes differs", len(p.Body))
	}
	p.Return(312, "NO_ROUTE")
	if r := receive(t, c.returns); !bytes.Equal(r.Body, body) || r.Headers["k"] != "v" || r.AppId != "app" {
		t.Errorf("returned %d bytes, headers %v, app %q", len(r.Body), r.Headers, r.AppId)
	}
	p.Ack()
	if !verdict(t, dc) {
		t.Error("not confirmed")
	}
}

func TestEmptyBody(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	if !verdict(t, connect(t, s).publish(t, "")) {
		t.Error("not confirmed")
	}
}

func TestNackIsFalseOnAnOpenChannel(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	dc := c.publish(t, "1")
	fakeamqp.Await[*fakeamqp.Publish](t, s).Nack()
	if verdict(t, dc) || c.ch.IsClosed() {
		t.Errorf("acked %t, channel closed %t", dc.Acked(), c.ch.IsClosed())
	}
}

// The publisher looks for returns when a confirmation resolves, and only then.
func TestReturnIsThereBeforeItsConfirmationResolves(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{Handler: func(*fakeamqp.Publish) fakeamqp.Verdict { return fakeamqp.Unroutable }})
	c := connect(t, s)
	for range 200 {
		dc := c.publish(t, "lost")
		if !verdict(t, dc) {
			t.Fatal("the ack after a return must be an ack")
		}
		select {
		case r := <-c.returns:
			if r.MessageId != "lost" || r.ReplyCode != amqp.NoRoute || r.Exchange != "x" || r.RoutingKey != "key" {
				t.Fatalf("returned %+v", r)
			}
		default:
			t.Fatal("confirmation resolved before the return was there")
		}
	}
}

// With NotifyPublish, the later ack would have turned the nack into an ack.
func TestAckMultipleOverNackKeepsTheNack(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	one, two, three := c.publish(t, "1"), c.publish(t, "2"), c.publish(t, "3")
	fakeamqp.Await[*fakeamqp.Publish](t, s)
	fakeamqp.Await[*fakeamqp.Publish](t, s).Nack()
	fakeamqp.Await[*fakeamqp.Publish](t, s).AckMultiple()
	if a, b, c := verdict(t, one), verdict(t, two), verdict(t, three); !a || b || !c {
		t.Errorf("verdicts %t %t %t, want true false true", a, b, c)
	}
}

func TestNackMultiple(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	one, two := c.publish(t, "1"), c.publish(t, "2")
	fakeamqp.Await[*fakeamqp.Publish](t, s)
	fakeamqp.Await[*fakeamqp.Publish](t, s).NackMultiple()
	if verdict(t, one) || verdict(t, two) {
		t.Error("a nacked message was confirmed")
	}
}

// Answers in any order reach the confirmation they belong to.
func TestRandomOrderOfVerdicts(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{})
	c := connect(t, s)
	rapid.Check(t, func(r *rapid.T) {
		want := rapid.SliceOfN(rapid.Bool(), 1, 20).Draw(r, "acks")
		var dcs []*amqp.DeferredConfirmation
		for range want {
			dcs = append(dcs, c.publish(t, "m"))
		}
		var ps []*fakeamqp.Publish
		for range want {
			ps = append(ps, fakeamqp.Await[*fakeamqp.Publish](r, s))
		}
		index := make([]int, len(want))
		for i := range index {
			index[i] = i
		}
		for _, i := range rapid.Permutation(index).Draw(r, "order") {
			if want[i] {
				ps[i].Ack()
			} else {
				ps[i].Nack()
			}
		}
		for i, dc := range dcs {
			if got := verdict(t, dc); got != want[i] {
				r.Fatalf("message %d: %t, want %t", i, got, want[i])
			}
		}
	})
}

func TestWithoutConfirmModeThereIsNoTag(t *testing.T) {
	s := fakeamqp.Start(t, fakeamqp.Config{Handler: fakeamqp.AckAll})
	conn, _ := dial(t, s, amqp.Config{})
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Publish("x", "", false, false, amqp.Publishing{}); err != nil {
		t.Fatal(err)
	}
	if p := fakeamqp.Await[*fakeamqp.Publish](t, s); p.Tag != 0 {
		t.Errorf("tag %d", p.Tag)
	}
}
