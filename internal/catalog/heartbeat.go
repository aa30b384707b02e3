package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// Heartbeat sends a probe through the whole path and returns its position; nonce comes
// back as the body of the message.
func Heartbeat(ctx context.Context, conn *pgx.Conn, nonce string) (pglogrepl.LSN, error) {
	var lsn uint64
	if err := conn.QueryRow(ctx, `select amqp.heartbeat($1) - '0/0'`, nonce).Scan(&lsn); err != nil {
		return 0, fmt.Errorf("send heartbeat: %w", err)
	}
	return pglogrepl.LSN(lsn), nil
}

// IsSynchronousStandby reports whether the server takes the walsender with this process id
// for a synchronous standby: then every commit of every application waits for the brokers.
func IsSynchronousStandby(ctx context.Context, conn *pgx.Conn, pid uint32) (bool, error) {
	var state string
	err := conn.QueryRow(ctx, `select coalesce(sync_state, '') from pg_catalog.pg_stat_replication where pid = $1`, int64(pid)).Scan(&state)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read pg_stat_replication: %w", err)
	}
	return state == "sync" || state == "quorum", nil
}
