package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// Signatures are the keys of amqp.signing_key, and from where on messages must be signed.
type Signatures struct {
	Keys     [][]byte // of HMAC-SHA256, secret
	Required bool
	From     pglogrepl.LSN // zero is the beginning
}

// innerPad is what HMAC (RFC 2104) combines a key with for its inner hash.
const innerPad = 0x36

// ReadSignatures returns what messages are trusted by.
func ReadSignatures(ctx context.Context, conn *pgx.Conn) (Signatures, error) {
	var s Signatures
	var from *string
	err := conn.QueryRow(ctx, `
		select i.signed_from is not null,
		       case when i.signed_on = (select c.system_identifier from pg_catalog.pg_control_system() c) then i.signed_from::text end
		  from amqp.installation i`).Scan(&s.Required, &from)
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
