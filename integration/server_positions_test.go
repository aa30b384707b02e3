package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/internal/testserver"
)

// TestP01ServerSendsAgainWhatBeginsAtOrBehindTheConfirmedPosition is about PostgreSQL alone. It is
// why the daemon reports exact ends and nothing else: one byte more loses the unit that
// follows without a gap, or the transaction that a message belongs to.
func TestP01ServerSendsAgainWhatBeginsAtOrBehindTheConfirmedPosition(t *testing.T) {
	t.Parallel()
	for _, version := range testserver.Versions {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			b := newBoundaries(t, version)
			n1, n2, tx, n3 := b.unit("N1"), b.unit("N2"), b.unit("T"), b.unit("N3")
			first, last := tx.messages[0].lsn, tx.messages[1].lsn
			for _, c := range []struct {
				name string
				at   pglogrepl.LSN
				want string // units that the server sends again
			}{
				{"a byte before the end of N1", n1.end - 1, "N2 T N3 N4"},
				{"end of N1: exact", n1.end, "N2 T N3 N4"},
				{"a byte behind the end of N1: loses N2", n1.end + 1, "T N3 N4"},
				{"a byte before the end of N2", n2.end - 1, "T N3 N4"},
				{"end of N2: exact", n2.end, "T N3 N4"},
				{"a byte behind the end of N2", n2.end + 1, "T N3 N4"}, // what decides is the commit record, further behind

				{"a byte before the first message of T", first - 1, "T N3 N4"},
				{"first message of T", first, "T N3 N4"},
				{"a byte behind the first message of T", first + 1, "T N3 N4"},
				{"a byte before the last message of T", last - 1, "T N3 N4"},
				{"last message of T", last, "T N3 N4"},
				{"a byte behind the last message of T: loses T", last + 1, "N3 N4"},

				{"a byte before the commit of T", tx.commit - 1, "T N3 N4"},
				{"commit of T: repeats T", tx.commit, "T N3 N4"},
				{"a byte behind the commit of T", tx.commit + 1, "N3 N4"},
				{"a byte before the end of T", tx.end - 1, "N3 N4"},
				{"end of T: exact", tx.end, "N3 N4"},
				{"a byte behind the end of T: loses N3", tx.end + 1, "N4"},

				{"a byte before the end of N3", n3.end - 1, "N4"},
				{"end of N3: exact", n3.end, "N4"},
				{"a byte behind the end of N3: loses N4", n3.end + 1, ""},
			} {
				for way, sent := range map[string]string{
					"started at":   b.startedAt(c.at),
					"confirmed up": b.confirmedUpTo(c.at),
				} {
					if sent != c.want {
						t.Errorf("%s %s (%s): the server sends %q, want %q", way, c.at, c.name, sent, c.want)
					}
				}
			}
		})
	}
}

// boundaries is a server with these units in its WAL, without a gap between them:
//
//	N1  N2  T(two messages)  N3  N4
//
// N is a message outside of a transaction, T a transaction. Far behind them is a message at
// which reading ends.
type boundaries struct {
	t        *testing.T
	postgres *testserver.Postgres
	conn     *pgx.Conn
	names    string          // of this attempt, in front of each content
	units    map[string]unit // by name
	end      string          // the content of the last message
}

const boundarySlot = "boundaries"

func newBoundaries(t *testing.T, version int) *boundaries {
	t.Helper()
	b := &boundaries{t: t, postgres: ownPostgres(t, testserver.PostgresOptions{Version: version})}
	conn, err := pgx.Connect(withDeadline(t, sqlLimit), b.postgres.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(withDeadline(t, 5*time.Second)) })
	b.conn = conn
	run(t, conn, `create publication pgamqp`)
	run(t, conn, `select pg_create_logical_replication_slot($1, 'pgoutput')`, boundarySlot)
	// A page that begins in the middle, or a record of the server's own, makes a gap.
	for attempt := 0; !b.write(attempt); attempt++ {
		if attempt == 20 {
			t.Fatal("there is always a gap between the units")
		}
	}
	run(t, conn, `select pg_logical_emit_message(false, 'test', repeat('x', 1000))`)
	b.end = "end"
	run(t, conn, `select pg_logical_emit_message(true, 'test', $1)`, b.end)
	return b
}

// write writes the units and tells whether there is no gap between them.
func (b *boundaries) write(attempt int) bool {
	b.t.Helper()
	b.names = fmt.Sprintf("%02d ", attempt) // all of one length: so are the records
	b.end = fmt.Sprintf("end %d", attempt)
	emit := func(transactional bool, name string) string {
		return fmt.Sprintf("select pg_logical_emit_message(%t, 'test', '%s%s');", transactional, b.names, name)
	}
	batch := emit(false, "N1") + emit(false, "N2") + "begin;" + emit(true, "T ") + emit(true, "T ") + "commit;" +
		emit(false, "N3") + emit(false, "N4") +
		fmt.Sprintf("select pg_logical_emit_message(true, 'test', '%s')", b.end)
	returned, err := b.conn.PgConn().Exec(withDeadline(b.t, sqlLimit), batch).ReadAll()
	if err != nil {
		b.t.Fatal(err)
	}
	b.units = make(map[string]unit)
	for _, u := range b.read(boundarySlot, 0) {
		if name, ok := strings.CutPrefix(u.content(), b.names); ok {
			b.units[strings.TrimSpace(name)] = u
		}
	}
	n1, n2, tx, n3, n4 := b.unit("N1"), b.unit("N2"), b.unit("T"), b.unit("N3"), b.unit("N4")
	if said := string(returned[0].Rows[0][0]); said != n1.end.String() {
		b.t.Errorf("the function returned %s for a message with LSN %s", said, n1.end)
	}
	size := n2.end - n1.end
	return n3.end-tx.end == size && n4.end-n3.end == size && tx.messages[1].lsn == tx.commit
}

func (b *boundaries) unit(name string) unit {
	b.t.Helper()
	u, ok := b.units[name]
	if !ok {
		b.t.Fatalf("no unit %s in %v", name, b.units)
	}
	return u
}

// startedAt returns the units that come from a slot that is confirmed up to a place before
// them all, when streaming starts at the given position.
func (b *boundaries) startedAt(at pglogrepl.LSN) string {
	b.t.Helper()
	slot, drop := b.copySlot()
	defer drop()
	return b.list(b.read(slot, at))
}

// confirmedUpTo returns the units that come when streaming starts where the slot is, behind
// another stream that has reported the given position.
func (b *boundaries) confirmedUpTo(at pglogrepl.LSN) string {
	b.t.Helper()
	slot, drop := b.copySlot()
	defer drop()
	ctx := withDeadline(b.t, sqlLimit)
	conn := b.stream(ctx, slot, 0)
	err := pglogrepl.SendStandbyStatusUpdate(ctx, conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: at, WALFlushPosition: at, WALApplyPosition: at})
	if err != nil {
		b.t.Fatal(err)
	}
	b.awaitSlot(slot, `confirmed_flush_lsn = '`+at.String()+`'`)
	if err := conn.Close(ctx); err != nil {
		b.t.Fatal(err)
	}
	b.awaitSlot(slot, `not active`)
	return b.list(b.read(slot, 0))
}

func (b *boundaries) awaitSlot(slot, condition string) {
	b.t.Helper()
	ctx := withDeadline(b.t, sqlLimit)
	await(b.t, startLimit, "the slot is "+condition, func() bool {
		var ok bool
		if err := b.conn.QueryRow(ctx, `select `+condition+` from pg_replication_slots where slot_name = $1`, slot).Scan(&ok); err != nil {
			b.t.Fatal(err)
		}
		return ok
	})
}

// copySlot makes a slot that knows all units.
func (b *boundaries) copySlot() (slot string, drop func()) {
	b.t.Helper()
	const name = "a_copy"
	run(b.t, b.conn, `select pg_copy_logical_replication_slot($1, $2)`, boundarySlot, name)
	return name, func() {
		b.awaitSlot(name, `not active`)
		run(b.t, b.conn, `select pg_drop_replication_slot($1)`, name)
	}
}

// stream starts to stream from a slot.
func (b *boundaries) stream(ctx context.Context, slot string, at pglogrepl.LSN) *pgconn.PgConn {
	b.t.Helper()
	conn, err := pgconn.Connect(ctx, b.postgres.URL("postgres")+"&replication=database")
	if err == nil {
		err = pglogrepl.StartReplication(ctx, conn, slot, at, pglogrepl.StartReplicationOptions{
			PluginArgs: []string{"proto_version '1'", "publication_names 'pgamqp'", "messages 'true'"},
		})
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return conn
}

// read returns what comes from a slot, up to the last message.
func (b *boundaries) read(slot string, at pglogrepl.LSN) []unit {
	b.t.Helper()
	ctx := withDeadline(b.t, sqlLimit)
	conn := b.stream(ctx, slot, at)
	defer func() { _ = conn.Close(ctx) }()
	var frames []frame
	for {
		m, err := conn.ReceiveMessage(ctx)
		if err != nil {
			b.t.Fatalf("read from slot %s at %s: %v", slot, at, err)
		}
		data, ok := m.(*pgproto3.CopyData)
		if !ok {
			b.t.Fatalf("read from slot %s at %s: %#v", slot, at, m)
		}
		if data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		x, err := pglogrepl.ParseXLogData(data.Data[1:])
		if err != nil {
			b.t.Fatal(err)
		}
		frames = append(frames, frame{lsn: x.WALStart, data: slices.Clone(x.WALData)})
		if x.WALData[0] == 'C' { // the last message is a transaction
			if all := readUnits(b.t, frames); all[len(all)-1].content() == b.end {
				return all
			}
		}
	}
}

// list returns the names of units.
func (b *boundaries) list(all []unit) string {
	var names []string
	for _, u := range all {
		if name, ok := strings.CutPrefix(u.content(), b.names); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return strings.Join(names, " ")
}
