package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

// backlog is messages that were committed in a database of their own, and a slot that stands in
// front of them. Each run reads them from a copy of the slot.
type backlog struct {
	database string // name
	address  string // URL
	slot     string
	messages int
	// from and until are positions: the slot's own, and one that is confirmed when, and only
	// when, the last message is.
	from, until pglogrepl.LSN
	to          destination
}

// content says what messages are like.
type content struct {
	Body          int // bytes
	AllProperties bool
	User          string // of the broker: the only one that user_id may name
	// Row is the format in which a row of a table becomes the message; empty for one of amqp.publish.
	Row string
}

func (w *world) content() content {
	return content{Body: w.options.Body, AllProperties: w.options.AllProperties, User: w.broker.Username}
}

// load commits messages, so many a transaction; 0 is one transaction with all.
func (w *world) load(ctx context.Context, c content, messages, perTransaction int, to destination) (*backlog, error) {
	name := w.newName("backlog")
	address, err := w.newDatabase(ctx, name)
	if err != nil {
		return nil, err
	}
	b := &backlog{database: name, address: address, slot: name, messages: messages, to: to}
	return b, inDatabase(ctx, address, func(conn *pgx.Conn) error { return b.fill(ctx, conn, c, perTransaction) })
}

func (b *backlog) fill(ctx context.Context, conn *pgx.Conn, c content, perTransaction int) error {
	if perTransaction == 0 {
		perTransaction = b.messages
	}
	var from, until string
	if c.Row != "" {
		if err := c.routeRows(ctx, conn, b.to); err != nil {
			return err
		}
	}
	err := conn.QueryRow(ctx, `select lsn::text from pg_create_logical_replication_slot($1, 'pgoutput')`, b.slot).Scan(&from)
	if err != nil {
		return fmt.Errorf("create slot %s: %w", b.slot, err)
	}
	for _, statement := range []string{"set synchronous_commit = off", c.loop(b.messages, perTransaction, b.to)} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("publish %d messages: %w", b.messages, err)
		}
	}
	if err := conn.QueryRow(ctx, `select current_setting('bench.until')`).Scan(&until); err != nil {
		return err
	}
	if b.from, err = pglogrepl.ParseLSN(from); err != nil {
		return err
	}
	b.until, err = pglogrepl.ParseLSN(until)
	return err
}

// newName names a database or slot of this run.
func (w *world) newName(what string) string {
	w.made++
	return fmt.Sprintf("%s_%s_%d", w.name, what, w.made)
}

// loop publishes inside the server: no client is as fast. The position is taken behind the last
// message and before its transaction's end.
func (c content) loop(messages, perTransaction int, to destination) string {
	if c.Row != "" {
		return insertLoop(messages, perTransaction)
	}
	exchanges := "''"
	if len(to.Exchanges) > 0 {
		exchanges = quote(strings.Join(to.Exchanges, ","))
	}
	return fmt.Sprintf(`do $do$
declare
	body constant text := repeat('x', %d);
	exchanges constant text[] := string_to_array(%s, ',');
begin
	for i in 1..%d loop
		perform amqp.publish(1, coalesce(exchanges[1 + i %% greatest(cardinality(exchanges), 1)], ''), %s, body%s);
		if i %% %d = 0 and i < %d then commit; end if;
	end loop;
	perform set_config('bench.until', pg_current_wal_insert_lsn()::text, false);
end $do$`, c.Body, exchanges, messages, quote(to.Queue), c.arguments(), perTransaction, messages)
}

// arguments are those behind the message's body.
func (c content) arguments() string {
	if !c.AllProperties {
		return ""
	}
	p := c.publishing()
	return fmt.Sprintf(`, 2, %s, %s, %s, '{"source": "bench", "attempt": 1}', %s, %d, %s, %s, %s, %s, %s, to_timestamp(%d), true`,
		quote(p.ContentType), quote(p.ReplyTo), quote(p.CorrelationId), quote(messageID), p.Priority, quote(p.Expiration),
		quote(p.Type), quote(p.AppId), quote(p.UserId), quote(p.ContentEncoding), p.Timestamp.Unix())
}

// messageID is as long as one that pgamqp makes: system identifier, timeline, LSN.
const messageID = "7300000000000000000-1-0/1A2B3C4D"

// publishing is the same message as arguments makes, for a publisher without PostgreSQL.
func (c content) publishing() amqp.Publishing {
	p := amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: messageID, Body: []byte(strings.Repeat("x", c.Body))}
	if c.Row != "" {
		p.ContentType, p.Body = "application/json", []byte(rowMessage)
	}
	if c.AllProperties {
		p.ContentType, p.ContentEncoding, p.CorrelationId, p.ReplyTo = "text/plain", "utf-8", "order-4711", "replies"
		p.Expiration, p.Type, p.AppId, p.UserId, p.Priority = "86400000", "order.created", "shop", c.User, 5
		p.Timestamp = time.Unix(1700000000, 0)
		p.Headers = amqp.Table{"source": "bench", "attempt": int64(1)}
	}
	return p
}

// copySlot makes a slot for one run.
func (w *world) copySlot(ctx context.Context, b *backlog) (string, error) {
	name := w.newName("run")
	return name, inDatabase(ctx, b.address, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, `select pg_copy_logical_replication_slot($1, $2)`, b.slot, name); err != nil {
			return fmt.Errorf("copy slot %s: %w", b.slot, err)
		}
		return nil
	})
}

// dropSlot drops a slot, once its last reader is gone.
func (w *world) dropSlot(ctx context.Context, slot string) error {
	const drop = `select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1`
	err := soon(ctx, func() error {
		_, err := w.admin.Exec(ctx, drop, slot)
		return err
	})
	if err != nil {
		return fmt.Errorf("drop slot %s: %w", slot, err)
	}
	return nil
}

// soon tries until it succeeds, for half a minute.
func soon(ctx context.Context, try func() error) error {
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-limited.Done():
			return err
		}
	}
}

// quote makes an SQL literal; standard_conforming_strings is on.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
