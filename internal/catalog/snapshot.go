package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Snapshot is a row of amqp.snapshot.
type Snapshot struct {
	ID     int32  `json:"snapshot_id"`
	Schema string `json:"schema_name"`
	Table  string `json:"table_name"`
	State  string `json:"state"`
	// Chunk is how many chunks have their place in the stream, After where the next one begins; nil is
	// the start.
	Chunk        int64    `json:"chunk"`
	After        []string `json:"-"`
	RowsRead     int64    `json:"rows_read"`
	RowsExpected int64    `json:"rows_expected"` // an estimate; 0 if there is none
	// Error is why it does not go on, or has failed.
	Error string `json:"error,omitempty"`
	// OID is the table's when the snapshot was asked for; 0 if nobody knows, for one of an earlier version.
	OID uint32 `json:"-"`
}

const snapshotColumns = `
select s.snapshot_id, s.schema_name, s.table_name, s.state, s.chunk, s.after, s.rows_read, s.rows_expected, coalesce(s.error, ''),
       coalesce(s.table_oid, 0::oid)`

const snapshotQuery = snapshotColumns + `
  from amqp.snapshot s `

func scanSnapshot(row pgx.Row) (s Snapshot, err error) {
	return s, row.Scan(&s.ID, &s.Schema, &s.Table, &s.State, &s.Chunk, &s.After, &s.RowsRead, &s.RowsExpected, &s.Error, &s.OID)
}

// Snapshots returns those with such ids, all if there are none, oldest first, for people: without After and OID,
// of which a monitor may not know the first.
func Snapshots(ctx context.Context, conn *pgx.Conn, ids ...int32) ([]Snapshot, error) {
	found, err := conn.Query(ctx, `
		select s.snapshot_id, s.schema_name, s.table_name, s.state, s.chunk, null::text[], s.rows_read, s.rows_expected, coalesce(s.error, ''), 0::oid
		  from amqp.snapshot s
		 where coalesce(cardinality($1::integer[]), 0) = 0 or s.snapshot_id = any ($1) order by s.snapshot_id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read amqp.snapshot: %w", err)
	}
	return collectSnapshots(found, "read amqp.snapshot")
}

func collectSnapshots(found pgx.Rows, doing string) ([]Snapshot, error) {
	all, err := pgx.CollectRows(found, func(row pgx.CollectableRow) (Snapshot, error) { return scanSnapshot(row) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return all, nil
}

// NextSnapshot returns the snapshot to go on with: the oldest that runs, one without an error if there
// is any. It is nil if none runs.
func NextSnapshot(ctx context.Context, conn *pgx.Conn) (*Snapshot, error) {
	s, err := scanSnapshot(conn.QueryRow(ctx, snapshotQuery+`where s.state = 'running' order by s.error is not null, s.snapshot_id limit 1`))
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read amqp.snapshot: %w", err)
	}
	return &s, nil
}

// AskForSnapshot asks for snapshots of tables, and returns their ids.
func AskForSnapshot(ctx context.Context, conn *pgx.Conn, tables string) ([]int32, error) {
	found, err := conn.Query(ctx, `select amqp.snapshot($1)`, tables)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowTo[int32])
}

// ControlSnapshot pauses, resumes or cancels a snapshot, by the name of the function that does, and
// tells whether its state allowed that.
func ControlSnapshot(ctx context.Context, conn *pgx.Conn, action string, id int32) (done bool, err error) {
	query := `select amqp.` + pgx.Identifier{"snapshot_" + action}.Sanitize() + `($1)`
	return done, conn.QueryRow(ctx, query, id).Scan(&done)
}

// BeginSnapshots is called before a daemon streams. Snapshots with rows to be read once more, which an earlier daemon
// took with it, begin again. It returns the snapshots that are not over.
func BeginSnapshots(ctx context.Context, conn *pgx.Conn) ([]Snapshot, error) {
	found, err := conn.Query(ctx, snapshotColumns+` from amqp._snapshots_begin() s`)
	if err != nil {
		return nil, fmt.Errorf("begin with amqp.snapshot: %w", err)
	}
	return collectSnapshots(found, "begin with amqp.snapshot")
}

// MarkMoved notes that this process knows a row of a snapshot's table that must be read once more, and returns
// the number of the note; 0 if the snapshot was canceled.
func MarkMoved(ctx context.Context, conn *pgx.Conn, id int32) (mark int64, err error) {
	if err := conn.QueryRow(ctx, `select coalesce(amqp._snapshot_moved($1), 0)`, id).Scan(&mark); err != nil {
		return 0, fmt.Errorf("note what snapshot %d must read again: %w", id, err)
	}
	return mark, nil
}

// PlaceChunk gives the next chunk of a snapshot its place in the stream, and notes that it has
// one. keys are of rows that were read once more; with them the note of number mark ends. false means that the
// snapshot has been stopped or set back meanwhile.
func PlaceChunk(ctx context.Context, conn *pgx.Conn, s *Snapshot, c *ChunkRows, token string, keys [][]string, mark int64) (placed bool, err error) {
	err = conn.QueryRow(ctx, `select amqp._snapshot_chunk($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		s.ID, s.Chunk, s.After, c.After, len(c.Rows), c.End, token, keys, mark).Scan(&placed)
	if err != nil {
		return false, fmt.Errorf("place a chunk of snapshot %d: %w", s.ID, err)
	}
	return placed, nil
}

// SetSnapshotBack makes a snapshot go on with a chunk that it has passed, if it is not canceled.
func SetSnapshotBack(ctx context.Context, conn *pgx.Conn, id int32, chunk int64, after []string, rows int64) error {
	if _, err := conn.Exec(ctx, `select amqp._snapshot_back($1, $2, $3, $4)`, id, chunk, after, rows); err != nil {
		return fmt.Errorf("set snapshot %d back: %w", id, err)
	}
	return nil
}

// RestartSnapshot makes a snapshot begin again, if it is not canceled.
func RestartSnapshot(ctx context.Context, conn *pgx.Conn, id int32) error {
	const all = 1 << 62 // rows: none of them counts any more
	return SetSnapshotBack(ctx, conn, id, 0, nil, all)
}

// SnapshotDone ends a snapshot with all its chunks, and tells whether it did: it may have been stopped or set back
// meanwhile, or have to read a row once more.
func SnapshotDone(ctx context.Context, conn *pgx.Conn, id int32, chunks int64) (done bool, err error) {
	if _, err = conn.Exec(ctx, `select amqp._snapshot_done($1, $2)`, id, chunks); err == nil {
		err = conn.QueryRow(ctx, `select exists (select from amqp.snapshot s where s.snapshot_id = $1 and s.state = 'done')`, id).Scan(&done)
	}
	if err != nil {
		return false, fmt.Errorf("end snapshot %d: %w", id, err)
	}
	return done, nil
}

// SnapshotFails notes why a snapshot does not go on; final ends it.
func SnapshotFails(ctx context.Context, conn *pgx.Conn, id int32, why string, final bool) error {
	if _, err := conn.Exec(ctx, `select amqp._snapshot_fails($1, $2, $3)`, id, why, final); err != nil {
		return fmt.Errorf("note why snapshot %d does not go on: %w", id, err)
	}
	return nil
}

// Writers returns the transactions that hold a lock of those who change rows of a table, or of its
// partitions. A transaction keeps it until others see what it has done.
func Writers(ctx context.Context, conn *pgx.Conn, oid uint32) ([]string, error) {
	found, err := conn.Query(ctx, `
		select distinct l.virtualtransaction from pg_catalog.pg_locks l
		 where l.locktype = 'relation' and l.granted
		   and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
		   and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
		   and (l.relation = $1 or l.relation in (select p.relid from pg_catalog.pg_partition_tree($1) p(relid)))`, oid)
	if err != nil {
		return nil, fmt.Errorf("read pg_locks: %w", err)
	}
	return pgx.CollectRows(found, pgx.RowTo[string])
}

// CurrentSnapshot returns what the server shows now, as the text of a pg_snapshot.
func CurrentSnapshot(ctx context.Context, conn *pgx.Conn) (text string, err error) {
	if err := conn.QueryRow(ctx, `select pg_catalog.pg_current_snapshot()::text`).Scan(&text); err != nil {
		return "", fmt.Errorf("read which transactions are visible: %w", err)
	}
	return text, nil
}
