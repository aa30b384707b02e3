package catalog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/sql"
)

// laneInfix joins the name of a slot and a broker_id to the name of the broker's own slot.
const laneInfix = "_broker_"

// LaneSlot returns the name of the slot that a detached broker has for itself.
func LaneSlot(slot string, broker int32) string { return slot + laneInfix + strconv.Itoa(int(broker)) }

// Lanes looks after the slots of detached brokers for the daemon whose stream from the main
// slot is served by process PID. All commands take the same lock, each for the one message
// in which it is sent: a daemon that stops in the middle of its work holds nothing. Copy and
// Drop do nothing unless that process reads the main slot at that moment, so a daemon that
// another one has replaced changes nothing any more.
type Lanes struct {
	// Ask runs f on a connection, as the daemon's other questions.
	Ask  func(ctx context.Context, f func(context.Context, *pgx.Conn) error) error
	Slot string
	PID  uint32
}

// A command that reaches the server later than tooLate after its connection was made is
// not carried out, and nobody gives up waiting before. So after an error, what was asked
// for may have been done, but will not be done later.
const (
	tooLate = 4 * time.Second
	giveUp  = 6 * time.Second
)

// List returns the brokers that have a slot of their own, in the order of their ids.
func (l *Lanes) List(ctx context.Context) ([]int32, error) {
	const what = "look for slots of detached brokers"
	rows, err := l.run(ctx, what, `select slot_name from (`+laneQuery(sql.Literal(l.Slot))+`) as lanes`)
	if err != nil {
		return nil, err
	}
	var brokers []int32
	for _, row := range rows {
		id, err := strconv.ParseInt(strings.TrimPrefix(row, l.Slot+laneInfix), 10, 32)
		if err != nil {
			continue // somebody else's: no broker has such an id
		}
		brokers = append(brokers, int32(id))
	}
	return brokers, nil
}

// Copy gives a broker a slot of its own, which begins at the confirmed position of the main
// slot, unless there is one. It is on disk when Copy returns.
func (l *Lanes) Copy(ctx context.Context, broker int32) error {
	lane := sql.Literal(LaneSlot(l.Slot, broker))
	return l.command(ctx, fmt.Sprintf("copy slot %q for broker %d", l.Slot, broker), `
		when exists (select from pg_catalog.pg_replication_slots where slot_name = `+lane+`) then 'done'
		else (select 'done' from pg_catalog.pg_copy_logical_replication_slot(`+sql.Literal(l.Slot)+`, `+lane+`, false))`)
}

// Drop drops a broker's own slot, if there is one.
func (l *Lanes) Drop(ctx context.Context, broker int32) error {
	lane := sql.Literal(LaneSlot(l.Slot, broker))
	return l.command(ctx, fmt.Sprintf("drop slot %q", LaneSlot(l.Slot, broker)), `
		when not exists (select from pg_catalog.pg_replication_slots where slot_name = `+lane+`) then 'done'
		else (select 'done' from pg_catalog.pg_drop_replication_slot(`+lane+`))`)
}

// command runs the branches of a CASE, unless this daemon was replaced or the command is
// late.
func (l *Lanes) command(ctx context.Context, action, branches string) error {
	rows, err := l.run(ctx, action, fmt.Sprintf(`
		select case when not exists (
		  select from pg_catalog.pg_replication_slots where slot_name = %s and active_pid = %d)
		then 'this daemon does not read the main slot any more'
		when (select pg_catalog.clock_timestamp() - backend_start from pg_catalog.pg_stat_activity
		       where pid = pg_catalog.pg_backend_pid()) > interval '%d ms' then 'the server was too slow' %s end`,
		sql.Literal(l.Slot), l.PID, tooLate.Milliseconds(), branches))
	if err != nil {
		return err
	}
	if len(rows) != 1 || rows[0] != "done" {
		return fmt.Errorf("%s: %s", action, strings.Join(rows, ", "))
	}
	return nil
}

// run takes the lock and runs a statement, in one message to the server and so in one
// transaction. It returns the only column.
func (l *Lanes) run(ctx context.Context, action, statement string) ([]string, error) {
	var out []string
	err := l.Ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		ctx, cancel := context.WithTimeoutCause(ctx, giveUp, errors.New("no answer from the server"))
		defer cancel()
		results, err := conn.PgConn().Exec(ctx, `select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(`+
			sql.Literal("pgamqp slot "+l.Slot)+`, 0)); `+statement).ReadAll()
		if err != nil {
			return err
		}
		if len(results) != 2 {
			return fmt.Errorf("%d results instead of 2", len(results))
		}
		for _, row := range results[1].Rows {
			out = append(out, string(row[0]))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", action, explainSlotError(err))
	}
	return out, nil
}

// explainSlotError adds what to do to errors that somebody must set right.
func explainSlotError(err error) error {
	switch {
	case hasCode(err, codeTooManySlots):
		return fmt.Errorf("%w; raise max_replication_slots by the number of brokers, and restart PostgreSQL", err)
	case hasCode(err, codeInsufficientPrivilege):
		return fmt.Errorf("%w; the daemon's role needs: alter role ... replication", err)
	case hasCode(err, codeInvalidName):
		return fmt.Errorf("%w; the name of the main slot leaves no room for that of a broker: use one of at most 45 bytes", err)
	}
	return err
}

// laneQuery selects the slots of detached brokers. slot is an expression of SQL.
func laneQuery(slot string) string {
	return `select slot_name::text from pg_catalog.pg_replication_slots
		where database = pg_catalog.current_database() and pg_catalog.starts_with(slot_name::text, ` + slot + `::text || '` + laneInfix + `')
		  and pg_catalog.substr(slot_name::text, pg_catalog.length(` + slot + `::text) + 9) ~ '^[0-9]+$' order by 1`
}

// laneSlots returns the names of the slots of detached brokers.
func laneSlots(ctx context.Context, conn *pgx.Conn, slot string) ([]string, error) {
	rows, err := conn.Query(ctx, laneQuery("$1"), slot)
	if err != nil {
		return nil, fmt.Errorf("look for slots of detached brokers: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for slots of detached brokers: %w", err)
	}
	return names, nil
}

// KeepLaneOverFailover makes the slot of a detached broker a failover slot if the main slot
// is one: a copy does not take that over. It needs a replication connection, which config
// describes, and does nothing before PostgreSQL 17.
func KeepLaneOverFailover(ctx context.Context, config *pgconn.Config, main, lane SlotStatus) error {
	if !main.Failover || lane.Failover {
		return nil
	}
	config = config.Copy()
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to make slot %q a failover slot: %w", lane.Name, err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // nothing is lost with it
	}()
	// The name consists of letters, digits and underscores: it is that of a slot.
	if _, err := conn.Exec(ctx, `ALTER_REPLICATION_SLOT "`+lane.Name+`" (FAILOVER true)`).ReadAll(); err != nil {
		return fmt.Errorf("make slot %q a failover slot: %w", lane.Name, err)
	}
	return nil
}
