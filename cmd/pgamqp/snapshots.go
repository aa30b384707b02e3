package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/rows"
	"github.com/pgamqp/pgamqp/internal/snapshot"
	"github.com/pgamqp/pgamqp/metrics"
)

// newTaker makes what takes snapshots for the main stream.
func (d *daemon) newTaker() {
	d.tracker = &snapshot.Tracker{}
	d.snapshots = metrics.NewSnapshot(d.registry)
	d.taker = snapshot.New(snapshot.Config{
		Ask: d.askForRows, Publication: d.cfg.Publication, Tracker: d.tracker, Metrics: d.snapshots,
	}, d.log)
}

// askForRows is ask with a connection on which values look as they do in the stream.
func (d *daemon) askForRows(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	config := d.postgres.config()
	maps.Copy(config.RuntimeParams, rows.Settings())
	return d.askWith(ctx, config, f)
}

// takeSnapshots takes them until the returned function is called, which waits for the end.
func (d *daemon) takeSnapshots() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // taker
		defer close(ended)
		d.taker.Run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// chunk returns the rows whose place in the stream m is. If they are not here, or cannot be
// delivered from here, the snapshot is set back to this place before anything behind it can be
// confirmed.
func (r *routing) chunk(ctx context.Context, m *decoder.Message, body []byte) ([]decoder.Message, error) {
	place, err := snapshot.ParsePlace(body)
	if err != nil { // as only the daemon writes them, one of another version
		r.d.log.Error("a part of a snapshot is lost", slog.String("lsn", m.LSN.String()), slog.Any("error", err))
		return nil, nil
	}
	brokers := r.router.Brokers(&decoder.Relation{Schema: place.Schema, Name: place.Table})
	if r.own != 0 {
		if !slices.Contains(brokers, r.own) {
			return nil, nil
		}
		return nil, r.setBack(ctx, place, "its broker has a stream of its own")
	}
	chunk, err := r.d.tracker.Take(place.Token)
	switch {
	case chunk == nil:
		return nil, r.setBack(ctx, place, "this process has not read it")
	case err != nil:
		err = r.setBack(ctx, place, err.Error())
		chunk.Settle(snapshot.Again)
		return nil, err
	case slices.ContainsFunc(brokers, r.d.isDetached):
		err = r.setBack(ctx, place, "its broker is detached")
		chunk.Settle(snapshot.Detached)
		return nil, err
	case len(brokers) == 0:
		chunk.Settle(snapshot.Unrouted)
		return nil, nil
	}
	out, err := r.publishChunk(ctx, m, chunk)
	if err == nil {
		chunk.Settle(snapshot.Sent)
	}
	return out, err
}

// publishChunk makes the messages of a chunk's rows.
func (r *routing) publishChunk(ctx context.Context, m *decoder.Message, chunk *snapshot.Chunk) (out []decoder.Message, err error) {
	found := chunk.Rows()
	for i, row := range found {
		change := decoder.Change{Op: decoder.OpRead, Relation: chunk.Relation, New: row, Ordinal: i + 1}
		read := decoder.Message{ID: m.ID + "-r" + strconv.Itoa(i+1), LSN: m.LSN, CommitTime: chunk.At, Change: &change}
		messages, err := r.messages(ctx, &read)
		if err != nil {
			return nil, err
		}
		out = append(out, messages...)
	}
	r.d.snapshots.Rows.Add(float64(len(found)))
	return out, nil
}

// setBack makes the snapshot read again what belongs to a place.
func (r *routing) setBack(ctx context.Context, p snapshot.Place, why string) error {
	r.d.snapshots.Repeated.Inc()
	r.d.tracker.SetBack(p)
	if len(p.Moved) > 0 {
		if err := r.markMoved(ctx, p.Snapshot, p.Moved...); err != nil {
			return err
		}
	}
	r.d.log.Info("a part of a snapshot is read again", slog.Int("snapshot", int(p.Snapshot)), slog.Int64("chunk", p.Chunk), slog.String("because", why))
	err := r.untilDone(ctx, "a snapshot that has to be set back", func() error {
		return r.d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			return catalog.SetSnapshotBack(ctx, conn, p.Snapshot, p.Chunk, p.After, p.Rows)
		})
	})
	r.d.taker.Wake()
	return err
}

// followSnapshots begins with the snapshots that are not over, before anything streams.
func (d *daemon) followSnapshots(ctx context.Context) error {
	return d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		all, err := catalog.BeginSnapshots(ctx, conn)
		if err != nil {
			return err
		}
		places := make(map[int32]snapshot.Place, len(all))
		for _, s := range all {
			places[s.ID] = snapshot.Place{Snapshot: s.ID, Chunk: s.Chunk, Schema: s.Schema, Table: s.Table}
		}
		d.tracker.Follow(places)
		return nil
	})
}

// noteMove notes a row that must be read once more, before its change can be confirmed.
func (r *routing) noteMove(ctx context.Context, move snapshot.Move) error {
	if !move.Restart {
		return r.markMoved(ctx, move.Snapshot, move.Key)
	}
	r.d.snapshots.Repeated.Inc()
	r.d.log.Info("a snapshot begins again", slog.Int("snapshot", int(move.Snapshot)), slog.String("because", "too many keys were changed"))
	err := r.untilDone(ctx, "a snapshot that has to begin again", func() error {
		return r.d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			return catalog.RestartSnapshot(ctx, conn, move.Snapshot)
		})
	})
	if err == nil {
		r.d.tracker.Restarted(move.Snapshot)
		r.d.taker.Wake()
	}
	return err
}

// markMoved notes that this process knows keys of rows that must be read once more.
func (r *routing) markMoved(ctx context.Context, id int32, keys ...[]string) error {
	return r.untilDone(ctx, "rows that a snapshot must read again", func() error {
		return r.d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			mark, err := catalog.MarkMoved(ctx, conn, id)
			if err == nil {
				r.d.tracker.Noted(id, mark, keys...)
			}
			return err
		})
	})
}

// isDetached tells whether a broker gets its messages from a slot of its own.
func (d *daemon) isDetached(broker int32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.own[broker] != nil
}
