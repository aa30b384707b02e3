package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/backoff"
)

// Broker is all rows of amqp.broker with one broker_id: hosts to be tried in turn, and what
// becomes of a message that the broker will not take. Where the rows differ in that, the most
// careful one counts, so that a row added with the defaults never makes messages disappear.
type Broker struct {
	ID    int32
	Hosts []Host
	// OnReject is the column on_reject: dead_letter, hold or drop.
	OnReject string
	// RetryTimeout is the column retry_timeout, nil if no row has one.
	RetryTimeout *time.Duration
}

// The values of on_reject, the most careful one first: hold loses neither message nor order,
// dead_letter no message.
const (
	OnRejectHold       = "hold"
	OnRejectDeadLetter = "dead_letter"
	OnRejectDrop       = "drop"
)

// merge takes over what another row of the broker says about rejected messages.
func (b *Broker) merge(onReject string, seconds *float64) {
	for _, careful := range []string{OnRejectHold, OnRejectDeadLetter, OnRejectDrop} {
		if b.OnReject == careful || onReject == careful {
			b.OnReject = careful
			break
		}
	}
	if seconds == nil {
		return
	}
	// An interval may be infinite, or longer than a Duration can hold.
	timeout := time.Duration(math.MaxInt64)
	if *seconds < timeout.Seconds() {
		timeout = time.Duration(*seconds * float64(time.Second))
	}
	if b.RetryTimeout == nil || *b.RetryTimeout < timeout {
		b.RetryTimeout = &timeout
	}
}

// Host is where and as whom to log in. It keeps its password out of logs.
type Host struct {
	Host     string
	Port     int32
	VHost    string
	Username string
	// Password, like the three of TLS, may refer to a secret: file:NAME, env:NAME.
	Password string
	TLS      bool
	// TLSCA, TLSCert and TLSKey are PEM texts or references; empty if not set.
	TLSCA, TLSCert, TLSKey string
	TLSServerName          string
	// Auth is the column auth: plain or external.
	Auth string
}

// AuthExternal is the value of auth for a login by certificate.
const AuthExternal = "external"

// String returns host and port.
func (h Host) String() string { return net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))) }

// GoString keeps the password out of %#v.
func (h Host) GoString() string { return "catalog.Host(" + h.String() + ")" }

// LogValue leaves the password out.
func (h Host) LogValue() slog.Value {
	return slog.GroupValue(slog.String("host", h.Host), slog.Int("port", int(h.Port)), slog.String("vhost", h.VHost),
		slog.String("username", h.Username), slog.Bool("tls", h.TLS))
}

// LogValue leaves the passwords out.
func (b Broker) LogValue() slog.Value {
	attrs := []slog.Attr{slog.Int("broker", int(b.ID)), slog.String("on_reject", b.OnReject)}
	for _, h := range b.Hosts {
		attrs = append(attrs, slog.Any("host", h.LogValue()))
	}
	return slog.GroupValue(attrs...)
}

// A table that pg_amqp left behind may have NULL where ours has defaults.
const brokersQuery = `
select broker_id, coalesce(host, 'localhost'), coalesce(port, 5672), coalesce(nullif(vhost, ''), '/'),
       coalesce(username, 'guest'), %s, tls, %s, coalesce(tls_server_name, ''), auth, on_reject,
       extract(epoch from retry_timeout)::float8
  from amqp.broker
 order by broker_id, host, port`

// Brokers returns the brokers in the order of their ids, the hosts of each in the order
// of their names.
func Brokers(ctx context.Context, conn *pgx.Conn) ([]Broker, error) {
	return readBrokers(ctx, conn, fmt.Sprintf(brokersQuery, `coalesce(password, 'guest')`,
		`coalesce(tls_ca, ''), coalesce(tls_cert, ''), coalesce(tls_key, '')`))
}

// BrokersToSee is Brokers without passwords and certificates, for which the rights of
// pgamqp_monitor are enough.
func BrokersToSee(ctx context.Context, conn *pgx.Conn) ([]Broker, error) {
	return readBrokers(ctx, conn, fmt.Sprintf(brokersQuery, `''`, `'', '', ''`))
}

func readBrokers(ctx context.Context, conn *pgx.Conn, query string) ([]Broker, error) {
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("read amqp.broker: %w", err)
	}
	defer rows.Close()
	var brokers []Broker
	for rows.Next() {
		var id int32
		var h Host
		var onReject string
		var retrySeconds *float64
		err := rows.Scan(&id, &h.Host, &h.Port, &h.VHost, &h.Username, &h.Password, &h.TLS,
			&h.TLSCA, &h.TLSCert, &h.TLSKey, &h.TLSServerName, &h.Auth, &onReject, &retrySeconds)
		if err != nil {
			return nil, fmt.Errorf("read amqp.broker: %w", err)
		}
		if last := len(brokers) - 1; last < 0 || brokers[last].ID != id {
			brokers = append(brokers, Broker{ID: id})
		}
		b := &brokers[len(brokers)-1]
		b.Hosts = append(b.Hosts, h)
		b.merge(onReject, retrySeconds)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read amqp.broker: %w", err)
	}
	return brokers, nil
}

// visibleQuery completes the 32 bits of a transaction id that the stream carries: those
// of the ids in use lie within 2^31 of the next one.
const visibleQuery = `
select pg_catalog.pg_visible_in_snapshot((next - case when behind < 2147483648 then behind else behind - 4294967296 end)::text::xid8, snapshot)
  from (select pg_catalog.pg_current_snapshot() as snapshot) s,
       lateral (select pg_catalog.pg_snapshot_xmax(snapshot)::text::bigint as next) n,
       lateral (select (next - $1::bigint) & 4294967295 as behind) b`

// isVisible reports whether what a transaction has written can be seen. The replication
// stream may bring its messages a moment before that.
func isVisible(ctx context.Context, conn *pgx.Conn, xid uint32) (bool, error) {
	var visible bool
	if err := conn.QueryRow(ctx, visibleQuery, int64(xid)).Scan(&visible); err != nil {
		return false, fmt.Errorf("look for transaction %d: %w", xid, err)
	}
	return visible, nil
}

// AwaitVisible waits for a moment if a transaction is not visible yet: the stream can be
// faster. When it takes longer (a synchronous standby is awaited) it returns an error, so that
// no session stays open; the caller tries again. 0 is no transaction.
func AwaitVisible(ctx context.Context, conn *pgx.Conn, xid uint32) error {
	if xid == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Second, fmt.Errorf("transaction %d is not visible yet", xid))
	defer cancel()
	wait := backoff.New(time.Millisecond, 50*time.Millisecond)
	for {
		if visible, err := isVisible(ctx, conn, xid); visible || err != nil {
			return err
		}
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}
