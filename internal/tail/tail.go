// Package tail watches what passes through the WAL, beside the daemon: it reads a temporary slot of its own, confirms
// nothing that anybody else depends on, and leaves nothing behind.
package tail

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/replication"
)

// statusEvery is how often the server hears that we are there, more often than wal_sender_timeout asks for.
const statusEvery = 10 * time.Second

// Options say what to watch.
type Options struct {
	// Postgres is where; it is not changed.
	Postgres    *pgconn.Config
	Publication string
	// Settings are those of the session, which values of rows are written with.
	Settings map[string]string
	// Watching is called once all from now on will be seen; from is the position.
	Watching func(from pglogrepl.LSN) error
	// Message is called for each message that was committed, or is outside of any transaction, and for each change
	// of a row, in the order of commits. It belongs to the callee. Its error ends Run.
	Message func(m *decoder.Message) error
}

// Run watches until ctx ends, which is no error, or something else does. To begin it waits for the transactions that
// are writing, as every new slot does.
func Run(ctx context.Context, o Options) error {
	config := o.Postgres.Copy()
	maps.Copy(config.RuntimeParams, o.Settings)
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect for replication: %w", err)
	}
	defer func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(limited) // the slot goes with the connection
	}()
	err = watch(ctx, conn, &o)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func watch(ctx context.Context, conn *pgconn.PgConn, o *Options) error {
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return fmt.Errorf("identify the server: %w", err)
	}
	name := fmt.Sprintf("pgamqp_tail_%d", conn.PID())
	slot, err := pglogrepl.CreateReplicationSlot(ctx, conn, name, "pgoutput",
		pglogrepl.CreateReplicationSlotOptions{Temporary: true, Mode: pglogrepl.LogicalReplication, SnapshotAction: "NOEXPORT_SNAPSHOT"})
	if err != nil {
		return fmt.Errorf("create temporary slot %s: %w", name, err)
	}
	from, err := pglogrepl.ParseLSN(slot.ConsistentPoint)
	if err != nil {
		return fmt.Errorf("create temporary slot %s: %w", name, err)
	}
	err = pglogrepl.StartReplication(ctx, conn, name, from, pglogrepl.StartReplicationOptions{PluginArgs: replication.PluginArgs(o.Publication)})
	if err != nil {
		return fmt.Errorf("start replication from temporary slot %s: %w", name, err)
	}
	if err := o.Watching(from); err != nil {
		return err
	}
	r := reader{conn: conn, decoder: decoder.New(decoder.Source{SystemID: system.SystemID, Timeline: system.Timeline}), seen: from, message: o.Message}
	return r.run(ctx)
}

// reader follows the stream.
type reader struct {
	conn    *pgconn.PgConn
	decoder *decoder.Decoder
	seen    pglogrepl.LSN // all before it was seen, and the server may forget it
	message func(m *decoder.Message) error
}

func (r *reader) run(ctx context.Context) error {
	for due := time.Now().Add(statusEvery); ; {
		limited, cancel := context.WithDeadline(ctx, due)
		raw, err := r.conn.ReceiveMessage(limited)
		cancel()
		if err != nil && (!pgconn.Timeout(err) || ctx.Err() != nil) {
			return fmt.Errorf("read the stream: %w", err)
		}
		asked := false
		if err == nil {
			if asked, err = r.take(raw); err != nil {
				return err
			}
		}
		if asked || !time.Now().Before(due) {
			due = time.Now().Add(statusEvery)
			err := pglogrepl.SendStandbyStatusUpdate(ctx, r.conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: r.seen})
			if err != nil {
				return fmt.Errorf("report position: %w", err)
			}
		}
	}
}

// take handles what the server has sent; asked tells whether it wants an answer.
func (r *reader) take(raw pgproto3.BackendMessage) (asked bool, err error) {
	switch m := raw.(type) {
	case *pgproto3.CopyData:
		data, err := decoder.SplitCopyData(m.Data)
		if err != nil {
			return false, err
		}
		if data.Frame == nil {
			r.seen = max(r.seen, data.Keepalive.End)
			return data.Keepalive.ReplyRequested, nil
		}
		return false, r.frame(data.Frame, data.Start)
	case *pgproto3.ErrorResponse:
		return false, fmt.Errorf("read the stream: %w", pgconn.ErrorResponseToPgError(m))
	case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		return false, nil
	}
	return false, errors.New("read the stream: the server has ended it")
}

func (r *reader) frame(frame []byte, start pglogrepl.LSN) error {
	event, err := r.decoder.Decode(frame, start)
	if err != nil {
		return err
	}
	switch e := event.(type) {
	case *decoder.Commit:
		r.seen = max(r.seen, e.End)
	case *decoder.Message:
		m := *e
		*e = decoder.Message{} // or the decoder would keep the content
		return r.message(&m)
	case *decoder.Truncate:
		for i := range e.Messages {
			if err := r.message(&e.Messages[i]); err != nil {
				return err
			}
		}
	}
	return nil
}
