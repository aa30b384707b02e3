package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgamqp/pgamqp/decoder"
	"github.com/pgamqp/pgamqp/internal/backoff"
	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/internal/rows"
	"github.com/pgamqp/pgamqp/publisher"
)

// routing turns the row changes of one stream into messages, by what the database says of
// routes and types. It implements publisher.Rows.
type routing struct {
	d      *daemon
	router *rows.Router
	// own is the broker whose own stream it is; 0 for the main stream.
	own int32
	// waits is what the stream waits for in the database, nil if for nothing.
	waits atomic.Pointer[databaseWait]
}

// databaseWait is what has been tried in vain, and since when.
type databaseWait struct {
	since time.Time
	why   error
}

var _ publisher.Rows = (*routing)(nil)

func (d *daemon) newRouting(own int32) *routing {
	origin := rows.Origin{Version: currentBuild().Version, Name: d.cfg.Slot, Database: d.pool.Config().ConnConfig.Database}
	return &routing{d: d, router: rows.NewRouter(rows.NewTypes(d.describeType), origin, time.Now), own: own}
}

// Messages implements publisher.Rows.
func (r *routing) Messages(ctx context.Context, m *decoder.Message) ([]decoder.Message, error) {
	if m.Change == nil {
		return r.messages(ctx, m)
	}
	if r.own == 0 {
		r.d.tracker.Changed(m)
	}
	for _, move := range r.d.tracker.Moved(m) {
		if err := r.noteMove(ctx, move); err != nil {
			return nil, err
		}
	}
	return r.messages(ctx, m)
}

// messages asks the router until it has an answer, which it almost always has at once.
func (r *routing) messages(ctx context.Context, m *decoder.Message) ([]decoder.Message, error) {
	if out, err := r.router.Messages(ctx, m); err == nil {
		return out, nil
	}
	var out []decoder.Message
	err := r.untilDone(ctx, "the types of their columns", func() (err error) {
		out, err = r.router.Messages(ctx, m)
		return err
	})
	return out, err
}

// Told implements publisher.Rows.
func (r *routing) Told(ctx context.Context, m *decoder.Message, e *decoder.Envelope) ([]decoder.Message, error) {
	switch e.Kind {
	case decoder.KindRoutesChanged:
		return nil, r.routesChanged(ctx, m)
	case decoder.KindSnapshotChunk:
		return r.chunk(ctx, m, e.Body)
	default:
		r.d.taker.Asked(m.XID)
		return nil, nil
	}
}

// routesChanged takes the routes that hold from here on. The version is noted before anything
// behind it can be confirmed.
func (r *routing) routesChanged(ctx context.Context, m *decoder.Message) error {
	return r.untilDone(ctx, "a change of amqp.route", func() error {
		versions, err := r.d.routeVersions(ctx, m.XID)
		if err != nil {
			return err
		}
		for _, v := range versions {
			if v.Announced != m.LSN {
				continue
			}
			if err := r.router.Use(v); err != nil {
				return err
			}
			return r.d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
				return catalog.RouteVersionCommitted(ctx, conn, v.Announced, m.Commit)
			})
		}
		// Every slot had passed it when it was removed, so a later one holds already.
		r.d.log.Warn("a change of amqp.route is not known any more", slog.String("lsn", m.LSN.String()))
		return nil
	})
}

// untilDone tries until it succeeds or ctx ends, whose cause it returns then.
func (r *routing) untilDone(ctx context.Context, what string, try func() error) error {
	began := time.Now()
	err := try()
	if err == nil {
		return nil // as nearly every row
	}
	defer r.waits.Store(nil)
	wait := backoff.New(100*time.Millisecond, 5*time.Second)
	var failures backoff.Repeats
	for ; err != nil; err = try() {
		r.waits.Store(&databaseWait{began, fmt.Errorf("ask for %s: %w", what, err)})
		if ctx.Err() == nil && failures.Worth(err.Error(), time.Now()) {
			r.d.log.Warn("cannot go on with changes of rows, trying again", slog.String("for", what), slog.Any("error", err))
		}
		if wait.Wait(ctx) != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// routeVersions reads all versions of amqp.route, once transaction xid is visible (0: at once).
func (d *daemon) routeVersions(ctx context.Context, xid uint32) ([]rows.Version, error) {
	var out []rows.Version
	err := d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		ctx, cancel := context.WithTimeoutCause(ctx, questionTimeout, errSlow)
		defer cancel()
		out, err = rowVersions(ctx, conn, xid)
		return err
	})
	return out, err
}

// rowVersions is routeVersions on a connection.
func rowVersions(ctx context.Context, conn *pgx.Conn, xid uint32) ([]rows.Version, error) {
	if err := catalog.AwaitVisible(ctx, conn, xid); err != nil {
		return nil, err
	}
	versions, err := catalog.RouteVersions(ctx, conn)
	var out []rows.Version
	for _, v := range versions {
		version := rows.Version{Announced: v.Announced, Committed: v.Committed}
		for _, r := range v.Routes {
			version.Routes = append(version.Routes, rows.Route{
				ID: r.ID, BrokerID: r.BrokerID, Exchange: r.Exchange, Schema: r.Schema, Table: r.Table, Prefix: r.Prefix,
				Operations: r.Operations, RoutingKey: r.RoutingKey, Format: rows.Format(r.Format),
				Encoding: rows.Encoding{NumericAsNumber: r.NumericAs == "number", BytesAsHex: r.ByteaAs == "hex"},
			})
		}
		out = append(out, version)
	}
	return out, err
}

// describeType asks the database for a type.
func (d *daemon) describeType(ctx context.Context, oid uint32) (*rows.Description, error) {
	var t *catalog.Type
	err := d.ask(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		t, err = catalog.ReadType(ctx, conn, oid)
		return err
	})
	return rowDescription(t), err
}

// rowDescription is nil for a type that is not there.
func rowDescription(t *catalog.Type) *rows.Description {
	if t == nil {
		return nil
	}
	out := &rows.Description{Kind: t.Kind, Name: t.Name, Elem: t.Elem, Base: t.Base, Modifier: t.Modifier, Delimiter: t.Delimiter}
	for _, a := range t.Attributes {
		out.Attributes = append(out.Attributes, rows.Attribute(a))
	}
	return out
}
