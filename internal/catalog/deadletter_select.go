package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// StoredDeadLetter is a row of amqp.dead_letter as an operator sees it.
type StoredDeadLetter struct {
	ID         int64           `json:"id"`
	Origin     string          `json:"origin"` // the id that the message was first sent with
	LSN        string          `json:"lsn"`    // its position in the WAL
	BrokerID   *int32          `json:"broker_id"`
	Kind       string          `json:"kind"`
	Reason     string          `json:"reason"`
	ReplyCode  *int32          `json:"reply_code"` // of the broker
	ReplyText  *string         `json:"reply_text"`
	MessageID  *string         `json:"message_id"`
	Exchange   *string         `json:"exchange"`
	RoutingKey *string         `json:"routing_key"`
	Properties json.RawMessage `json:"properties"`
	Headers    json.RawMessage `json:"headers"`
	Role       *string         `json:"role"` // that published it
	Attempts   int32           `json:"attempts"`
	First      time.Time       `json:"first_failed_at"`
	Last       time.Time       `json:"last_failed_at"`
	BodyBytes  int64           `json:"body_bytes"`
	Body       []byte          `json:"body,omitempty"` // base64; of one that is asked for by its id only
}

// DeadLetterFilter selects dead letters. Its zero value selects all; each field that is set narrows it.
type DeadLetterFilter struct {
	IDs       []int64
	Broker    *int32
	Reason    *string
	Exchange  *string // "" is the default exchange
	OlderThan time.Duration
	After     int64 // only those with a larger id
	Limit     int64 // the first so many, by id; 0 is no limit

	toSend bool // those that are sent again
}

// The selected ids, in the order of the first failure. What follows uses the arguments $1 to $8. Who sends forged
// messages again signs them: only if they are meant, and of those with a wrong signature none, nor what has no content (see
// sql/dead_letter.sql). Of ids that were given amqp.redeliver says what is wrong.
const selectedLetters = `
selected as materialized (
  select d.id from amqp.dead_letter d
   where ($1::bigint[] is null or d.id = any($1))
     and ($2::integer is null or d.broker_id = $2)
     and ($3::text is null or d.reason = $3)
     and ($4::text is null or d.exchange = $4)
     and d.last_failed_at <= pg_catalog.now() - $5::interval
     and d.id > $6
     and (not $8 or $1::bigint[] is not null
          or (d.reason <> 'forged' or $3 = 'forged')
             and pg_catalog.substr(d.head || pg_catalog.substr(d.body, 1, 1), 1, 1) not in ('\x', '\x02'))
   order by d.id limit $7)`

func (f *DeadLetterFilter) arguments() []any {
	var limit *int64
	if f.Limit > 0 {
		limit = &f.Limit
	}
	return []any{f.IDs, f.Broker, f.Reason, f.Exchange, f.OlderThan, f.After, limit, f.toSend}
}

// DeadLetters returns the selected ones, without their bodies, in the order of their ids.
func DeadLetters(ctx context.Context, conn *pgx.Conn, f DeadLetterFilter) ([]StoredDeadLetter, error) {
	return readDeadLetters(ctx, conn, f, "null::bytea")
}

// DeadLetterWithBody returns one, and false if there is none with this id.
func DeadLetterWithBody(ctx context.Context, conn *pgx.Conn, id int64) (StoredDeadLetter, bool, error) {
	all, err := readDeadLetters(ctx, conn, DeadLetterFilter{IDs: []int64{id}}, "d.body")
	if err != nil || len(all) == 0 {
		return StoredDeadLetter{}, false, err
	}
	return all[0], true, nil
}

func readDeadLetters(ctx context.Context, conn *pgx.Conn, f DeadLetterFilter, body string) ([]StoredDeadLetter, error) {
	rows, err := conn.Query(ctx, `with `+selectedLetters+`
		select d.id, d.origin, d.lsn::text, d.broker_id, d.kind, d.reason, d.reply_code, d.reply_text, d.message_id,
		       d.exchange, d.routing_key, d.properties, d.headers, d.role, d.attempts, d.first_failed_at, d.last_failed_at,
		       pg_catalog.octet_length(d.body)::bigint, `+body+`
		  from selected s join amqp.dead_letter d using (id) order by d.id`, f.arguments()...)
	if err == nil {
		var all []StoredDeadLetter
		all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[StoredDeadLetter])
		if err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read amqp.dead_letter: %w", err)
}

// CountDeadLettersOf returns how many a filter selects.
func CountDeadLettersOf(ctx context.Context, conn *pgx.Conn, f DeadLetterFilter) (int64, error) {
	return changeDeadLetters(ctx, conn, "count dead letters", `with `+selectedLetters+` select pg_catalog.count(*) from selected`, f)
}

// CountRedeliverable returns how many Redeliver would send.
func CountRedeliverable(ctx context.Context, conn *pgx.Conn, f DeadLetterFilter) (int64, error) {
	f.toSend = true
	return CountDeadLettersOf(ctx, conn, f)
}

// Redeliver sends the selected ones again, in the order of their ids, and removes them; it returns how many. All
// are sent, or none if there is an error. Forged ones are selected by their ids or by that reason only.
func Redeliver(ctx context.Context, conn *pgx.Conn, f DeadLetterFilter) (int64, error) {
	f.toSend = true
	return changeDeadLetters(ctx, conn, "send dead letters again", `with `+selectedLetters+`
		select pg_catalog.count(*) from (select amqp.redeliver(s.id) as sent from selected s order by s.id offset 0) r where r.sent`, f)
}

// PurgeDeadLetters removes the selected ones for good and returns how many.
func PurgeDeadLetters(ctx context.Context, conn *pgx.Conn, f DeadLetterFilter) (int64, error) {
	return changeDeadLetters(ctx, conn, "remove dead letters", `with `+selectedLetters+`,
		removed as (delete from amqp.dead_letter d using selected s where d.id = s.id returning d.id)
		select pg_catalog.count(*) from removed`, f)
}

func changeDeadLetters(ctx context.Context, conn *pgx.Conn, what, query string, f DeadLetterFilter) (n int64, err error) {
	if err = conn.QueryRow(ctx, query, f.arguments()...).Scan(&n); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return n, nil
}
