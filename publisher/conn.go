package publisher

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	dialTimeout = 10 * time.Second
	// heartbeat is the interval agreed with the broker; after one and a half without a
	// sign of life the library closes the connection.
	heartbeat    = 10 * time.Second
	writeTimeout = 2 * heartbeat
	closeTimeout = 2 * time.Second
)

// Broker is a destination: hosts that are tried in turn.
type Broker struct {
	ID     int32
	Hosts  []Host
	Policy Policy
}

// Host is one address of a broker, and how to log in there.
type Host struct {
	Host               string
	Port               int
	VHost              string
	Username, Password string
	TLS                TLS
	// External logs in by the certificate of TLS instead of name and password.
	External bool
	// Problem, if not empty, is why the host cannot be used: something that its definition refers
	// to cannot be read.
	Problem string
}

// Address returns host:port.
func (h Host) Address() string { return net.JoinHostPort(h.Host, strconv.Itoa(h.Port)) }

// LogValue leaves the password out.
func (h Host) LogValue() slog.Value {
	return slog.GroupValue(slog.String("address", h.Address()), slog.String("vhost", h.VHost),
		slog.String("username", h.Username), slog.Bool("tls", h.TLS.On))
}

// String is for %v: it leaves the password out, too.
func (h Host) String() string { return h.Username + "@" + h.Address() + "/" + h.VHost }

// connection is one AMQP connection, with its own way out when the library
// cannot close it.
type connection struct {
	*amqp.Connection
	raw     *coalescingConn
	host    Host
	blocked atomic.Bool
	// changed has a token when blocked has changed. Capacity 1.
	changed chan struct{}
	// closing gets the reason once, if there is one, and is closed with the
	// connection.
	closing chan *amqp.Error
	watched chan struct{} // the watcher has ended
}

// dial connects and logs in; ctx bounds all of it.
func dial(ctx context.Context, h Host, name string, onBlocked func(blocked bool, reason string)) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	as := strconv.Quote(h.Username)
	if h.External {
		as = "its certificate says"
	}
	fail := func(err error) (*connection, error) {
		return nil, fmt.Errorf("connect to broker at %s, vhost %q, as %s: %w", h.Address(), h.VHost, as, err)
	}
	if h.Problem != "" {
		return fail(errors.New(h.Problem))
	}
	secure, err := h.TLS.config(h.Host)
	if err != nil {
		return fail(err)
	}
	socket, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.Address())
	if err != nil {
		return fail(err)
	}
	raw := newCoalescingConn(socket, writeTimeout)
	wire := &readErrorConn{Conn: raw}
	config := amqp.Config{
		Vhost:      h.VHost,
		Heartbeat:  heartbeat,
		SASL:       []amqp.Authentication{&amqp.PlainAuth{Username: h.Username, Password: h.Password}},
		Properties: amqp.NewConnectionProperties(),
		Dial:       func(string, string) (net.Conn, error) { return wire, nil },
	}
	config.Properties.SetClientConnectionName(name)
	if h.External {
		config.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	inTime := context.AfterFunc(ctx, raw.abort) // the library knows no context
	if h.TLS.On {
		encrypted := tls.Client(raw, secure)
		err = encrypted.HandshakeContext(ctx)
		wire.Conn = encrypted
	}
	var conn *amqp.Connection
	if err == nil {
		conn, err = amqp.DialConfig("amqp://"+h.Address(), config)
	}
	if !inTime() {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.abort()
		<-raw.ended
		return fail(explainTLS(wire.explain(err)))
	}
	c := &connection{
		Connection: conn, raw: raw, host: h,
		changed: make(chan struct{}, 1),
		closing: conn.NotifyClose(make(chan *amqp.Error, 1)),
		watched: make(chan struct{}),
	}
	go c.watch(conn.NotifyBlocked(make(chan amqp.Blocking, 16)), onBlocked)
	return c, nil
}

// watch follows the broker's alarms until the connection is closed.
func (c *connection) watch(notices <-chan amqp.Blocking, onBlocked func(bool, string)) {
	defer close(c.watched)
	for n := range notices {
		c.blocked.Store(n.Active)
		signal(c.changed)
		onBlocked(n.Active, n.Reason)
	}
}

// close ends the connection, politely for closeTimeout, then by force. The
// polite way hangs while the broker does not read.
func (c *connection) close() {
	closed := make(chan struct{})
	go func() { // closer
		defer close(closed)
		_ = c.CloseDeadline(time.Now().Add(closeTimeout))
	}()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C:
		c.raw.abort()
		<-closed
	}
	c.raw.abort()
	<-c.raw.ended
	<-c.watched
}

// Denied tells whether the broker itself refused the login, as against not being
// reachable.
func Denied(err error) bool {
	var e *amqp.Error
	return errors.Is(err, amqp.ErrCredentials) || errors.Is(err, amqp.ErrVhost) || errors.Is(err, amqp.ErrSASL) ||
		errors.As(err, &e) && (e.Code == amqp.AccessRefused || e.Code == amqp.NotAllowed)
}

// signal leaves a token in a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
