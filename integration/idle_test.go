package integration

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// A slot that has nothing to say must not keep what others write. Without heartbeats only the
// server's own positions move it.
func TestP12IdleSlotFollowsTheWALOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	const (
		written = 100 << 20
		allowed = 1 << 20
		limit   = 15 * time.Second
	)
	postgres := ownPostgres(t, testserver.PostgresOptions{})
	w := newWorld(t, worldOptions{postgres: postgres})
	w.start("--heartbeat-interval", "1h")
	ctx := withDeadline(t, sqlLimit)
	if err := postgres.CreateDatabase(ctx, "other"); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, postgres.URL("other"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	before := w.lsn(`select pg_current_wal_lsn()::text`)
	run(t, conn, `create table t (body text)`)
	for w.lsn(`select pg_current_wal_lsn()::text`)-before < written {
		run(t, conn, `insert into t select repeat('x', 1900) from generate_series(1, 5000)`)
	}
	began := time.Now()
	await(t, limit, "the slot follows", func() bool {
		return value[int64](w, `select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint
			from pg_replication_slots where slot_name = $1`, w.slot) < allowed
	})
	t.Logf("the slot has followed %s after the last write", time.Since(began).Round(time.Millisecond))
}
