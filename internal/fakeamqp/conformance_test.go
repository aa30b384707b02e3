package fakeamqp_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// observer is a real client that writes down what a broker does to it.
type observer struct {
	t    *testing.T
	url  string
	conn *amqp.Connection
	ch   *amqp.Channel

	connClose, chClose chan *amqp.Error
	returns            chan amqp.Return
	seen               []string
}

func (o *observer) note(format string, args ...any) {
	o.seen = append(o.seen, fmt.Sprintf(format, args...))
}

// open makes what is closed of connection and channel anew.
func (o *observer) open() {
	o.t.Helper()
	var err error
	if o.conn == nil || o.conn.IsClosed() {
		if o.conn, err = amqp.Dial(o.url); err != nil {
			o.t.Fatal(err)
		}
		o.connClose = o.conn.NotifyClose(make(chan *amqp.Error, 1))
		o.ch = nil
	}
	if o.ch == nil || o.ch.IsClosed() {
		if o.ch, err = o.conn.Channel(); err == nil {
			err = o.ch.Confirm(false)
		}
		if err != nil {
			o.t.Fatal(err)
		}
		o.chClose = o.ch.NotifyClose(make(chan *amqp.Error, 1))
		o.returns = o.ch.NotifyReturn(make(chan amqp.Return, 16))
	}
}

// published publishes and notes the verdict; what was returned before it; and what has
// closed, if something has.
func (o *observer) published(exchange, key string, mandatory, immediate bool, p amqp.Publishing) {
	o.t.Helper()
	dc, err := o.ch.PublishWithDeferredConfirm(exchange, key, mandatory, immediate, p)
	if err != nil {
		o.t.Fatal(err)
	}
	acked := verdict(o.t, dc)
	select {
	case r, ok := <-o.returns:
		if ok {
			o.note("return %d %s of exchange %q, key %q, id %q, %d bytes", r.ReplyCode, r.ReplyText, r.Exchange, r.RoutingKey, r.MessageId, len(r.Body))
		}
	default:
	}
	if !o.ch.IsClosed() {
		o.note("tag %d: ack %t", dc.DeliveryTag, acked)
		return
	}
	o.ended(receive(o.t, o.chClose))
}

// declared notes how a declaration ended.
func (o *observer) declared(err error) {
	o.t.Helper()
	var e *amqp.Error
	switch {
	case err == nil:
		o.note("ok")
	case errors.As(err, &e):
		o.ended(e)
	default:
		o.t.Fatal(err)
	}
}

// ended notes what the broker has closed, and why.
func (o *observer) ended(e *amqp.Error) {
	o.t.Helper()
	what := "channel"
	// A connection that is closed ends its channels first.
	if deadline := time.After(limit); e.Code >= 501 {
		select {
		case <-o.connClose: //nolint:errcheck // its reason is that of the channel
			what = "connection"
		case <-deadline:
		}
	}
	o.note("%s closed: %d %s", what, e.Code, e.Reason)
}

// script is what a client does; the names are of things that exist.
func (o *observer) script() {
	at := func(name string, do func()) {
		o.note("- %s", name)
		o.open()
		do()
	}
	at("publish to a queue", func() {
		o.published("", "q", true, false, amqp.Publishing{MessageId: "1", Body: []byte("a")})
		o.published("x", "any", true, false, amqp.Publishing{MessageId: "2"})
	})
	at("mandatory to no queue", func() {
		o.published("", "no such", true, false, amqp.Publishing{MessageId: "3", Body: []byte("abc"), Headers: amqp.Table{"a": int64(1)}})
		o.published("void", "k", true, false, amqp.Publishing{MessageId: "4"})
	})
	at("not mandatory to no queue", func() { o.published("void", "k", false, false, amqp.Publishing{}) })
	at("to a missing exchange", func() { o.published("missing", "k", true, false, amqp.Publishing{}) })
	at("in the name of somebody else", func() { o.published("x", "k", true, false, amqp.Publishing{UserId: "bob"}) })
	at("in our own name", func() { o.published("x", "k", true, false, amqp.Publishing{UserId: "guest"}) })
	at("immediate", func() { o.published("x", "k", true, true, amqp.Publishing{}) })
	at("headers larger than a frame", func() {
		o.published("x", "k", true, false, amqp.Publishing{Headers: amqp.Table{"h": strings.Repeat("h", 200_000)}})
	})
	at("passive declarations", func() {
		o.declared(o.ch.ExchangeDeclarePassive("x", "direct", false, false, false, false, nil))
		_, err := o.ch.QueueDeclarePassive("q", false, false, false, false, nil)
		o.declared(err)
		o.declared(o.ch.ExchangeDeclarePassive("missing", "direct", false, false, false, false, nil))
	})
	at("passive declaration of a missing queue", func() {
		_, err := o.ch.QueueDeclarePassive("missing", false, false, false, false, nil)
		o.declared(err)
	})
	at("declare and bind", func() {
		o.declared(o.ch.ExchangeDeclare("new", "fanout", true, false, false, false, nil))
		_, err := o.ch.QueueDeclare("new", true, false, false, false, nil)
		o.declared(err)
		o.declared(o.ch.QueueBind("new", "#", "new", false, nil))
		o.declared(o.ch.ExchangeBind("new", "#", "x", false, nil))
		o.declared(o.ch.QueueBind("missing", "#", "new", false, nil))
	})
	at("bind to a missing exchange", func() { o.declared(o.ch.QueueBind("q", "#", "missing", false, nil)) })
	at("bind a missing exchange", func() { o.declared(o.ch.ExchangeBind("missing", "#", "x", false, nil)) })
	at("tags begin again on a new channel", func() {
		o.published("x", "k", true, false, amqp.Publishing{})
		o.published("x", "k", true, false, amqp.Publishing{})
	})
}

// observe runs the script against a broker with these: queue q, fanout exchange x bound
// to it, exchange void bound to nothing.
func observe(t *testing.T, url, vhost string) []string {
	t.Helper()
	o := &observer{t: t, url: url}
	o.script()
	if err := o.conn.Close(); err != nil {
		t.Error(err)
	}
	for i, s := range o.seen {
		o.seen[i] = strings.ReplaceAll(s, "'"+vhost+"'", "'/'")
	}
	return o.seen
}

// TestClientSeesTheSameOfARealBroker compares what a client sees: the codes and texts,
// the order of return and ack, and what is closed.
func TestClientSeesTheSameOfARealBroker(t *testing.T) {
	t.Parallel()
	s := fakeamqp.Start(t, fakeamqp.Config{
		Exchanges: []string{"x", "void"}, Queues: []string{"q"},
		Handler: func(p *fakeamqp.Publish) fakeamqp.Verdict {
			switch user := p.Properties.UserID; {
			case user != "" && user != p.Conn.User:
				p.Channel.Close(406, fmt.Sprintf("PRECONDITION_FAILED - user_id property set to '%s' but authenticated user was '%s'", user, p.Conn.User))
				return fakeamqp.Hold
			case p.Exchange == "x", p.Exchange == "" && p.Key == "q":
				return fakeamqp.Ack
			}
			return fakeamqp.Unroutable
		},
	})
	rabbit, err := testserver.StartRabbitMQ(testserver.RabbitMQOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rabbit.Close(); err != nil {
			t.Error(err)
		}
	})
	prepare(t, rabbit)

	real := observe(t, rabbit.URL("/"), "/")
	if diff := cmp.Diff(real, observe(t, s.URL(), "/")); diff != "" {
		t.Errorf("RabbitMQ -, fake +:\n%s", diff)
	}
	closed := regexp.MustCompile(`^(channel|connection) closed: \d+ [A-Z]`)
	for _, line := range real {
		if strings.Contains(line, "closed") && !closed.MatchString(line) {
			t.Errorf("no answer of a broker: %s", line)
		}
	}
	if len(real) < 35 {
		t.Errorf("only %d lines: %q", len(real), real)
	}
}

// prepare makes on RabbitMQ what the fake has from the start.
func prepare(t *testing.T, r *testserver.RabbitMQ) {
	t.Helper()
	conn, err := amqp.Dial(r.URL("/"))
	if err != nil {
		t.Fatal(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	_, err = ch.QueueDeclare("q", true, false, false, false, nil)
	for _, step := range []error{
		err,
		ch.ExchangeDeclare("x", "fanout", true, false, false, false, nil),
		ch.ExchangeDeclare("void", "fanout", true, false, false, false, nil),
		ch.QueueBind("q", "", "x", false, nil),
		conn.Close(),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
}
