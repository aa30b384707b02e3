package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// Signatures are the keys of amqp.signing_key, and from where on messages must be signed.
type Signatures struct {
	Keys     [][]byte // of HMAC-SHA256, secret
	Required bool
	From     pglogrepl.LSN // zero is the beginning
	Snapshot string        // pg_snapshot: what every transaction that it shows has changed is in here
}

// innerPad is what HMAC (RFC 2104) combines a key with for its inner hash.
const innerPad = 0x36

// ReadSignatures returns what messages are trusted by.
func ReadSignatures(ctx context.Context, conn *pgx.Conn) (Signatures, error) {
	var s Signatures
	var from *string
	err := conn.QueryRow(ctx, `
		select i.signed_from is not null,
		       case when i.signed_on = (select c.system_identifier from pg_catalog.pg_control_system() c) then i.signed_from::text end,
		       pg_catalog.pg_current_snapshot()::text
		  from amqp.installation i`).Scan(&s.Required, &from, &s.Snapshot)
	if err == nil && from != nil {
		s.From, err = pglogrepl.ParseLSN(*from)
	}
	if err != nil {
		return s, fmt.Errorf("read amqp.installation: %w", err)
	}
	rows, err := conn.Query(ctx, `select inner_pad from amqp.signing_key order by key_id desc`)
	if err == nil {
		s.Keys, err = pgx.CollectRows(rows, pgx.RowTo[[]byte])
	}
	for _, key := range s.Keys {
		for i := range key {
			key[i] ^= innerPad
		}
	}
	if err != nil {
		return s, fmt.Errorf("read amqp.signing_key: %w", err)
	}
	return s, nil
}

// keysMissing tells whether signatures are required, and there is no key to make or to check them with. The answer is
// false to a role that may not read that.
func keysMissing(ctx context.Context, conn *pgx.Conn) (missing bool, err error) {
	const readable = `
		select coalesce(pg_catalog.bool_and(pg_catalog.has_table_privilege(t, 'select')), false)
		  from (values (pg_catalog.to_regclass('amqp.signing_key')), (pg_catalog.to_regclass('amqp.installation'))) v(t) where t is not null having pg_catalog.count(*) = 2`
	err = conn.QueryRow(ctx, readable).Scan(&missing)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err == nil && missing {
		err = conn.QueryRow(ctx, `select i.signed_from is not null and not exists (select from amqp.signing_key) from amqp.installation i`).Scan(&missing)
	}
	if err != nil {
		return false, fmt.Errorf("read amqp.signing_key: %w", err)
	}
	return missing, nil
}
