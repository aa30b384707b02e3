package publisher

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/fakeamqp"
	"github.com/pgamqp/pgamqp/internal/testserver"
)

// broker is what a scenario asks of a broker. There are two: a scripted one, which does
// what we think a broker does, and RabbitMQ. Every scenario runs on both, which keeps
// the scripted one honest: the other tests believe it.
type broker interface {
	at() Host
	// exchange makes one of type fanout. The messages to a routed one reach the queue,
	// those to another one none.
	exchange(name string, routed bool)
	// internal makes an exchange that nobody may publish to.
	internal(name string)
	// overflowing makes an exchange before a queue that refuses messages because it is full.
	overflowing(name string)
	// remove deletes an exchange.
	remove(name string)
	// forbid takes the permission to write to an exchange, before its first use.
	forbid(name string)
	// kick closes all connections of clients, as an operator does.
	kick()
	// stored gives the bodies of all that the queue has got since the start.
	stored() []string
}

const (
	theQueue = "all"
	maxBody  = 1 << 16 // bytes that either broker takes
)

// stage is a world whose broker may be real.
type stage struct {
	*world
	broker
	another func() broker // another one of the same kind
}

// onBoth runs a scenario on either kind of broker; change may adapt the configuration.
func onBoth(t *testing.T, change func(*Config), scenario func(*stage)) {
	t.Helper()
	t.Parallel()
	for name, start := range map[string]func(*testing.T) broker{"scripted": newScripted, "real": newReal} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			scenario(&stage{
				world: newWorldAt(t, b.at(), change), broker: b,
				another: func() broker { return start(t) },
			})
		})
	}
}

// wantStored checks what has reached the queue: these bodies, first in this order, and
// at most so many of them again.
func (s *stage) wantStored(repeats int, want ...string) {
	s.t.Helper()
	got, repeated := firsts(s.stored())
	if !slices.Equal(got, want) {
		s.t.Errorf("the queue got %.2000q", got)
	}
	if repeated > repeats {
		s.t.Errorf("%d messages came again", repeated)
	}
}

// letter is what a scenario looks at of a dead letter.
type letter struct {
	number int
	reason Reason
	code   uint16
	text   string // with the virtual host called /
}

// wantDead checks the dead letters.
func (s *stage) wantDead(want ...letter) {
	s.t.Helper()
	var got []letter
	for _, d := range s.dead() {
		text := strings.ReplaceAll(d.ReplyText, "'"+s.at().VHost+"'", "'/'")
		if d.Origin != numbered(numberOf(d.Message)) {
			s.t.Errorf("origin %s of message %d", d.Origin, numberOf(d.Message))
		}
		got = append(got, letter{numberOf(d.Message), d.Reason, d.ReplyCode, text})
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("dead letters %+v\nwant         %+v", got, want)
	}
}

// connects is how many connections to broker 1 succeeded.
func (s *stage) connects() float64 { return s.counted("pgamqp_broker_connects_total", "1", "ok") }

// node is the RabbitMQ of the scenarios, started when the first one needs it.
type node struct {
	once   sync.Once
	rabbit *testserver.RabbitMQ
	err    error
	vhosts atomic.Int32 // handed out
}

//nolint:gochecknoglobals // it takes seconds to start, so there is one for all tests
var theNode node

func (n *node) start() (*testserver.RabbitMQ, error) {
	n.once.Do(func() {
		n.rabbit, n.err = testserver.StartRabbitMQ(testserver.RabbitMQOptions{
			Config: []string{fmt.Sprintf("max_message_size = %d", maxBody)},
		})
	})
	return n.rabbit, n.err
}

func (n *node) close() error {
	if n.rabbit == nil {
		return nil
	}
	return n.rabbit.Close()
}

// realBroker is a virtual host of the node.
type realBroker struct {
	t      *testing.T
	rabbit *testserver.RabbitMQ
	vhost  string
	got    []string
}

func newReal(t *testing.T) broker {
	t.Helper()
	r, err := theNode.start()
	if err != nil {
		t.Fatal(err)
	}
	b := &realBroker{t: t, rabbit: r, vhost: fmt.Sprintf("%s %d", t.Name(), theNode.vhosts.Add(1))}
	if err := r.AddVHost(t.Context(), b.vhost); err != nil {
		t.Fatal(err)
	}
	b.with(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(theQueue, true, false, false, false, nil)
		return err
	})
	return b
}

// with opens a channel of our own for a moment: kick would end one that is kept.
func (b *realBroker) with(do func(*amqp.Channel) error) {
	b.t.Helper()
	conn, err := amqp.Dial(b.rabbit.URL(b.vhost))
	if err != nil {
		b.t.Fatal(err)
	}
	ch, err := conn.Channel()
	if err == nil {
		err = do(ch)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *realBroker) at() Host {
	return Host{Host: b.rabbit.Host(), Port: b.rabbit.Port(), VHost: b.vhost, Username: "guest", Password: "guest"}
}

func (b *realBroker) exchange(name string, routed bool) {
	b.t.Helper()
	b.with(func(ch *amqp.Channel) error {
		err := ch.ExchangeDeclare(name, "fanout", true, false, false, false, nil)
		if err == nil && routed {
			err = ch.QueueBind(theQueue, "", name, false, nil)
		}
		return err
	})
}

func (b *realBroker) internal(name string) {
	b.t.Helper()
	b.with(func(ch *amqp.Channel) error { return ch.ExchangeDeclare(name, "fanout", true, false, true, false, nil) })
}

func (b *realBroker) overflowing(name string) {
	b.t.Helper()
	b.exchange(name, false)
	b.with(func(ch *amqp.Channel) error {
		limits := amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"}
		_, err := ch.QueueDeclare(name, true, false, false, false, limits)
		if err == nil {
			err = ch.QueueBind(name, "", name, false, nil)
		}
		if err == nil {
			err = ch.Confirm(false)
		}
		if err != nil {
			return err
		}
		takesTheRoom, err := ch.PublishWithDeferredConfirm(name, "", true, false, amqp.Publishing{})
		if err == nil && !takesTheRoom.Wait() {
			err = fmt.Errorf("fill queue %q: refused", name)
		}
		return err
	})
}

func (b *realBroker) remove(name string) {
	b.t.Helper()
	if err := b.rabbit.DeleteExchange(b.t.Context(), b.vhost, name); err != nil {
		b.t.Fatal(err)
	}
}

func (b *realBroker) forbid(name string) {
	b.t.Helper()
	if err := b.rabbit.SetPermissions(b.t.Context(), b.vhost, "guest", ".*", "^(?!"+name+"$)", ".*"); err != nil {
		b.t.Fatal(err)
	}
}

func (b *realBroker) kick() {
	b.t.Helper()
	if out, err := b.rabbit.Ctl(b.t.Context(), "close_all_connections", "--vhost", b.vhost, "maintenance"); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

func (b *realBroker) stored() []string {
	b.t.Helper()
	b.with(func(ch *amqp.Channel) error {
		for {
			m, ok, err := ch.Get(theQueue, true)
			if err != nil || !ok {
				return err
			}
			b.got = append(b.got, string(m.Body))
		}
	})
	return b.got
}

// scriptedBroker is what we think RabbitMQ does.
type scriptedBroker struct {
	server *fakeamqp.Server

	mu    sync.Mutex // guards all below
	kinds map[string]string
	got   []string
	conns []*fakeamqp.Conn
}

func newScripted(t *testing.T) broker {
	t.Helper()
	b := &scriptedBroker{kinds: map[string]string{"": "default"}}
	b.server = fakeamqp.Start(t, fakeamqp.Config{
		Exchanges: []string{}, Queues: []string{theQueue}, Handler: b.take, Declare: b.declare,
	})
	return b
}

func (b *scriptedBroker) set(name, kind string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kinds[name] = kind
}

func (b *scriptedBroker) at() Host { return hostOf(b.server) }

func (b *scriptedBroker) exchange(name string, routed bool) {
	b.server.AddExchange(name)
	b.set(name, map[bool]string{true: "routed", false: "unrouted"}[routed])
}

func (b *scriptedBroker) internal(name string) {
	b.server.AddExchange(name)
	b.set(name, "internal")
}

func (b *scriptedBroker) overflowing(name string) {
	b.server.AddExchange(name)
	b.set(name, "full")
}

func (b *scriptedBroker) remove(name string) { b.server.DeleteExchange(name) }

func (b *scriptedBroker) forbid(name string) { b.set(name, "forbidden") }

func (b *scriptedBroker) kick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close(320, "CONNECTION_FORCED - maintenance")
	}
	b.conns = nil
}

func (b *scriptedBroker) stored() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

// take decides about a message as RabbitMQ does.
func (b *scriptedBroker) take(p *fakeamqp.Publish) fakeamqp.Verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.conns, p.Conn) {
		b.conns = append(b.conns, p.Conn)
	}
	refuse := func(code uint16, format string, args ...any) fakeamqp.Verdict {
		p.Channel.Close(code, fmt.Sprintf(format, args...))
		return fakeamqp.Hold
	}
	kind := b.kinds[p.Exchange]
	if kind == "default" && p.Key == theQueue {
		kind = "routed"
	}
	switch user := p.Properties.UserID; {
	case len(p.Body) > maxBody:
		return refuse(406, "PRECONDITION_FAILED - message size %d is larger than configured max size %d", len(p.Body), maxBody)
	case kind == "forbidden":
		return refuse(403, "ACCESS_REFUSED - access to exchange '%s' in vhost '%s' refused for user '%s'", p.Exchange, p.Conn.VHost, p.Conn.User)
	case kind == "internal":
		return refuse(403, "ACCESS_REFUSED - cannot publish to internal exchange '%s' in vhost '%s'", p.Exchange, p.Conn.VHost)
	case user != "" && user != p.Conn.User:
		return refuse(406, "PRECONDITION_FAILED - user_id property set to '%s' but authenticated user was '%s'", user, p.Conn.User)
	case kind == "full":
		return fakeamqp.Nack
	case kind == "routed":
		b.got = append(b.got, string(p.Body))
		return fakeamqp.Ack
	}
	return fakeamqp.Unroutable
}

// declare decides about a declaration as RabbitMQ does, where the server does not.
func (b *scriptedBroker) declare(o *fakeamqp.Topology) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	refuse := func(code uint16, format string, args ...any) error {
		return &fakeamqp.Refusal{Code: code, Text: fmt.Sprintf(format, args...)}
	}
	known := b.kinds[o.Name]
	switch {
	case o.Op == "exchange.declare" && o.Passive:
	case o.Op == "exchange.declare" && !slices.Contains([]string{"direct", "fanout", "topic", "headers"}, o.Type):
		return refuse(503, "COMMAND_INVALID - unknown exchange type '%s'", o.Type)
	case o.Op == "exchange.declare" && o.Name == "":
		return refuse(403, "ACCESS_REFUSED - operation not permitted on the default exchange")
	case o.Op == "exchange.declare" && strings.HasPrefix(o.Name, "amq."):
		return refuse(403, "ACCESS_REFUSED - exchange name '%s' contains reserved prefix 'amq.*'", o.Name)
	case o.Op == "exchange.declare" && known != "" && o.Type != "fanout":
		return refuse(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '%s' in vhost '%s': received '%s' but current is 'fanout'",
			o.Name, o.Conn.VHost, o.Type)
	case o.Op == "exchange.declare" && known == "":
		b.kinds[o.Name] = "unrouted"
	case o.Op == "queue.declare" && strings.HasPrefix(o.Name, "amq."):
		return refuse(403, "ACCESS_REFUSED - queue name '%s' contains reserved prefix 'amq.*'", o.Name)
	case o.Op == "queue.bind" && o.Name == theQueue, o.Op == "exchange.bind" && known == "routed":
		b.kinds[o.Source] = "routed"
	}
	return nil
}
