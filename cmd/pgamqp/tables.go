package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/secrets"
	"github.com/pgamqp/pgamqp/publisher"
	"github.com/pgamqp/pgamqp/replication"
)

// cannotConnectNow is the SQLSTATE of a server that starts or shuts down. One that
// streams to us does not start.
const cannotConnectNow = "57P03"

// ask runs f on a connection of its own, which is closed afterwards. A connection
// that is kept would never notice a smart shutdown, and the server would wait for
// it without limit.
func (d *daemon) ask(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	return d.askWith(ctx, d.postgres.config(), f)
}

func (d *daemon) askWith(ctx context.Context, config *pgx.ConnConfig, f func(context.Context, *pgx.Conn) error) error {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == cannotConnectNow {
			for _, s := range d.sessions() {
				s.ServerStopping()
			}
		}
		return replication.ExplainTLS(err)
	}
	err = f(ctx, conn)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(closing) // nothing is lost with it
	return err
}

// readBrokers reads amqp.broker for the publisher, once transaction xid is visible
// (0: at once).
func (d *daemon) readBrokers(ctx context.Context, xid uint32) ([]publisher.Broker, error) {
	var rows []catalog.Broker
	var signatures catalog.Signatures
	stream, err := d.trust.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer d.trust.end()
	err = d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := catalog.AwaitVisible(ctx, conn, xid)
		if err == nil {
			rows, err = catalog.Brokers(ctx, conn)
		}
		if err == nil {
			signatures, err = catalog.ReadSignatures(ctx, conn)
		}
		return err
	})
	if err == nil {
		err = d.trust.learn(signatures, stream)
	}
	if err != nil {
		return nil, err
	}
	d.memory.serve(len(rows))
	return d.secrets.brokers(rows), nil
}

// brokerSecrets fills in what rows of amqp.broker refer to.
type brokerSecrets struct {
	store *secrets.Store
	log   *slog.Logger

	mu    sync.Mutex // one reading at a time: each ends with forgetting what it has not asked for
	stale backoff.Repeats
}

func (s *brokerSecrets) brokers(rows []catalog.Broker) []publisher.Broker {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.store.Sweep()
	out := make([]publisher.Broker, 0, len(rows))
	for _, row := range rows {
		b := publisher.Broker{
			ID:     row.ID,
			Policy: publisher.Policy{OnReject: publisher.OnReject(row.OnReject), RetryTimeout: row.RetryTimeout},
		}
		for _, h := range row.Hosts {
			b.Hosts = append(b.Hosts, s.host(&h))
		}
		out = append(out, b)
	}
	return out
}

// host is a row of amqp.broker. What cannot be read is a problem of that host alone.
func (s *brokerSecrets) host(h *catalog.Host) publisher.Host {
	var problem error
	resolve := func(column, value string) string {
		secret, err := s.store.Resolve(value)
		if _, kept := errors.AsType[*secrets.StaleError](err); kept {
			if s.stale.Worth(h.String()+err.Error(), time.Now()) {
				s.log.Warn("cannot read a secret that amqp.broker refers to", slog.String("column", column),
					slog.String("host", h.String()), slog.Any("error", err))
			}
		} else if err != nil {
			problem = errors.Join(problem, fmt.Errorf("%s: %w", column, err))
		}
		return secret
	}
	host := publisher.Host{
		Host: h.Host, Port: int(h.Port), VHost: h.VHost, Username: h.Username, External: h.Auth == catalog.AuthExternal,
		TLS: publisher.TLS{On: h.TLS, ServerName: h.TLSServerName},
	}
	if !host.External {
		host.Password = resolve("password", h.Password)
	}
	if h.TLS {
		host.TLS.CA, host.TLS.Certificate, host.TLS.Key = resolve("tls_ca", h.TLSCA), resolve("tls_cert", h.TLSCert), resolve("tls_key", h.TLSKey)
	}
	if problem != nil {
		host.Problem = problem.Error()
	}
	return host
}

// storeDeadLetter writes a row of amqp.dead_letter for the publisher.
func (d *daemon) storeDeadLetter(ctx context.Context, letter publisher.DeadLetter) error {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	row := deadLetterRow(&letter)
	if err := catalog.AddDeadLetter(ctx, conn.Conn(), row); err != nil {
		return err
	}
	broker := ""
	if row.BrokerID != nil {
		broker = strconv.Itoa(int(*row.BrokerID))
	}
	d.journal.Letter(broker, letter.Attrs()...)
	return nil
}

func deadLetterRow(letter *publisher.DeadLetter) catalog.DeadLetter {
	row := catalog.DeadLetter{
		Origin: letter.Origin, LSN: letter.Message.LSN, Kind: "unknown",
		Reason: string(letter.Reason), ReplyCode: int32(letter.ReplyCode), ReplyText: letter.ReplyText,
		MessageID: letter.MessageID, Head: letter.Head, Body: letter.Body,
	}
	if letter.Reason == publisher.ReasonUndecodable {
		return row
	}
	e := &letter.Envelope
	row.BrokerID = &e.BrokerID
	row.Kind = e.Kind.String()
	row.Exchange, row.RoutingKey, row.Role = e.Exchange, e.RoutingKey, e.Role
	if e.Headers != "" {
		row.Headers = json.RawMessage(e.Headers)
	}
	row.Properties = describeProperties(e)
	return row
}

// describeProperties shows what is set, under the names of amqp.publish's
// arguments. It is for people; redelivery uses the head.
func describeProperties(e *decoder.Envelope) json.RawMessage {
	p := make(map[string]string)
	for name, value := range map[string]string{
		"delivery_mode": e.DeliveryMode, "content_type": e.ContentType, "content_encoding": e.ContentEncoding,
		"reply_to": e.ReplyTo, "correlation_id": e.CorrelationID, "message_id": e.MessageID, "priority": e.Priority,
		"expiration": e.Expiration, "type": e.Type, "app_id": e.AppID, "user_id": e.UserID,
		"timestamp": e.Timestamp, "queue": e.Queue, "flags": e.Flags,
	} {
		if value != "" {
			p[name] = value
		}
	}
	if len(p) == 0 {
		return nil
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil // strings marshal
	}
	return b
}
