package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/metrics"
)

// Config is what a Taker needs.
type Config struct {
	// Ask runs a function with a connection whose settings make texts of values as the stream does.
	Ask         func(context.Context, func(context.Context, *pgx.Conn) error) error
	Publication string
	Tracker     *Tracker
	Metrics     *metrics.Snapshot
}

// Taker takes the snapshots that amqp.snapshot asks for, one after the other. It works while a main
// stream does.
type Taker struct {
	cfg   Config
	log   *slog.Logger
	token string           // begins the tokens of this process
	wake  chan struct{}    // capacity 1: there may be something to do
	wait  *backoff.Backoff // before it tries again; Run's
	// asked is the transaction that has changed amqp.snapshot last, as far as the stream has come; 0 once
	// it is known to be visible. The stream is often faster.
	asked atomic.Uint32
}

// New makes a Taker; Run does the work.
func New(cfg Config, log *slog.Logger) *Taker {
	return &Taker{cfg: cfg, log: log, token: rand.Text(), wake: make(chan struct{}, 1), wait: backoff.New(100*time.Millisecond, 10*time.Second)}
}

// Asked makes it look at what a transaction has changed in amqp.snapshot, once others can see that.
func (t *Taker) Asked(xid uint32) {
	t.asked.Store(xid)
	t.Wake()
}

// Wake makes it look at amqp.snapshot again.
func (t *Taker) Wake() {
	select {
	case t.wake <- struct{}{}:
	default: // it will
	}
}

// limits of a chunk, which is in memory three times: as it was read, as messages, and in the windows.
func limits() catalog.ChunkLimits { return catalog.ChunkLimits{MaxRows: 2000, MaxBytes: 1 << 20} }

// Run takes snapshots until ctx ends.
func (t *Taker) Run(ctx context.Context) {
	var failures backoff.Repeats
	for ctx.Err() == nil {
		s, err := t.next(ctx)
		if err == nil && s == nil {
			select {
			case <-t.wake:
			case <-ctx.Done():
			}
			continue
		}
		if err == nil {
			err = t.take(ctx, s)
		}
		if err == nil {
			t.wait.Reset()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if s != nil {
			t.fails(ctx, s, err)
		}
		if failures.Worth(err.Error(), time.Now()) {
			t.log.Warn("a snapshot does not go on, trying again", slog.Any("error", err))
		}
		t.pause(ctx, err)
	}
}

// pause waits after a failure, until something may be new.
func (t *Taker) pause(ctx context.Context, why error) {
	wake := t.wake
	if errors.Is(why, errInVain) {
		wake = nil // who set the snapshot back has said so, too, and what it comes of may last
	}
	select {
	case <-time.After(t.wait.Next()):
	case <-wake:
	case <-ctx.Done():
	}
}

func (t *Taker) next(ctx context.Context) (s *catalog.Snapshot, err error) {
	err = t.cfg.Ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		xid := t.asked.Load()
		if err := catalog.AwaitVisible(ctx, conn, xid); err != nil {
			return err
		}
		t.asked.CompareAndSwap(xid, 0)
		s, err = catalog.NextSnapshot(ctx, conn)
		return err
	})
	return s, err
}

// outlook tells what to say of an error, and whether trying again is no use.
func outlook(snapshot int32, why error) (_ error, final bool) {
	if refused, ok := errors.AsType[*pgconn.PgError](why); ok && refused.Code == "42501" {
		return fmt.Errorf("%w: grant select on the table to the daemon's role, and BYPASSRLS if the table has row-level security, then amqp.snapshot_resume(%d)",
			why, snapshot), true
	}
	return why, errors.Is(why, errUnrouted) || errors.Is(why, catalog.ErrNoSnapshot)
}

// fails notes why a snapshot does not go on, and ends it if trying again is no use.
func (t *Taker) fails(ctx context.Context, s *catalog.Snapshot, why error) {
	why, final := outlook(s.ID, why)
	if final {
		t.cfg.Metrics.Failed.Inc()
	} else {
		t.cfg.Metrics.Retried.Inc()
	}
	err := t.cfg.Ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return catalog.SnapshotFails(ctx, conn, s.ID, why.Error(), final)
	})
	if err != nil && ctx.Err() == nil {
		t.log.Warn("cannot note why a snapshot does not go on", slog.Any("error", err))
	}
}

var (
	// errUnrouted: all routes of the table have ended meanwhile.
	errUnrouted = errors.New("no route takes rows of the table any more: the snapshot ends here")
	// errInVain: a chunk could not be used at its place.
	errInVain = errors.New("a part was read in vain")
	// errDetached: the broker gets its messages from a slot of its own, which knows nothing of the
	// rows that this process has read.
	errDetached = errors.New("a broker that its rows go to is detached; it goes on when that is back")
)

// take goes on with a snapshot until it is over, or was stopped or set back.
func (t *Taker) take(ctx context.Context, s *catalog.Snapshot) error {
	table, err := t.table(ctx, s)
	if err != nil {
		return err
	}
	if s.OID != 0 && s.OID != table.OID {
		return table.Exchanged()
	}
	t.cfg.Tracker.watch(s.Schema, s.Table)
	defer t.cfg.Tracker.watch("", "")
	t.cfg.Metrics.Running.Set(1)
	defer t.cfg.Metrics.Running.Set(0)
	t.log.Info("a snapshot goes on", slog.Int("snapshot", int(s.ID)), slog.String("table", s.Schema+"."+s.Table), slog.Int64("chunk", s.Chunk))
	if err := t.awaitWriters(ctx, table.OID); err != nil {
		return err
	}
	rel := relationOf(table)
	again, end := false, false // whether the last chunk was of rows that are read once more, and whether the table's end was read
	for {
		chunk := t.cfg.Tracker.begin(t.token, rel, s, end || !again)
		if again = len(chunk.again) > 0; end && !again {
			t.cfg.Tracker.drop(chunk)
			return t.done(ctx, s)
		}
		rows, placed, err := t.read(ctx, s, table, chunk)
		if err != nil || !placed {
			t.cfg.Tracker.drop(chunk)
			return err
		}
		var outcome Outcome
		select {
		case outcome = <-chunk.settled:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		s.Chunk++
		if rows.After != nil {
			s.After = rows.After
		}
		end = end || rows.End
		switch outcome {
		case Again:
			return fmt.Errorf("%w: %w", errInVain, chunk.err)
		case Detached:
			return errDetached
		case Unrouted:
			return errUnrouted
		case Sent:
			t.wait.Reset()
		}
	}
}

// done ends a snapshot whose rows were all sent.
func (t *Taker) done(ctx context.Context, s *catalog.Snapshot) error {
	return t.cfg.Ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		done, err := catalog.SnapshotDone(ctx, conn, s.ID, s.Chunk)
		if done {
			t.cfg.Tracker.end(s.ID)
			t.log.Info("a snapshot is done", slog.Int("snapshot", int(s.ID)), slog.Int64("chunks", s.Chunk))
		}
		return err
	})
}

func (t *Taker) table(ctx context.Context, s *catalog.Snapshot) (table *catalog.Table, err error) {
	err = t.cfg.Ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		table, err = catalog.ReadTable(ctx, conn, t.cfg.Publication, s.Schema, s.Table)
		return err
	})
	return table, err
}

// relationOf is the table as the stream would describe it, but for its OID.
func relationOf(table *catalog.Table) *decoder.Relation {
	rel := &decoder.Relation{Schema: table.Schema, Name: table.Name}
	for _, c := range table.Columns {
		rel.Columns = append(rel.Columns, decoder.Column{Name: c.Name, Key: c.Key, Type: c.Type, Modifier: c.Modifier})
	}
	return rel
}

// awaitWriters waits for the transactions that write to the table now: the stream may have delivered
// them already although nobody sees what they did. From then on the Tracker knows better, as it
// has followed the stream meanwhile.
func (t *Taker) awaitWriters(ctx context.Context, oid uint32) error {
	wait := backoff.New(5*time.Millisecond, time.Second)
	var first []string
	for look := 0; ; look++ {
		var writers []string
		err := t.cfg.Ask(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			if writers, err = catalog.Writers(ctx, conn, oid); err != nil {
				return err
			}
			// It can take long, and the stream goes on.
			text, err := catalog.CurrentSnapshot(ctx, conn)
			if err != nil {
				return err
			}
			v, err := ParseVisibility(text)
			if err == nil {
				t.cfg.Tracker.seen(v)
			}
			return err
		})
		if err != nil {
			return err
		}
		if look == 0 {
			first = writers
		}
		if !slices.ContainsFunc(first, func(one string) bool { return slices.Contains(writers, one) }) {
			return nil
		}
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}

// read fills a chunk and gives it its place. false means that the snapshot was stopped or set back.
func (t *Taker) read(ctx context.Context, s *catalog.Snapshot, table *catalog.Table, chunk *Chunk) (rows *catalog.ChunkRows, placed bool, err error) {
	shown := func(text string) (bool, error) {
		v, err := ParseVisibility(text)
		return err == nil && t.cfg.Tracker.shown(chunk, v), err
	}
	err = t.cfg.Ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		wait := backoff.New(time.Millisecond, 100*time.Millisecond)
		used := 0
		for {
			var err error
			chunk.At = time.Now()
			if len(chunk.again) > 0 {
				rows, used, err = table.ReadRows(ctx, conn.PgConn(), chunk.again, limits(), shown)
			} else {
				rows, err = table.ReadChunk(ctx, conn.PgConn(), s.After, limits(), shown)
			}
			if err != nil {
				return err
			}
			if rows != nil {
				break
			}
			if err := wait.Wait(ctx); err != nil {
				return err
			}
		}
		if err := t.cfg.Tracker.fill(chunk, tuples(rows), used, rows.End); err != nil {
			return err
		}
		placed, err = catalog.PlaceChunk(ctx, conn, s, rows, chunk.token, chunk.again, chunk.mark)
		return err
	})
	return rows, placed, err
}

// tuples are rows as frames have them.
func tuples(rows *catalog.ChunkRows) []decoder.Tuple {
	out := make([]decoder.Tuple, 0, len(rows.Rows))
	for _, row := range rows.Rows {
		t := decoder.Tuple{}
		for _, text := range row {
			if text == nil {
				t = t.AppendValue(decoder.Value{State: decoder.Null})
			} else {
				t = t.AppendValue(decoder.Value{State: decoder.Text, Text: text})
			}
		}
		out = append(out, t)
	}
	return out
}
