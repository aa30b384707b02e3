package replication

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/decoder"
)

// slotName is what PostgreSQL allows. The name goes unquoted into
// START_REPLICATION, so nothing else may ever get there.
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// identity is what must stay the same for positions to keep their meaning.
type identity struct {
	systemID string
	timeline int32
	slot     string
}

// server is what was learnt about the server and the slot before streaming.
type server struct {
	identity  identity
	source    decoder.Source
	walEnd    pglogrepl.LSN // end of the WAL when asked
	confirmed pglogrepl.LSN // confirmed_flush_lsn of the slot
	timeout   time.Duration // wal_sender_timeout, 0 if switched off
	holder    string        // process id of who reads the slot now, empty if nobody does
}

// inspect identifies the server and checks slot and publication over a
// replication connection that does not stream yet.
func inspect(ctx context.Context, conn *pgconn.PgConn, slot, publication string, remembered *memory) (server, error) {
	var s server
	id, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return s, fmt.Errorf("identify system: %w", err)
	}
	s.identity = identity{systemID: id.SystemID, timeline: id.Timeline, slot: slot}
	s.walEnd = id.XLogPos
	if err := remembered.recognize(s); err != nil {
		return s, err
	}
	s.source = decoder.Source{SystemID: id.SystemID, Timeline: id.Timeline}
	if id.Timeline > 1 {
		history, err := pglogrepl.TimelineHistory(ctx, conn, id.Timeline)
		if err != nil {
			return s, fmt.Errorf("read history of timeline %d: %w", id.Timeline, err)
		}
		if s.source.Ancestors, err = decoder.ParseHistory(history.Content); err != nil {
			return s, err
		}
	}
	if err := s.readSlot(ctx, conn, slot, remembered); err != nil {
		return s, err
	}
	return s, checkPublication(ctx, conn, slot, publication)
}

// readSlot reads the slot's row and refuses a slot that cannot be streamed, or
// must not be. The texts of START_REPLICATION's own errors differ by version and
// mislead (a physical slot is said to be invalidated), so nothing is left to them.
func (s *server) readSlot(ctx context.Context, conn *pgconn.PgConn, slot string, remembered *memory) error {
	rows, err := query(ctx, conn, `
		select s.slot_type, coalesce(s.plugin, ''), coalesce(s.database, ''), s.two_phase::text, s.temporary::text,
		       coalesce(s.wal_status, ''), coalesce(s.confirmed_flush_lsn::text, ''),
		       pg_catalog.current_database(), pg_catalog.pg_is_in_recovery()::text,
		       (select setting from pg_catalog.pg_settings where name = 'wal_sender_timeout'), s.active_pid::text
		from (select) as here left join pg_catalog.pg_replication_slots s on s.slot_name = '`+slot+`'`)
	if err != nil {
		return fmt.Errorf("read slot %q: %w", slot, err)
	}
	if len(rows) != 1 || len(rows[0]) != 11 {
		return fmt.Errorf("read slot %q: unexpected answer", slot)
	}
	r := rows[0]
	slotType, plugin, database, twoPhase, temporary := r[0], r[1], r[2], r[3], r[4]
	walStatus, confirmed, here, inRecovery := r[5], r[6], r[7], r[8]
	refuse := func(problem, fix string) error { return &SlotError{Slot: slot, Problem: problem, Fix: fix} }
	switch {
	case inRecovery == "true":
		return errStandby
	case slotType == "":
		return goneError(*s, slot, remembered)
	case slotType != "logical":
		return refuse("is a "+slotType+" slot", "choose another name with --slot")
	case plugin != "pgoutput":
		return refuse("uses the plugin "+plugin+", not pgoutput", "choose another name with --slot, or drop it and run: pgamqp install")
	case database != here:
		return refuse("belongs to database "+database+", this is "+here, "connect to that database, or choose another name with --slot")
	case twoPhase == "true":
		return refuse("has two_phase on", "drop it with: select pg_drop_replication_slot('"+slot+"'); then run: pgamqp install")
	case temporary == "true":
		return refuse("is temporary", "choose another name with --slot")
	case walStatus == "lost":
		return lostError(*s, slot, confirmed)
	}
	if s.confirmed, err = pglogrepl.ParseLSN(confirmed); err != nil || s.confirmed == 0 {
		return fmt.Errorf("read slot %q: confirmed position %q", slot, confirmed)
	}
	ms, err := strconv.Atoi(r[9])
	if err != nil {
		return fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	s.timeout = time.Duration(ms) * time.Millisecond
	s.holder = r[10]
	return nil
}

// checkPublication refuses to stream without the publication. START_REPLICATION
// would succeed, and the first row change would stop the slot: up to version 17
// for ever, because the catalog is read as of that point of the WAL.
func checkPublication(ctx context.Context, conn *pgconn.PgConn, slot, publication string) error {
	rows, err := query(ctx, conn, `select 1 from pg_catalog.pg_publication where pubname = `+quoteLiteral(publication))
	if err != nil {
		return fmt.Errorf("look up publication %q: %w", publication, err)
	}
	if len(rows) == 0 {
		return &SlotError{
			Slot: slot, Cause: NoPublication, Problem: fmt.Sprintf("needs publication %q, which does not exist", publication),
			Fix: "create it with: pgamqp install; if rows were written meanwhile the server may refuse with 42704 what lies behind, see docs/operations.md",
		}
	}
	return nil
}

// query runs one statement by the simple protocol and returns its rows as text,
// NULL as the empty string.
func query(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, result := range results {
		for _, row := range result.Rows {
			cells := make([]string, len(row))
			for i, cell := range row {
				cells[i] = string(cell)
			}
			out = append(out, cells)
		}
	}
	return out, nil
}
