package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/pgamqp/pgamqp/sql"
)

// SlotStatus is a row of pg_replication_slots and how far the server's WAL is beyond it.
type SlotStatus struct {
	Name      string
	Type      string // logical or physical
	Plugin    string
	Database  string
	Temporary bool
	TwoPhase  bool
	Failover  bool // always false before PostgreSQL 17
	Synced    bool // a copy that is kept for a failover; says nothing once the server is a primary
	Active    bool
	ActivePID int32 // 0 when nobody uses it

	RestartLSN     pglogrepl.LSN // 0 when the slot is lost
	ConfirmedFlush pglogrepl.LSN
	CurrentWAL     pglogrepl.LSN
	// ConfirmedLag is the WAL that is not confirmed; it grows with an undelivered backlog.
	ConfirmedLag int64
	// Retained is the WAL that the server keeps for the slot; an old open transaction
	// makes it grow while ConfirmedLag stays small.
	Retained int64
	// SafeWALSize is how much can still be written before the slot is in danger; nil without a limit.
	SafeWALSize *int64
	WALStatus   string // reserved, extended, unreserved, lost
	// InvalidationReason is empty before PostgreSQL 17 and while the slot is good.
	InvalidationReason string
}

// Lost reports whether the server has given up the slot: what it held is gone.
func (s SlotStatus) Lost() bool {
	return s.WALStatus == "lost" || s.InvalidationReason != ""
}

// ErrNoSlot means that there is no slot of this name in the server.
var ErrNoSlot = errors.New("replication slot does not exist")

// Columns that not every version has are read by way of JSON. current_wal on a standby is
// what it has replayed.
const slotQuery = `
select s.slot_name::text, s.slot_type, coalesce(s.plugin::text, ''), coalesce(s.database::text, ''), s.temporary,
       coalesce(s.two_phase, false),
       coalesce((j.row ->> 'failover')::boolean, false), coalesce((j.row ->> 'synced')::boolean, false),
       s.active, coalesce(s.active_pid, 0),
       coalesce(s.restart_lsn, '0/0') - '0/0', coalesce(s.confirmed_flush_lsn, '0/0') - '0/0', w.lsn - '0/0',
       coalesce(w.lsn - s.confirmed_flush_lsn, 0)::bigint, coalesce(w.lsn - s.restart_lsn, 0)::bigint,
       s.safe_wal_size, coalesce(s.wal_status, ''), coalesce(j.row ->> 'invalidation_reason', '')
  from pg_catalog.pg_replication_slots s,
       pg_catalog.to_jsonb(s) j(row),
       (select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                    else pg_catalog.pg_current_wal_lsn() end) w(lsn)
 where s.slot_name = $1`

// ReadSlot returns the state of a slot, or [ErrNoSlot].
func ReadSlot(ctx context.Context, conn *pgx.Conn, name string) (SlotStatus, error) {
	var s SlotStatus
	var restart, confirmed, current uint64
	err := conn.QueryRow(ctx, slotQuery, name).Scan(&s.Name, &s.Type, &s.Plugin, &s.Database, &s.Temporary,
		&s.TwoPhase, &s.Failover, &s.Synced, &s.Active, &s.ActivePID, &restart, &confirmed, &current,
		&s.ConfirmedLag, &s.Retained, &s.SafeWALSize, &s.WALStatus, &s.InvalidationReason)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return s, fmt.Errorf("read slot %q: %w", name, ErrNoSlot)
	case err != nil:
		return s, fmt.Errorf("read slot %q: %w", name, err)
	}
	s.RestartLSN, s.ConfirmedFlush, s.CurrentWAL = pglogrepl.LSN(restart), pglogrepl.LSN(confirmed), pglogrepl.LSN(current)
	return s, nil
}

// check finds what makes a slot unfit for us, all of it at once.
func (s SlotStatus) check(found *problems, database string) {
	s.checkFor(found, database, "give the name of another slot with --slot")
}

// checkFor is check with what to do about a slot that is none of ours.
func (s SlotStatus) checkFor(found *problems, database, another string) {
	name := fmt.Sprintf("slot %q", s.Name)
	if s.Type != "logical" {
		found.add(fmt.Sprintf("%s is a %s slot, not a logical one", name, s.Type), another)
		return // the rest says nothing of a physical slot
	}
	if s.Plugin != "pgoutput" {
		found.add(fmt.Sprintf("%s was created for plugin %s, not pgoutput", name, s.Plugin), another)
	}
	if s.Database != database {
		found.add(fmt.Sprintf("%s belongs to database %q, this is %q", name, s.Database, database),
			"connect to that database, or "+another)
	}
	if s.TwoPhase {
		found.add(name+" decodes prepared transactions before they are committed (two_phase)", another)
	}
	if s.Temporary {
		found.add(name+" is temporary", another)
	}
	if s.Lost() {
		reason := s.InvalidationReason
		if reason == "" {
			reason = "its WAL was removed"
		}
		found.addAs(SlotLost, fmt.Sprintf("%s is lost (%s); what was written to the WAL between %s and now (%s) and not confirmed cannot be read any more",
			name, reason, s.ConfirmedFlush, s.CurrentWAL),
			fmt.Sprintf(`note that range, then: select pg_drop_replication_slot(%s); and "pgamqp install"; a larger max_slot_wal_keep_size prevents it`,
				sql.Literal(s.Name)))
	}
}

// createSlot makes the slot, in a transaction of its own as the server demands. It waits
// for every transaction that is writing at this moment, in any database.
func createSlot(ctx context.Context, conn *pgx.Conn, s server, name string) (pglogrepl.LSN, error) {
	// A failover slot is still there after the promotion of a standby that synchronizes slots.
	query := `select lsn - '0/0' from pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput', false, false)`
	if s.version >= 170000 {
		query = `select lsn - '0/0' from pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput', false, false, failover => true)`
	}
	var lsn uint64
	if err := conn.QueryRow(ctx, query, name).Scan(&lsn); err != nil {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("create slot %q: %w; it waits for all transactions that are writing now, pg_stat_activity shows the oldest", name, err)
		}
		return 0, fmt.Errorf("create slot %q: %w", name, err)
	}
	return pglogrepl.LSN(lsn), nil
}
