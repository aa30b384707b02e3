package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DeadLetter is a message that could not be delivered. Zero values become NULL where the
// column allows it.
type DeadLetter struct {
	Origin     string // id of the first emission; a second letter with the same counts as another attempt
	LSN        pglogrepl.LSN
	BrokerID   *int32 // nil when the envelope could not be read
	Kind       string
	Reason     string
	ReplyCode  int32
	ReplyText  string
	MessageID  string
	Exchange   string
	RoutingKey string
	Properties json.RawMessage
	Headers    json.RawMessage
	Role       string
	// Head and Body together are the envelope, so that it can be sent again unchanged.
	Head []byte
	Body []byte
}

// The commit must be on disk before the position of the message may be reported, so a
// role or database with synchronous_commit = off gets it for this one transaction.
const deadLetterQuery = `
insert into amqp.dead_letter as d
  (origin, lsn, broker_id, kind, reason, reply_code, reply_text, message_id, exchange, routing_key,
   properties, headers, role, head, body)
select $1, $2::text::pg_lsn, $3::int, $4, $5, nullif($6::int, 0), nullif($7, ''), nullif($8, ''), $9, $10,
       $11::jsonb, $12::jsonb, nullif($13, ''), $14::bytea, $15::bytea
 where pg_catalog.set_config('synchronous_commit',
         case pg_catalog.current_setting('synchronous_commit') when 'off' then 'on'
              else pg_catalog.current_setting('synchronous_commit') end, true) is not null
on conflict (origin) do update
  set attempts = d.attempts + 1, last_failed_at = now(), lsn = excluded.lsn, broker_id = excluded.broker_id,
      reason = excluded.reason, reply_code = excluded.reply_code, reply_text = excluded.reply_text`

// AddDeadLetter stores a message and returns when it is committed. It may be repeated:
// a message that is stored already counts one more attempt.
//
// It does not fail because of what is in the message: text that PostgreSQL cannot hold is
// changed, JSON that it cannot hold is left out. Head and body keep every byte.
func AddDeadLetter(ctx context.Context, conn *pgx.Conn, d DeadLetter) error {
	err := storeDeadLetter(ctx, conn, d, storable)
	if isDataError(err) {
		// jsonb is narrower than JSON: no \u0000, no lone surrogate, numbers of limited size.
		d.Properties, d.Headers = nil, nil
		err = storeDeadLetter(ctx, conn, d, storable)
	}
	if isDataError(err) { // a database that is not in UTF-8 has not every character
		err = storeDeadLetter(ctx, conn, d, ascii)
	}
	if err != nil {
		return fmt.Errorf("store dead letter %s: %w", d.Origin, err)
	}
	return nil
}

func storeDeadLetter(ctx context.Context, conn *pgx.Conn, d DeadLetter, text func(string) string) error {
	_, err := conn.Exec(ctx, deadLetterQuery,
		d.Origin, d.LSN.String(), d.BrokerID, text(d.Kind), text(d.Reason), d.ReplyCode, text(d.ReplyText),
		text(d.MessageID), text(d.Exchange), text(d.RoutingKey), document(d.Properties), document(d.Headers),
		text(d.Role), bytesOf(d.Head), bytesOf(d.Body))
	return err
}

// storable returns s as text can hold it: valid UTF-8 without NUL.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// ascii returns s as every encoding can hold it.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r == 0 || r > unicode.MaxASCII {
			return '?'
		}
		return r
	}, s)
}

// document returns nil, which is NULL, for what is not JSON.
func document(j json.RawMessage) any {
	if !json.Valid(j) {
		return nil
	}
	return string(j)
}

// bytesOf makes a missing part empty: the columns are NOT NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// isDataError tells whether the server did not like a value: class 22, or 0A000 when it
// knows no way from our encoding to that of the database.
func isDataError(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (strings.HasPrefix(e.Code, "22") || e.Code == "0A000")
}

// CountDeadLetters returns how many messages wait in amqp.dead_letter.
func CountDeadLetters(ctx context.Context, conn *pgx.Conn) (int64, error) {
	var n int64
	if err := conn.QueryRow(ctx, `select count(*) from amqp.dead_letter`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	return n, nil
}
